"""Composes the server: routes, middleware, and start-up."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from core.api.app import Api
from core.errors import RecordsError, UserError
from core.server import cookies
from core.server.api_keys import ApiAuthentication
from core.server.api_routes import metrics_route, missing_v1_route
from core.server.cross_site import CrossSiteMiddleware
from core.server.headers import SecurityHeaders, page_policy
from core.server.local_models import EngineModels
from core.server.middleware import AuthMiddleware
from core.server.paths import FIRST_PAGE, PAGES, V1
from core.server.routes import FormPages
from core.settings import load_settings
from core.store.library_env import quick_imports
from core.ui.account.providers import SecretsProviders
from core.ui.widgets import scripts
from core.ui.widgets.visits import (
    accounts,
    connections,
    first_screen_drawn,
    index_page,
    url_prefix,
    visitors,
)

if TYPE_CHECKING:
    from core.inference.engine import Engine

logger = logging.getLogger(__name__)

ABANDONED_CHECK_S = 5.0
"""Interval of the check for answers of guests who have closed their pages."""
FIRST_SCREEN_TIMEOUT_S = 10.0
"""Seconds to wait for the first page view before loading a model and chart data in advance."""


def _engine() -> Engine:
    """Return the shared engine, whose imports the start of the server does not wait for."""
    from core.ui.widgets.resources import shared_engine

    return shared_engine()


def page_routes(prefix: str) -> list[Any]:
    """Return routes of the pages: Streamlit's page with Paddock's scripts in its head.

    The root path is redirected to the first page, keeping the query, before a script runs.
    """
    script = scripts.HEAD
    with suppress(UserError):  # an invalid setting is reported when a page is opened
        if load_settings().kiosk:
            script += scripts.KIOSK_RESET
    head = f"<script>{script}</script></head>"
    html = index_page().read_text(encoding="utf-8").replace("</head>", head, 1)

    async def page(request: Request) -> Response:
        response = HTMLResponse(html, headers={"Cache-Control": "no-cache"})
        cookies.identify(request, response)
        return response

    async def root(request: Request) -> Response:
        query = request.scope["query_string"].decode("latin-1")
        first = f"{prefix}/{FIRST_PAGE}" if prefix else FIRST_PAGE
        return RedirectResponse(f"{first}?{query}" if query else first, status_code=307)

    roots = dict.fromkeys((f"{prefix}/", prefix or "/"))
    return [
        *(Route(path, root) for path in (*roots, f"{prefix}/home")),
        *(Route(f"{prefix}/{name}", page) for name in PAGES),
    ]


def _api_routes() -> list[Any]:
    """Routes of the OpenAI-compatible API, and of Prometheus."""
    authentication, prefix = ApiAuthentication(visitors), url_prefix()
    api = Api(
        lambda: EngineModels(_engine()),
        authentication.authenticate,
        prefix=f"{prefix}{V1}",
        count=lambda *request: _engine().metrics.count_request(*request),
    )
    return [
        Route(f"{prefix}{V1}", api),
        Route(f"{prefix}{V1}/{{rest:path}}", api),
        metrics_route(prefix, lambda: _engine().metrics, authentication),
        missing_v1_route(prefix),
    ]


def health_routes(prefix: str) -> list[Any]:
    """Return health check routes at the root, and below the prefix for requests through a proxy."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok")

    return [Route(f"{each}/healthz", healthz) for each in dict.fromkeys(("", prefix))]


_forms = FormPages(
    visitors,
    accounts,
    load_settings,
    on_sessions_ended=connections.check_now,
    before_deletion=lambda owner: _engine().stop_answers(owner),
    providers=SecretsProviders(),
)
routes = [
    *health_routes(url_prefix()),
    *_api_routes(),
    *_forms.routes(url_prefix()),
    *page_routes(url_prefix()),
]

middleware = [
    Middleware(SecurityHeaders, policy=page_policy(index_page(), scripts.ALL)),
    Middleware(CrossSiteMiddleware, prefix=url_prefix()),
    Middleware(AuthMiddleware, visitors=visitors, connections=connections, prefix=url_prefix()),
]


@asynccontextmanager
async def watching(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Close the pages of expired sessions, and cancel abandoned answers."""
    tasks = [
        asyncio.create_task(connections.watch(), name="watch sessions"),
        asyncio.create_task(_cancel_abandoned(), name="cancel abandoned answers"),
    ]
    yield {}
    for task in tasks:
        task.cancel()


async def _cancel_abandoned() -> None:
    """Cancel answers of guests who have closed their pages, as long as the server runs."""
    while True:
        await asyncio.sleep(ABANDONED_CHECK_S)
        try:
            engine = await asyncio.to_thread(_engine)
            engine.cancel_abandoned(connections.browsers())
        except Exception:  # answers that are abandoned later must still be noticed
            logger.exception("Abandoned answers could not be cancelled")


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Preload libraries at the start; stop tuning, downloads and conversions at the end."""
    threading.Thread(target=_preload, name="preload", daemon=True).start()
    async with watching(app) as state:
        yield state
    from core.ui.widgets.resources import shared_tuning

    shared_tuning().close()
    _engine().tasks.close()


def _preload() -> None:
    try:
        # The libraries that the first screen needs come first. The model used last is loaded once
        # that screen was drawn, so that it is ready for the first instruction. At the very first
        # start the default model is converted at once, by a process of low priority.
        with quick_imports():
            from core.hardware.devices import list_devices
            from core.ui.widgets.model_choices import first_spec

            list_devices()
            engine = _engine()
            engine.prepare()
        if (spec := engine.last_used()) is not None:
            first_screen_drawn.wait(FIRST_SCREEN_TIMEOUT_S)
            engine.warm(spec)
        elif (spec := first_spec(engine)) is not None:
            engine.warm(spec)
        first_screen_drawn.wait(FIRST_SCREEN_TIMEOUT_S)
        # The chart libraries and the charts' data: one second with very many answers.
        with quick_imports():
            from core.ui.metrics import board  # noqa: F401
            from core.ui.metrics.data import read_ahead

        read_ahead(engine)
    except RecordsError as error:
        logger.warning("Model and chart data could not be preloaded: %s", error)
    except (ImportError, RuntimeError):
        logger.exception("OpenVINO or its runtime cannot be imported")
