"""``GET /metrics`` for Prometheus, at the address of a page.

A browser that opens a page asks for HTML and gets the Metrics page; everything else is a program.
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
from core.server.api_keys import Programs

METRICS = "/metrics"


def asks_for_page(scope: Scope) -> bool:
    """Whether a browser wants to show what it gets."""
    return "text/html" in Headers(scope=scope).get("accept", "").lower()


class ProgramsRoute(Route):
    """A route that browsers which open a page pass by."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        if scope["type"] == "http" and asks_for_page(scope):
            return Match.NONE, {}
        return super().matches(scope)


def metrics_route(prefix: str, meters: Callable[[], ServerMetrics], programs: Programs) -> Route:
    """The route.

    Args:
        prefix: ``server.baseUrlPath``, with a slash before and none behind.
        meters: asked for in a thread.
        programs: guests at this machine are let in, and keys with the right to manage.
    """

    def exposition(accept: str) -> tuple[bytes, str]:
        return meters().exposition(accept)

    def count(method: str, status: int) -> None:
        meters().count_request(METRICS, method, status)

    async def metrics(request: Request) -> Response:
        try:
            await run_in_threadpool(programs.admit_manager, request)
            accept = request.headers.get("accept", "")
            body, kind = await run_in_threadpool(exposition, accept)
        except (ApiError, PaddockError) as error:
            refusal = api_error(error)
            await run_in_threadpool(count, request.method, refusal.status)
            return refusal.response()
        await run_in_threadpool(count, request.method, 200)
        headers = {"Cache-Control": "no-store", "Content-Type": kind, "Vary": "Accept"}
        return Response(body, headers=headers)

    return ProgramsRoute(f"{prefix}{METRICS}", metrics, methods=["GET"])
