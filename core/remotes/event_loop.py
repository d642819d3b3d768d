"""The thread whose event loop runs all network requests to remote servers.

With one event loop a request can be cancelled at any time, even during name resolution, and
concurrent answers need no thread each.
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
    """Start a coroutine; the returned future can be cancelled from any thread."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="remotes", daemon=True).start()
    return loop
