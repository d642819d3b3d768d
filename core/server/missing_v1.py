"""Programs that leave out ``/v1`` are told so: else they would get a page, or a bare refusal."""

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
"""A page, too: whoever asks there with a key and for no page is a program."""
_ASKED = ("/chat/completions", "/completions", "/responses", "/embeddings", _MODELS)


def is_astray(scope: Scope, prefix: str) -> bool:
    """Whether a program asks where it would be right below :data:`core.server.paths.V1`."""
    path = str(scope["path"]).removeprefix(prefix)
    if path != _MODELS:
        return path in _ASKED and scope["method"] == "POST"
    key = Headers(scope=scope).get("authorization", "")
    return key.lower().startswith("bearer ") and not asks_for_page(scope)


class AstrayRoute(Route):
    """Answers what :func:`is_astray`, whoever asks."""

    def __init__(self, prefix: str) -> None:
        """
        Args:
            prefix: ``server.baseUrlPath``, with a slash before and none behind.
        """
        super().__init__(f"{prefix}/{{rest:path}}", _answer, methods=["GET", "POST"])
        self._prefix = prefix

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        if scope["type"] != "http" or not is_astray(scope, self._prefix):
            return Match.NONE, {}
        return super().matches(scope)


async def _answer(request: Request) -> Response:
    path = request.path_params["rest"]
    return ApiError(
        404,
        f"Programs ask below {V1} here, such as {V1}/{path}: put {V1} at the end of the base URL.",
        code="unknown_url",
    ).response()
