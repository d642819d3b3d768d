"""Refusals and failures in OpenAI's form: a status, and an ``error`` that programs can read."""

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
    PaddockError,
    PersonMistake,
    PromptFormatError,
    PromptTooLongError,
    RecordsError,
    ResourceError,
    TooManyAnswersError,
    UnknownDeviceError,
    UnknownModelError,
)

RETRY_AFTER_S = 2
"""Seconds after which it is worth asking again where all are busy."""

INVALID, RATE, SERVER = "invalid_request_error", "rate_limit_error", "server_error"
AUTHENTICATION, PERMISSION = "authentication_error", "permission_error"

_NO_TEMPLATE = (
    "This model has no chat template: write the prompt as the model expects it, and send it to "
    "/v1/completions."
)
"""The pages let a prompt format be chosen there; programs cannot."""
_NO_RECORDS = "The database cannot be read just now; try again in a minute."
_NO_FILES = "The files of this model cannot be used; the log of this Paddock says why."

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """What a program is told that is not answered; never shown on a page."""

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
            status: of HTTP.
            message: one sentence for the person.
            kind: ``type`` of OpenAI's form.
            code: for programs to tell cases apart.
            param: the field that is wrong.
            headers: further ones of the answer.
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
        """OpenAI's form."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """As an answer to a request."""
        return json_response(self.body, self.status, self.headers)


def json_response(
    content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON in ASCII, so that nothing that somebody sent can be no proper text."""
    return Response(
        json.dumps(content, separators=(",", ":")),
        status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def api_error(error: Exception, *, param: str | None = None) -> ApiError:
    """What a program is told of one of our errors; no address or folder of this machine.

    Args:
        error: raised where the answer was asked for, or by the answer.
        param: the field that holds what the model is to read.
    """
    message = str(error)
    later = {"Retry-After": str(RETRY_AFTER_S)}
    match error:
        case ApiError():
            return error
        case PromptTooLongError():
            return ApiError(400, message, code="context_length_exceeded", param=param)
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
        case PersonMistake():
            return ApiError(400, message, code="invalid_request")
        case ModelBusyError():
            return ApiError(503, message, kind=SERVER, code="busy", headers=later)
        case RecordsError() | ModelFilesError():
            logger.error("A program's request failed", exc_info=error)
            told = _NO_RECORDS if isinstance(error, RecordsError) else _NO_FILES
            return ApiError(503, told, kind=SERVER, code="unavailable", headers=later)
        case ResourceError():
            return ApiError(503, message, kind=SERVER, code="unavailable", headers=later)
        case PaddockError():
            return ApiError(500, message, kind=SERVER, code="failed")
        case _:
            return ApiError(
                500, "Something failed here; it is in the log.", kind=SERVER, code="failed"
            )
