"""``GET /metrics`` for Prometheus, on the same path as the Metrics page.

A browser that opens the page accepts HTML; any other request gets the Prometheus metrics.
"""

from __future__ import annotations

from collections.abc import Callable

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

METRICS = "/metrics"


def asks_for_page(scope: Scope) -> bool:
    """Whether the request accepts HTML."""
    return "text/html" in Headers(scope=scope).get("accept", "").lower()


class PrometheusRoute(Route):
    """A route that does not match requests for a page."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only requests that do not accept HTML."""
        if scope["type"] == "http" and asks_for_page(scope):
            return Match.NONE, {}
        return super().matches(scope)


def metrics_route(
    prefix: str, meters: Callable[[], ServerMetrics], authentication: ApiAuthentication
) -> Route:
    """Return the route, for guests on this machine and keys with the Manage permission."""

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

    return PrometheusRoute(f"{prefix}{METRICS}", metrics, methods=["GET"])
