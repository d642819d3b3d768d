"""Answer API requests that lack ``/v1`` with an error that says so, instead of a page."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from core.api.errors import ApiError
from core.server.paths import V1
from core.server.prometheus_route import asks_for_page

_MODELS = "/models"
"""Also a page: a request with a key that does not accept HTML is an API request."""
_API_PATHS = ("/chat/completions", "/completions", "/responses", "/embeddings", _MODELS)


def lacks_v1(scope: Scope, prefix: str) -> bool:
    """Whether this is an API request whose path lacks :data:`core.server.paths.V1`."""
    path = str(scope["path"]).removeprefix(prefix)
    if path != _MODELS:
        return path in _API_PATHS and scope["method"] == "POST"
    key = Headers(scope=scope).get("authorization", "")
    return key.lower().startswith("bearer ") and not asks_for_page(scope)


class MissingV1Route(Route):
    """Answers the requests for which :func:`lacks_v1` is true, from any client."""

    def __init__(self, prefix: str) -> None:
        """
        Args:
            prefix: ``server.baseUrlPath``, with a leading and without a trailing slash.
        """
        super().__init__(f"{prefix}/{{rest:path}}", _answer, methods=["GET", "POST"])
        self._prefix = prefix

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only requests that lack ``/v1``."""
        if scope["type"] != "http" or not lacks_v1(scope, self._prefix):
            return Match.NONE, {}
        return super().matches(scope)


async def _answer(request: Request) -> Response:
    path = request.path_params["rest"]
    return ApiError(
        404,
        f"The API is below {V1}, such as {V1}/{path}. Add {V1} to the base URL.",
        code="unknown_url",
    ).response()
