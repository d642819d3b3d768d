"""Errors in OpenAI's format: an HTTP status and an ``error`` object."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from core.errors import (
    AccessDeniedError,
    BadRequestError,
    ModelBusyError,
    ModelFilesError,
    OptionError,
    PaddockError,
    PromptFormatError,
    PromptTooLongError,
    RecordsError,
    ResourceError,
    TooManyAnswersError,
    UnknownDeviceError,
    UnknownModelError,
    UserError,
)

RETRY_AFTER_S = 2
"""``Retry-After`` of errors that are caused by load."""

INVALID, RATE, SERVER = "invalid_request_error", "rate_limit_error", "server_error"
AUTHENTICATION, PERMISSION = "authentication_error", "permission_error"

_NO_TEMPLATE = (
    "This model has no chat template. Write the prompt as the model expects it, and send it to "
    "/v1/completions."
)
"""Replaces the message for the pages, where the user can choose a prompt format."""
_NO_RECORDS = "The database cannot be read at the moment. Try again in a minute."
_NO_FILES = "The files of this model cannot be used. See the server's log for the reason."

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """Error response of the API; never shown on a page."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            kind: ``type`` in OpenAI's format.
            code: ``code`` in OpenAI's format, by which programs distinguish errors.
            param: the field that caused the error.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error in OpenAI's format."""
        found = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": found}

    def response(self) -> Response:
        """Return the HTTP response."""
        return json_response(self.body, self.status, self.headers)


def invalid_value(message: str, param: str) -> ApiError:
    """Return the error for a field, or a combination of fields, that cannot be used."""
    return ApiError(400, message, code="invalid_value", param=param)


def json_response(
    content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response, in ASCII so that lone surrogates from a request can be encoded."""
    return Response(
        json.dumps(content, separators=(",", ":")),
        status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def api_error(error: Exception, *, param: str | None = None) -> ApiError:
    """Convert an error to OpenAI's format, without paths or addresses of this machine.

    Args:
        error: raised when the answer was started, or during generation.
        param: the field that contains the prompt.
    """
    message = str(error)
    later = {"Retry-After": str(RETRY_AFTER_S)}
    match error:
        case ApiError():
            return error
        case PromptTooLongError():
            return ApiError(400, message, code="context_length_exceeded", param=param)
        case OptionError():
            return ApiError(400, message, code="unsupported_parameter", param=error.option)
        case UnknownModelError() | UnknownDeviceError():
            return ApiError(404, message, code="model_not_found", param="model")
        case TooManyAnswersError():
            return ApiError(429, message, kind=RATE, code="rate_limit_exceeded", headers=later)
        case AccessDeniedError():
            return ApiError(403, message, kind=PERMISSION, code="forbidden")
        case BadRequestError():
            return ApiError(400, message, code="invalid_value", param=param)
        case PromptFormatError():
            return ApiError(400, _NO_TEMPLATE, code="no_chat_template", param=param)
        case UserError():
            return ApiError(400, message, code="invalid_request")
        case ModelBusyError():
            return ApiError(503, message, kind=SERVER, code="busy", headers=later)
        case RecordsError() | ModelFilesError():
            logger.error("An API request failed", exc_info=error)
            text = _NO_RECORDS if isinstance(error, RecordsError) else _NO_FILES
            return ApiError(503, text, kind=SERVER, code="unavailable", headers=later)
        case ResourceError():
            return ApiError(503, message, kind=SERVER, code="unavailable", headers=later)
        case PaddockError():
            return ApiError(500, message, kind=SERVER, code="failed")
        case _:
            return ApiError(
                500, "Internal server error. See the server's log.", kind=SERVER, code="failed"
            )
