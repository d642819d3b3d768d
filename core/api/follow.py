"""Wait on the server's event loop for an answer generated in threads, or for a disconnect."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType

from starlette.types import Receive

from core.api.service import Running
from core.inference.job import Phase

_WORKING = (Phase.PREFILL, Phase.ANSWERING, Phase.DONE)


class Follower:
    """Follow one answer; leaving the ``async with`` block before its end cancels it."""

    def __init__(self, running: Running, receive: Receive) -> None:
        """
        Args:
            running: the answer.
            receive: ASGI's, after the request's body was read: reports the disconnect.
        """
        self.running = running
        self.disconnected = False
        """Whether the client has closed the connection."""
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._notified = False
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Follower:
        self._listening = asyncio.create_task(self._listen(), name="listen for disconnect")
        self.running.watch(self._notify)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.running.done:
            self.running.cancel()
        if self._listening is not None:
            self._listening.cancel()

    @property
    def started(self) -> bool:
        """Whether generation has started."""
        return self.running.phase in _WORKING

    async def wait_for_change(self, timeout_s: float | None = None) -> bool:
        """Wait until the answer may have changed; return False on timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        self._notified = False  # before the answer is read, so that later changes notify again
        return True

    async def wait_until_done(self) -> bool:
        """Wait for the end of the answer; return False if the client disconnects first."""
        while not self.running.done and not self.disconnected:
            await self.wait_for_change()
        return not self.disconnected

    def _notify(self) -> None:
        """Wake the event loop; called in generating threads, has effect once per wait."""
        if self._notified:
            return
        self._notified = True
        with suppress(RuntimeError):  # the server has shut down
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self._changed.set()
