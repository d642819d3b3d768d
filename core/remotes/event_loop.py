"""The thread in which everything that goes over the network to remotes runs.

One event loop for all of them: a request can be given up at any moment, while a name is being
looked up too, and many answers at once need no thread each on the wire.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start ``work``; cancelling what is returned gives it up, from any thread."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="remotes", daemon=True).start()
    return loop
