"""Request bodies: reading with limits, parsing as JSON, and fields with errors that name them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Set
from typing import Annotated, Any, ClassVar, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request

from core.api.errors import ApiError

MAX_BYTES = 4 * 2**20
"""Maximum size of a body: 200,000 characters of up to twelve bytes each, as JSON escapes them,
and the other fields."""
READ_TIMEOUT_S = 30.0
"""Seconds in which the whole body must arrive."""
REMOVE = "Remove it from the request."
_SHOWN = 60
"""Characters of an invalid value or an unknown name that are quoted in an error."""


class BodyTooLong(Exception):
    """A body exceeds its maximum size; the caller says so in its own sentence."""


async def read_limited(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """Return the body of any request.

    Raises:
        BodyTooLong: it is larger than ``max_bytes``.
        TimeoutError: it did not arrive in time.
        ClientDisconnect: the client closed the connection.
    """
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:12]) > max_bytes:
        raise BodyTooLong
    received = bytearray()
    async with asyncio.timeout(timeout_s):
        async for piece in request.stream():
            received += piece
            if len(received) > max_bytes:
                raise BodyTooLong
    return bytes(received)


def content_type(request: Request) -> str:
    """Return the content type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request) -> bytes:
    """Return the request body.

    Raises:
        ApiError: it has another content type, is too long or arrives too slowly.
        ClientDisconnect: the client closed the connection.
    """
    if content_type(request) != "application/json":
        raise ApiError(
            415,
            "The request is not JSON. Send it as Content-Type: application/json.",
            code="not_json",
        )
    try:
        return await read_limited(request, MAX_BYTES, READ_TIMEOUT_S)
    except BodyTooLong as error:
        size = f"{MAX_BYTES / 1e6:.1f} MB"
        raise ApiError(
            413, f"The request is larger than {size}. Shorten it.", code="too_long"
        ) from error
    except TimeoutError as error:
        raise ApiError(
            408,
            f"The request did not arrive within {READ_TIMEOUT_S:.0f} s. Send it again.",
            code="slow",
            headers={"Connection": "close"},  # the rest of the body is not read
        ) from error


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


def _bad(sentence: str) -> ApiError:
    return ApiError(400, sentence, code="invalid_json")


class Fields(BaseModel):
    """Fields of a JSON object; any other is rejected by name.

    Nothing is converted: "5" is not a number, and 1 is not true. The description of a field says in
    errors what it must be; a boolean or a plain string needs none.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

    no_effect: ClassVar[Set[str]] = frozenset()
    """Further fields, which are ignored because they do not change the answer."""

    @classmethod
    def parse(cls, values: Any, path: str = "") -> Self:
        """Return the fields of an object; an explicit null counts as missing.

        Args:
            values: parsed JSON.
            path: where the object is in the request, for errors.

        Raises:
            ApiError: it is not an object, or a field is invalid or missing.
        """
        if not isinstance(values, dict):
            raise invalid(path, values, "an object")
        given = {
            name: value
            for name, value in values.items()
            if value is not None and name not in cls.no_effect
        }
        for name in given:
            if name not in cls.model_fields:
                shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
                raise unsupported(f"{path}.{shown}".removeprefix("."), REMOVE)
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            name = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        field = cls.model_fields[name]
        wanted = field.description or ("true or false" if field.annotation is bool else "a string")
        raise invalid(f"{path}.{name}".removeprefix("."), values.get(name), wanted)


Whole = Annotated[
    int, BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)
]
"""An integer, which JSON may have with a decimal point: 40.0."""


def number(low: float, high: float, *, default: float | None = None) -> Any:
    """Return a field for a number."""
    return Field(default, ge=low, le=high, description=f"a number from {low} to {high}")


def whole(low: int, high: int, *, default: int | None = None) -> Any:
    """Return a field for a :data:`Whole`."""
    return Field(default, ge=low, le=high, description=f"an integer from {low} to {high}")


def invalid(name: str, value: Any, wanted: str) -> ApiError:
    """Return the error for an invalid or missing value."""
    if value is None:
        return ApiError(
            400, f"`{name}` is missing. It must be {wanted}.", code="missing_value", param=name
        )
    return ApiError(
        400, f"`{name}` is {_shown(value)}, but must be {wanted}.", code="invalid_value", param=name
    )


def unsupported(name: str, hint: str) -> ApiError:
    """Return the error for a field that is not supported; the hint says what to do instead."""
    message = f"`{name}` is not supported. {hint}"
    return ApiError(400, message, code="unsupported_parameter", param=name)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value}"
        case int():
            return f"{value}" if abs(value) < 10**_SHOWN else "a number with too many digits"
        case str():
            return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
        case list():
            return f"a list of length {len(value):,}" if value else "an empty list"
        case _:
            return "an object"
