"""What stands on the server beside the pages: routes, and work at start."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)

FIRST_PAGE = "instruct"
"""Where the root path leads, relative to it, so that it holds below a proxy's prefix too."""

FIRST_SCREEN_PATIENCE_S = 10.0
"""Without a visitor for so long, the runtime is imported all the same."""

first_screen_drawn = threading.Event()
"""Set by the shell once it has drawn a page."""


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
    """Import in the background what pages and answers need; at the end, stop what still works."""
    threading.Thread(target=_import_ahead, name="import ahead", daemon=True).start()
    yield {}
    from core.ui.cached import shared_engine

    shared_engine().tuning.close()
    shared_engine().tasks.close()


def _import_ahead() -> None:
    try:
        # What the first screen needs comes first. The model that was used last follows once that
        # screen is on its way, so that its first question finds it loaded.
        from core.devices import list_devices
        from core.ui.cached import shared_engine

        list_devices()
        from core.runtimes.genai import GenAIRuntime

        GenAIRuntime().prepare()
        first_screen_drawn.wait(FIRST_SCREEN_PATIENCE_S)
        engine = shared_engine()
        if spec := engine.last_used():
            engine.warm(spec)
    except (ImportError, RuntimeError):
        logger.exception("OpenVINO or its runtime cannot be imported")
