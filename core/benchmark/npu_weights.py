"""INT4 models as an NPU takes them, made for a benchmark alone.

The store holds one INT4 of a model, as a person has it compressed, and an NPU wants its own:
symmetric, one scale per channel, all layers. Where the stored one is another, a benchmark leaves it
as it is and measures one that it makes here, in a home folder below the home folder::

    npu-weights/models/<key>/int4/

It goes when a sweep is complete; what a sweep that was stopped leaves is gone on with, or removed
on the Models page and by ``python -m core delete --random-weights``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from core.benchmark.turn import Turn
from core.errors import ModelBusyError
from core.settings import Settings
from core.store.files import folder_bytes
from core.units import decimal_text


def npu_settings(settings: Settings) -> Settings:
    """The settings of the home folder in which INT4 models for an NPU lie."""
    return settings.model_copy(update={"home": settings.home / "npu-weights"})


def npu_weights_bytes(settings: Settings) -> int:
    """What they take on disk; those with random weights are not counted."""
    return folder_bytes(npu_settings(settings).home)


def delete_npu_weights(settings: Settings) -> int:
    """Remove them, those with random weights aside, and return the bytes freed.

    Raises:
        ModelBusyError: a benchmark runs, or a program has a file open.
    """
    with Turn(settings).taken():
        return remove_npu_weights(settings)


def remove_npu_weights(settings: Settings) -> int:
    """The same for whoever has the benchmark's turn already.

    Raises:
        ModelBusyError: a file cannot be removed.
    """
    return remove_folder(npu_settings(settings).home, "INT4 models for an NPU")


def remove_folder(folder: Path, what: str) -> int:
    """Remove a folder of the benchmark's, and return the bytes freed.

    Raises:
        ModelBusyError: a file cannot be removed.
    """
    before = folder_bytes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    left = folder_bytes(folder)
    if left:
        raise ModelBusyError(
            f"Some {what} in {folder} could not be removed ({decimal_text(left)}); close the "
            "programs that use them and try again."
        )
    return before
