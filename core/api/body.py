"""Read a request body with limits on size and time, and parse it as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import Request

from core.api.errors import ApiError

MAX_BYTES = 4 * 2**20
"""Maximum size of a body: 200,000 characters of up to twelve bytes each, as JSON escapes them,
and the other fields."""
READ_TIMEOUT_S = 30.0
"""Seconds in which the whole body must arrive."""


async def read_body(request: Request) -> bytes:
    """Return the request body.

    Raises:
        ApiError: it has another content type, is too long or arrives too slowly.
        ClientDisconnect: the client closed the connection.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415,
            "The request is not JSON. Send it as Content-Type: application/json.",
            code="not_json",
        )
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:12]) > MAX_BYTES:
        raise _too_long()
    received = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for piece in request.stream():
                received += piece
                if len(received) > MAX_BYTES:
                    raise _too_long()
    except TimeoutError as error:
        raise ApiError(
            408,
            f"The request did not arrive within {READ_TIMEOUT_S:.0f} s. Send it again.",
            code="slow",
            headers={"Connection": "close"},  # the rest of the body is not read
        ) from error
    return bytes(received)


def parse_body(body: bytes) -> dict[str, Any]:
    """Parse the body as a JSON object; a byte order mark before it is ignored (RFC 8259 §8.1).

    Raises:
        ApiError: it is not one.
    """
    try:
        found = json.loads(body.decode("utf-8-sig"), parse_constant=_reject_constant)
    except UnicodeDecodeError as error:
        raise _bad(f"The body is not valid UTF-8 (byte {error.start}). Send UTF-8.") from error
    except RecursionError as error:
        raise _bad("The body is nested too deeply. Send a flatter object.") from error
    except ValueError as error:
        raise _bad(f"The body is not valid JSON: {str(error)[:200]}.") from error
    if not isinstance(found, dict):
        raise _bad("The body must be a JSON object.")
    return found


def _reject_constant(name: str) -> NoReturn:
    """Reject ``NaN`` and ``Infinity``, which Python's parser accepts."""
    raise ValueError(f"{name} is not a JSON number")


def _too_long() -> ApiError:
    return ApiError(
        413, f"The request is larger than {MAX_BYTES / 1e6:.1f} MB. Shorten it.", code="too_long"
    )


def _bad(sentence: str) -> ApiError:
    return ApiError(400, sentence, code="invalid_json")
