"""A streamed answer, as server-sent events."""

from __future__ import annotations

from starlette.types import Send

from core.api.errors import ApiError
from core.api.follow import Follower
from core.api.protocol import Asked
from core.api.replies import STILL_THERE, Chunks, Reply, error_event, failure

BEGIN_AFTER_S = 10.0
"""So long it is waited for work to begin, so that a refusal has its own status; whoever waits
longer in line gets the beginning of the stream, and a refusal as an event of it."""
STILL_THERE_EVERY_S = 15.0
"""A stream that says nothing for longer says that it is still there."""

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect what should be passed on
)


async def send_stream(asked: Asked, reply: Reply, follower: Follower, send: Send) -> int:
    """Send an answer as it is made; pieces that are ready together go together.

    Returns:
        The status of HTTP; 499 where the client left before there was one.

    Raises:
        ApiError: the answer failed before anything was sent.
    """
    running = follower.running
    while not follower.working and not follower.gone:
        if not await follower.news(BEGIN_AFTER_S):
            break
    if follower.gone:
        return 499
    if running.done and not running.read(0)[0] and (error := _failure(follower, asked)):
        raise error
    await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
    chunks = Chunks(reply, include_usage=asked.include_usage)
    ready = chunks.first() + (chunks.text(asked.prefix) if asked.prefix else b"")
    read = 0
    while not follower.gone:
        done = running.done  # looked at first: nothing comes after it
        pieces, read = running.read(read)
        if text := "".join(pieces):
            ready += chunks.text(text)
        if done:
            break
        if ready:
            await _send(send, ready)
            ready = b""
        if not await follower.news(STILL_THERE_EVERY_S):
            ready = STILL_THERE
    answer = running.answer
    if answer is not None and not follower.gone:
        error = _failure(follower, asked)
        ready += error_event(error) if error else chunks.last(answer)
    await send({"type": "http.response.body", "body": ready, "more_body": False})
    return 200


def _failure(follower: Follower, asked: Asked) -> ApiError | None:
    answer = follower.running.answer
    return failure(answer, asked.param) if answer is not None else None


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
