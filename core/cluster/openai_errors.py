"""Errors in OpenAI's form, as its clients expect and raise them."""

from __future__ import annotations

import json
from typing import Any

JSON_HEADERS = [(b"content-type", b"application/json")]


def error_object(message: str, kind: str, *, code: str | None = None) -> dict[str, Any]:
    """The object.

    Args:
        message: a sentence for the person.
        kind: ``invalid_request_error``, ``authentication_error`` or ``server_error``.
        code: a word that programs look for, such as ``model_not_found``.
    """
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_messages(status: int, message: str, *, code: str | None = None) -> list[dict[str, Any]]:
    """A whole response, as ASGI sends it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    if status == 401:
        kind = "authentication_error"
    body = json.dumps(error_object(message, kind, code=code)).encode()
    return [
        {"type": "http.response.start", "status": status, "headers": JSON_HEADERS},
        {"type": "http.response.body", "body": body},
    ]


def error_event(message: str) -> dict[str, Any]:
    """The end of a stream of server-sent events that has begun, as ASGI sends it."""
    told = json.dumps(error_object(message, "server_error"))
    return {"type": "http.response.body", "body": f"data: {told}\n\n".encode()}
