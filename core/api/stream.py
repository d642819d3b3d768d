"""Follow an answer that is being generated, and send it as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from starlette.types import Receive, Send

from core.api.errors import ApiError
from core.api.protocol import ParsedRequest
from core.api.replies import KEEP_ALIVE, Chunks, Reader, Reply, error_event, failure
from core.inference.answer import Answer
from core.inference.job import Job, Phase

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
    """Follow the answers to one request; leaving the ``async with`` block cancels running ones."""

    def __init__(self, answers: Sequence[Job], receive: Receive) -> None:
        """
        Args:
            answers: one, or several to the same request.
            receive: ASGI's, after the request's body was read: reports the disconnect.
        """
        self.answers = answers
        self.disconnected = False
        """Whether the client has closed the connection."""
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._notified = False
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Follower:
        self._listening = asyncio.create_task(self._listen(), name="listen for disconnect")
        for answer in self.answers:
            answer.watch(self._notify)
        return self

    async def __aexit__(self, *_: object) -> None:
        for answer in self.answers:
            if not answer.done:
                answer.cancel()
        if self._listening is not None:
            self._listening.cancel()

    @property
    def started(self) -> bool:
        """Whether the generation of an answer has started."""
        return any(answer.phase in _WORKING for answer in self.answers)

    @property
    def done(self) -> bool:
        """Whether all answers have ended, or one has failed."""
        return all(answer.done for answer in self.answers) or self.failed

    @property
    def failed(self) -> bool:
        """Whether an answer has ended with an error."""
        return any(each.answer is not None and each.answer.error for each in self.answers)

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
        """Wait until :attr:`done`; return False if the client disconnects first."""
        while not self.done and not self.disconnected:
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
    """Send answers as they are generated; pieces that are ready together are sent together.

    Returns:
        The HTTP status, or 499 if the client disconnected before it was sent.

    Raises:
        ApiError: an answer failed before anything was sent.
    """
    while not follower.started and not follower.disconnected:
        if not await follower.wait_for_change(EARLY_ERROR_WAIT_S):
            break
    if follower.disconnected:
        return 499
    readers = [Reader(each, parsed.prefix) for each in follower.answers]
    begun = any(each.read(0)[0] or each.read_thoughts(0)[0] for each in follower.answers)
    if follower.done and not begun and (error := failure_of(follower.answers, parsed.param)):
        raise error
    await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
    chunks = Chunks(reply, include_usage=parsed.include_usage)
    # Sent with the first token, by which clients measure the prefill.
    first = b"".join(map(chunks.first, range(len(readers))))
    ready = b""
    while not follower.disconnected:
        done = follower.done  # before reading, so that the last pieces are not missed
        new = b"".join(chunks.pieces(index, each.read()) for index, each in enumerate(readers))
        if new or done:
            ready, first = ready + first + new, b""
        if done:
            break
        if ready:
            await send({"type": "http.response.body", "body": ready, "more_body": True})
            ready = b""
        if not await follower.wait_for_change(KEEP_ALIVE_S):
            ready = KEEP_ALIVE
    if follower.done and not follower.disconnected:
        error = failure_of(follower.answers, parsed.param)
        ready += error_event(error) if error else chunks.last(ended(follower.answers))
    await send({"type": "http.response.body", "body": ready, "more_body": False})
    return 200


def ended(answers: Sequence[Job]) -> list[Answer]:
    """Return the answers that have ended."""
    return [each.answer for each in answers if each.answer is not None]


def failure_of(answers: Sequence[Job], param: str) -> ApiError | None:
    """Return the error of the first answer that failed or was cancelled, or None."""
    return next(filter(None, (failure(each, param) for each in ended(answers))), None)
