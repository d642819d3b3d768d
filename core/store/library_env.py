"""The conversion libraries: telemetry, optional imports, output, exceptions."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import ConversionError
from core.workers.child import one_line

log = logging.getLogger(__name__)

LIBRARY_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
)
"""Exceptions of transformers, Optimum, OpenVINO and NNCF for a model that they do not support."""


def disable_telemetry() -> None:
    """Disable the telemetry of OpenVINO and NNCF in this process.

    OpenVINO's model converter and NNCF report every conversion to a statistics server by default.
    Both work without the package ``openvino_telemetry``, so importing it is blocked. Call this
    before the first import of either.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


_OPTIONAL = ("sklearn", "sentence_transformers")


def skip_optional_imports() -> None:
    """Block optional imports of the libraries in this process, which only converts.

    transformers imports scikit-learn, with pandas and parts of SciPy, only for assisted generation;
    without it the libraries are loaded half a second sooner, more on a cold disk. Optimum Intel
    imports Sentence Transformers if it is installed; it is not used here and requires scikit-learn.
    """
    for name in _OPTIONAL:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large libraries in this block in two thirds of the time.

    Optional imports are blocked meanwhile, see :func:`skip_optional_imports`, and the garbage
    collector is disabled, because imports create no garbage. Both are restored afterwards.

    What was imported is excluded from later collections (``gc.freeze``): with transformers, a full
    one would walk half a million objects, 0.4 s in which no other thread runs. Models must not be
    loaded in this block, because frozen ones would never be collected.
    """
    absent = [name for name in _OPTIONAL if name not in sys.modules]
    before = len(sys.modules)
    collecting = gc.isenabled()
    skip_optional_imports()
    gc.disable()
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
        if len(sys.modules) > before:
            gc.freeze()
        if collecting:
            gc.enable()


def quieten_libraries() -> None:
    """Turn off progress bars and warnings of transformers, huggingface_hub, torch and NNCF.

    Changes process-wide settings; for processes that only convert.
    """
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore")
    logging.getLogger("nncf").setLevel(logging.ERROR)


@contextmanager
def as_conversion_error(what: str, further: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise ConversionError for exceptions that a library raises in this block.

    Args:
        what: subject of the message: "Export to OpenVINO".
        further: exceptions besides :data:`LIBRARY_ERRORS`.
    """
    try:
        yield
    except (*LIBRARY_ERRORS, *further) as error:
        log.debug("%s failed", what, exc_info=True)
        raise ConversionError(
            f"{what} failed ({one_line(error)}). The model may not be supported; choose another "
            "model or precision."
        ) from error
