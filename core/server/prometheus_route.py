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
    """Return the route.

    Args:
        prefix: ``server.baseUrlPath``, with a leading and without a trailing slash.
        meters: returns the metrics; called in a thread.
        authentication: allows guests on this machine, and keys with the Manage permission.
    """

    def exposition(accept: str) -> tuple[bytes, str]:
        return meters().exposition(accept)

    def count(method: str, status: int) -> None:
        meters().count_request(METRICS, method, status)

    async def metrics(request: Request) -> Response:
        try:
            await run_in_threadpool(authentication.authenticate_manager, request)
            accept = request.headers.get("accept", "")
            body, kind = await run_in_threadpool(exposition, accept)
        except (ApiError, PaddockError) as error:
            failure = api_error(error)
            await run_in_threadpool(count, request.method, failure.status)
            return failure.response()
        await run_in_threadpool(count, request.method, 200)
        headers = {"Cache-Control": "no-store", "Content-Type": kind, "Vary": "Accept"}
        return Response(body, headers=headers)

    return PrometheusRoute(f"{prefix}{METRICS}", metrics, methods=["GET"])
