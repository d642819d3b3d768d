"""Answer API requests that lack ``/v1`` with an error that says so, instead of a page.

Clients of other servers probe paths such as ``/health`` or ``/api/tags``; a page with status 200
would mean to them that the server has such an API.
"""

from __future__ import annotations

import re
import uuid

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from core.api.errors import ApiError
from core.server.paths import V1
from core.server.prometheus_route import asks_for_page

_POSTED = ("/chat/completions", "/completions", "/responses", "/embeddings")
_OTHERS_POSTED = ("/completion", "/generate", "/tokenize", "/detokenize", "/rerank", "/infill")
_PROBES = (
    *("/health", "/live", "/ready", "/ping", "/info", "/load", "/version", "/server_info"),
    *("/models", "/get_model_info", "/lora-adapters", "/props", "/slots"),
)
"""Paths that other servers answer. ``/models`` is also a page, so that a request that accepts HTML
is for a page."""
_API = re.compile(r"/(api|openai|engines|(?!v1\b)v\d\w*)(/|$)|/V1\b", re.ASCII)
"""Paths of other APIs: Ollama's and LM Studio's own, OpenVINO Model Server's ``/v3``, KServe's."""


def lacks_v1(scope: Scope, prefix: str) -> bool:
    """Whether this is an API request whose path lacks :data:`core.server.paths.V1`."""
    path = str(scope["path"]).removeprefix(prefix)
    if scope["method"] == "POST":
        return path in (*_POSTED, *_OTHERS_POSTED) or _API.match(path) is not None
    return (path in _PROBES or _API.match(path) is not None) and not asks_for_page(scope)


class MissingV1Route(Route):
    """Answers the requests for which :func:`lacks_v1` is true, from any client."""

    def __init__(self, prefix: str) -> None:
        super().__init__(f"{prefix}/{{rest:path}}", _answer)
        self.methods = None  # any
        self._prefix = prefix

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only requests that lack ``/v1``."""
        if scope["type"] != "http" or not lacks_v1(scope, self._prefix):
            return Match.NONE, {}
        return super().matches(scope)


async def _answer(request: Request) -> Response:
    path = request.path_params["rest"]
    known = f"/{path}" in (*_POSTED, "/models")
    hint = f", such as {V1}/{path}. Add {V1} to the base URL." if known else f": GET {V1}/models."
    named = {"x-request-id": uuid.uuid4().hex}
    message = f"The API is below {V1}{hint}"
    return ApiError(404, message, code="unknown_url", headers=named).response()
