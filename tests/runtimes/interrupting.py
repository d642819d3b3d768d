"""Interrupts of a prefill, as a running answer sends them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_EVERY_S = 0.02


@contextmanager
def interrupted(model: Any, request: Any) -> Iterator[None]:
    """Interrupt a request again and again until the block ends.

    An interrupt has no effect before the request has begun, which takes long on a busy machine.
    """
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(_EVERY_S):
            model.interrupt(request)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
