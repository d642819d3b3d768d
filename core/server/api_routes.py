"""Requests of programs: Prometheus metrics, and API requests that lack ``/v1``.

``/metrics`` and ``/models`` are also pages: a browser that opens a page accepts HTML, and any other
request is a program's. Clients of other servers probe paths such as ``/health`` or ``/api/tags``; a
page with status 200 would mean to them that the server has such an API.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from core.api.errors import ApiError, api_error
from core.errors import PaddockError
from core.inference.prometheus import ServerMetrics
from core.server.api_keys import ApiAuthentication
from core.server.paths import V1

METRICS = "/metrics"
_POSTED = ("/chat/completions", "/completions", "/responses", "/embeddings")
_OTHERS_POSTED = ("/completion", "/generate", "/tokenize", "/detokenize", "/rerank", "/infill")
_PROBES = (
    *("/health", "/live", "/ready", "/ping", "/info", "/load", "/version", "/server_info"),
    *("/models", "/get_model_info", "/lora-adapters", "/props", "/slots"),
)
"""Paths that other servers answer."""
_API = re.compile(r"/(api|openai|engines|(?!v1\b)v\d\w*)(/|$)|/V1\b", re.ASCII)
"""Paths of other APIs: Ollama's and LM Studio's own, OpenVINO Model Server's ``/v3``, KServe's."""


def is_api(scope: Scope, prefix: str) -> bool:
    """Whether the HTTP request is for a route that authenticates by API key itself."""
    path = str(scope["path"]).removeprefix(prefix)
    return (
        path == V1
        or path.startswith(f"{V1}/")
        or (path == METRICS and not _asks_for_page(scope))
        or _lacks_v1(scope, prefix)
    )


def metrics_route(
    prefix: str, meters: Callable[[], ServerMetrics], authentication: ApiAuthentication
) -> Route:
    """Return the route of the metrics, for guests on this machine and keys that may manage."""

    async def metrics(request: Request) -> Response:
        try:
            await run_in_threadpool(authentication.authenticate_manager, request)
            accept = request.headers.get("accept", "")
            body, kind = await run_in_threadpool(lambda: meters().exposition(accept))
            headers = {"Cache-Control": "no-store", "Content-Type": kind, "Vary": "Accept"}
            response = Response(body, headers=headers)
        except (ApiError, PaddockError) as error:
            response = api_error(error).response()
        status = response.status_code
        await run_in_threadpool(lambda: meters().count_request(METRICS, request.method, status))
        return response

    return _RouteIf(lambda scope: not _asks_for_page(scope), f"{prefix}{METRICS}", metrics)


def missing_v1_route(prefix: str) -> Route:
    """Return the route of API requests, from any client, whose path lacks ``/v1``."""

    async def answer(request: Request) -> Response:
        path = request.path_params["rest"]
        known = f"/{path}" in (*_POSTED, "/models")
        base = f", such as {V1}/{path}. Add {V1} to the base URL."
        hint = base if known else f": GET {V1}/models."
        named = {"x-request-id": uuid.uuid4().hex}
        message = f"The API is below {V1}{hint}"
        return ApiError(404, message, code="unknown_url", headers=named).response()

    route = _RouteIf(lambda scope: _lacks_v1(scope, prefix), f"{prefix}/{{rest:path}}", answer)
    route.methods = None  # any
    return route


class _RouteIf(Route):
    """A route that matches only requests for which a condition is true."""

    def __init__(self, condition: Callable[[Scope], bool], path: str, endpoint: Any) -> None:
        super().__init__(path, endpoint)
        self._condition = condition

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See ``starlette``."""
        if scope["type"] != "http" or not self._condition(scope):
            return Match.NONE, {}
        return super().matches(scope)


def _asks_for_page(scope: Scope) -> bool:
    """Whether the request accepts HTML."""
    return "text/html" in Headers(scope=scope).get("accept", "").lower()


def _lacks_v1(scope: Scope, prefix: str) -> bool:
    """Whether this is an API request whose path lacks :data:`core.server.paths.V1`."""
    path = str(scope["path"]).removeprefix(prefix)
    if scope["method"] == "POST":
        return path in (*_POSTED, *_OTHERS_POSTED) or _API.match(path) is not None
    return (path in _PROBES or _API.match(path) is not None) and not _asks_for_page(scope)
