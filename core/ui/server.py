"""What stands on the server beside the pages: routes, and work at start."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

logger = logging.getLogger(__name__)

FIRST_SCREEN_PATIENCE_S = 20.0
"""Without a visitor for so long, the heavy imports start all the same."""

first_screen_drawn = threading.Event()
"""Set by the shell once it has drawn a page."""


async def healthz(request: Request) -> Response:
    """Answers as long as the server does."""
    return PlainTextResponse("ok")


routes = [Route("/healthz", healthz)]


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Import the runtime in the background, after the first screen."""
    threading.Thread(target=_import_runtime, name="import runtime", daemon=True).start()
    yield {}


def _import_runtime() -> None:
    # Four to ten seconds of imports that hold the interpreter's lock: the first screen goes first.
    first_screen_drawn.wait(FIRST_SCREEN_PATIENCE_S)
    from core.runtimes.optimum import OptimumRuntime

    try:
        OptimumRuntime().prepare()
    except ImportError:
        logger.exception("The OpenVINO runtime cannot be imported")
