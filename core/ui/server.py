"""What stands on the server beside the pages: routes, and work at start."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)

FIRST_PAGE = "instruct"
"""Where the root path leads, relative to it, so that it holds below a proxy's prefix too."""


async def healthz(request: Request) -> Response:
    """Answers as long as the server does."""
    return PlainTextResponse("ok")


class RootToFirstPage:
    """Sends the root path on to the first page, query included, before any script runs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
            query = scope["query_string"].decode("latin-1")
            where = f"{FIRST_PAGE}?{query}" if query else FIRST_PAGE
            await RedirectResponse(where, status_code=307)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


routes = [Route("/healthz", healthz)]
middleware = [Middleware(RootToFirstPage)]


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Import in the background what pages and answers need, so that neither has to wait."""
    threading.Thread(target=_import_ahead, name="import ahead", daemon=True).start()
    yield {}


def _import_ahead() -> None:
    try:
        # What the first screen needs comes first; it is drawn while the runtime, some five
        # seconds of imports, follows.
        from core.devices import list_devices
        from core.ui.cached import shared_engine  # noqa: F401

        list_devices()
        from core.runtimes.optimum import OptimumRuntime

        with _giving_way():
            OptimumRuntime().prepare()
    except (ImportError, RuntimeError):
        logger.exception("OpenVINO or its runtime cannot be imported")


@contextmanager
def _giving_way() -> Iterator[None]:
    """Let other threads have the interpreter after half a millisecond instead of five.

    A page is some hundred small requests, each of which would wait for an import.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
