"""Follow an answer that is being generated, and send it as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType

from starlette.types import Receive, Send

from core.api.errors import ApiError
from core.api.protocol import ParsedRequest
from core.api.replies import KEEP_ALIVE, Chunks, Reply, error_event, failure
from core.api.service import Running
from core.inference.job import Phase

EARLY_ERROR_WAIT_S = 10.0
"""Wait this long before sending 200, so that early failures keep their own status. After that the
stream starts while the request is still queued, and an error is sent as an event."""
KEEP_ALIVE_S = 15.0
"""A stream without data for this long sends :data:`core.api.replies.KEEP_ALIVE`."""

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would buffer the stream
)
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


async def send_stream(parsed: ParsedRequest, reply: Reply, follower: Follower, send: Send) -> int:
    """Send an answer as it is generated; pieces that are ready together are sent together.

    Returns:
        The HTTP status, or 499 if the client disconnected before it was sent.

    Raises:
        ApiError: the answer failed before anything was sent.
    """
    running = follower.running
    while not follower.started and not follower.disconnected:
        if not await follower.wait_for_change(EARLY_ERROR_WAIT_S):
            break
    if follower.disconnected:
        return 499
    if running.done and not running.read(0)[0] and (error := _failure(follower, parsed)):
        raise error
    await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
    chunks = Chunks(reply, include_usage=parsed.include_usage)
    ready = chunks.first() + (chunks.text(parsed.prefix) if parsed.prefix else b"")
    read = 0
    while not follower.disconnected:
        done = running.done  # before reading, so that the last pieces are not missed
        pieces, read = running.read(read)
        if text := "".join(pieces):
            ready += chunks.text(text)
        if done:
            break
        if ready:
            await _send(send, ready)
            ready = b""
        if not await follower.wait_for_change(KEEP_ALIVE_S):
            ready = KEEP_ALIVE
    answer = running.answer
    if answer is not None and not follower.disconnected:
        error = _failure(follower, parsed)
        ready += error_event(error) if error else chunks.last(answer)
    await send({"type": "http.response.body", "body": ready, "more_body": False})
    return 200


def _failure(follower: Follower, parsed: ParsedRequest) -> ApiError | None:
    answer = follower.running.answer
    return failure(answer, parsed.param) if answer is not None else None


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
