"""Waiting on the server's loop for an answer that threads make, and for whoever asked to leave."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType

from starlette.types import Receive

from core.api.service import Running
from core.inference.job import Phase

_WORKING = (Phase.PREFILL, Phase.ANSWERING, Phase.DONE)


class Follower:
    """Follows one answer, and stops it where its ``async with`` block is left before the end."""

    def __init__(self, running: Running, receive: Receive) -> None:
        """
        Args:
            running: the answer.
            receive: of ASGI, once the request's body was read: tells that the client is gone.
        """
        self.running = running
        self.gone = False
        """Whether the client has hung up."""
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._told = False
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Follower:
        self._listening = asyncio.create_task(self._listen(), name="listen for hanging up")
        self.running.watch(self._tell)
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
    def working(self) -> bool:
        """Whether the request has been taken and work on the answer has begun."""
        return self.running.phase in _WORKING

    async def news(self, patience_s: float | None = None) -> bool:
        """Wait until there may be something new; False where the time ran out first."""
        try:
            async with asyncio.timeout(patience_s):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        self._told = False  # before anybody looks: what comes from here on is told anew
        return True

    async def ended(self) -> bool:
        """Wait for the end; False where the client left before."""
        while not self.running.done and not self.gone:
            await self.news()
        return not self.gone

    def _tell(self) -> None:
        """In the threads that make the answer: wake the loop, once until it has looked."""
        if self._told:
            return
        self._told = True
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._news.set)

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._news.set()
