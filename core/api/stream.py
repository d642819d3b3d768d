"""Send a streamed answer as server-sent events."""

from __future__ import annotations

from starlette.types import Send

from core.api.errors import ApiError
from core.api.follow import Follower
from core.api.protocol import ParsedRequest
from core.api.replies import KEEP_ALIVE, Chunks, Reply, error_event, failure

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
