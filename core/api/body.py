"""Reading what a program sends: bounded in length and time, and JSON in every way."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import Request

from core.api.errors import ApiError

LARGEST = 4 * 2**20
"""Bytes of a request: 200 000 characters of up to twelve bytes as JSON escapes them, and the
rest."""
SLOWEST_S = 30.0
"""Seconds in which all of it must have come."""


async def read_body(request: Request) -> bytes:
    """All that was sent.

    Raises:
        ApiError: it is of another kind, too long or too slow.
        ClientDisconnect: whoever sent it is gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "Send JSON, as Content-Type: application/json.", code="not_json")
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:12]) > LARGEST:
        raise _too_long()
    received = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_S):
            async for piece in request.stream():
                received += piece
                if len(received) > LARGEST:
                    raise _too_long()
    except TimeoutError as error:
        raise ApiError(
            408,
            f"The request did not arrive within {SLOWEST_S:.0f} s; send it again.",
            code="slow",
            headers={"Connection": "close"},  # what is still to come is not waited for
        ) from error
    return bytes(received)


def parse_body(body: bytes) -> dict[str, Any]:
    """The object that the body holds.

    Raises:
        ApiError: it holds none.
    """
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise _bad(f"The body is no UTF-8 text, from byte {error.start} on.") from error
    except RecursionError as error:
        raise _bad("The body is nested too deeply.") from error
    except ValueError as error:
        raise _bad(f"The body is no JSON: {str(error)[:200]}.") from error
    if not isinstance(found, dict):
        raise _bad("The body must be a JSON object.")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _too_long() -> ApiError:
    return ApiError(
        413, f"The request is longer than {LARGEST // 2**20} MiB; shorten it.", code="too_long"
    )


def _bad(sentence: str) -> ApiError:
    return ApiError(400, sentence, code="invalid_json")
