"""Removes the INT4 models that were made for an NPU, while no benchmark measures them."""

from __future__ import annotations

from collections.abc import Callable

from core.benchmark.lock import Turn
from core.settings import Settings
from core.store.for_device import remove_npu_weights


def delete_npu_weights(settings: Settings, before: Callable[[], None] = lambda: None) -> int:
    """Remove them, those with random weights aside, and return the bytes freed.

    Args:
        settings: tell the home folder.
        before: is called once it is known that no benchmark runs; what it raises ends it.

    Raises:
        ModelBusyError: a benchmark runs, one is being made, or a program has a file open.
    """
    settings.check_not_kiosk()
    with Turn(settings).taken():
        before()
        return remove_npu_weights(settings)
