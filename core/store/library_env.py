"""Keeps the conversion libraries from phoning home and from talking over our own output."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def refuse_telemetry() -> None:
    """Make ``openvino_telemetry`` unavailable to this process.

    OpenVINO's model converter and NNCF report every conversion to a statistics server unless
    told otherwise. Both have a silent stand-in for when the reporting package is absent, so it is
    declared absent; this must come before the first import of either.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


_NEEDLESS = ("sklearn", "sentence_transformers")


def leave_out_needless() -> None:
    """Make libraries unavailable to this process, which converts and does nothing else.

    transformers imports scikit-learn, with pandas and parts of SciPy, for assisted generation
    alone; without it the libraries are loaded half a second sooner, more on a cold disk. Optimum
    Intel imports Sentence Transformers, which nothing here uses and which cannot do without
    scikit-learn, wherever it is installed.
    """
    for name in _NEEDLESS:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import transformers and Optimum in this block a third sooner, with no lasting effect.

    What nothing here needs is left out, see :func:`leave_out_needless`, and the garbage collector
    rests: what an import makes is there to stay.
    """
    absent = [name for name in _NEEDLESS if name not in sys.modules]
    collecting = gc.isenabled()
    leave_out_needless()
    gc.disable()
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
        if collecting:
            gc.enable()


def quieten_libraries() -> None:
    """Turn off the progress bars and chatter of transformers, huggingface_hub, torch and NNCF.

    For a process that only converts; it changes process-wide settings.
    """
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore")
    logging.getLogger("nncf").setLevel(logging.ERROR)
