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


async def healthz(request: Request) -> Response:
    """Answers as long as the server does."""
    return PlainTextResponse("ok")


routes = [Route("/healthz", healthz)]


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

        OptimumRuntime().prepare()
    except (ImportError, RuntimeError):
        logger.exception("OpenVINO or its runtime cannot be imported")
