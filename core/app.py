"""Composes the app: routes, middleware, and what is done at the start; nothing imports it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from core.api.app import Api
from core.errors import PersonMistake, RecordsError
from core.inference.prometheus import Meters
from core.server.api_keys import ApiAuthentication
from core.server.headers import SecurityHeaders, page_policy
from core.server.local_models import EngineModels
from core.server.middleware import AuthMiddleware
from core.server.missing_v1 import MissingV1Route
from core.server.paths import FIRST_PAGE, V1
from core.server.preload import PreloadMiddleware
from core.server.prometheus_route import metrics_route
from core.server.routes import FormPages
from core.settings import load_settings
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
    from core.engine import Engine

logger = logging.getLogger(__name__)

FIRST_SCREEN_PATIENCE_S = 10.0
"""Without a visitor for so long, the runtime is imported all the same."""


async def healthz(request: Request) -> Response:
    """Answers as long as the server does."""
    return PlainTextResponse("ok")


class RootToFirstPage:
    """Sends the root path on to the first page, query included, before any script runs."""

    def __init__(self, app: ASGIApp, prefix: str = "") -> None:
        """
        Args:
            prefix: ``server.baseUrlPath``, with a slash before and none behind.
        """
        self._app = app
        self._roots = {f"{prefix}/", prefix or "/"}
        self._first = f"{prefix}/{FIRST_PAGE}" if prefix else FIRST_PAGE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        root = scope["type"] == "http" and scope["path"] in self._roots
        if root and scope["method"] == "GET":
            query = scope["query_string"].decode("latin-1")
            where = f"{self._first}?{query}" if query else self._first
            await RedirectResponse(where, status_code=307)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _stop_answers(owner: str) -> None:
    from core.ui.widgets.resources import shared_engine

    shared_engine().stop_answers(owner)


def _form_routes() -> list[Any]:
    pages = FormPages(
        visitors,
        accounts,
        load_settings,
        on_sessions_ended=connections.check_now,
        before_deletion=_stop_answers,
        providers=SecretsProviders(),
    )
    return pages.routes(url_prefix())


def _api_routes() -> list[Any]:
    """Routes of the OpenAI-compatible API, and of Prometheus."""
    authentication, prefix = ApiAuthentication(visitors), url_prefix()
    api = Api(
        _model_service,
        authentication.authenticate,
        prefix=f"{prefix}{V1}",
        count=lambda route, method, status: _meters().count_request(route, method, status),
    )
    return [
        Route(f"{prefix}{V1}/{{rest:path}}", api),
        metrics_route(prefix, _meters, authentication),
        MissingV1Route(prefix),
    ]


def _model_service() -> EngineModels:
    from core.ui.widgets.resources import shared_engine

    return EngineModels(shared_engine())


def _meters() -> Meters:
    from core.ui.widgets.resources import shared_engine

    return shared_engine().meters


def health_routes(prefix: str) -> list[Any]:
    """At the root, for what watches the process itself, and below the prefix, for what passes the
    proxy.

    Args:
        prefix: ``server.baseUrlPath``, with a slash before and none behind.
    """
    return [Route(f"{each}/healthz", healthz) for each in dict.fromkeys(("", prefix))]


def _script_in_page() -> str:
    with suppress(PersonMistake):  # a wrong setting is told to whoever opens a page
        if load_settings().kiosk:
            return scripts.LOAD_CHARTS + scripts.KIOSK_RESET
    return scripts.LOAD_CHARTS


routes = [*health_routes(url_prefix()), *_api_routes(), *_form_routes()]

middleware = [
    Middleware(SecurityHeaders, policy=page_policy(index_page(), scripts.ALL)),
    Middleware(AuthMiddleware, visitors=visitors, connections=connections, prefix=url_prefix()),
    Middleware(RootToFirstPage, prefix=url_prefix()),
    Middleware(PreloadMiddleware, script=_script_in_page()),
]


@asynccontextmanager
async def watching(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Close the pages of sessions that end, as long as the server runs."""
    watch = asyncio.create_task(connections.watch(), name="watch sessions")
    yield {}
    watch.cancel()


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Import in the background what pages and answers need; at the end, stop what still works."""
    threading.Thread(target=_import_ahead, name="import ahead", daemon=True).start()
    async with watching(app) as state:
        yield state
    from core.ui.widgets.resources import shared_engine

    shared_engine().tuning.close()
    shared_engine().tasks.close()


def _import_ahead() -> None:
    try:
        # What the first screen needs comes first. The model that was used last follows once that
        # screen is on its way, so that its first question finds it loaded. At the very first start
        # the model that pages open with is made ready at once, by a process of low priority.
        from core.hardware.devices import list_devices
        from core.ui.widgets.model_choices import first_spec
        from core.ui.widgets.resources import shared_engine

        list_devices()
        engine = shared_engine()
        engine.prepare()
        if (spec := engine.last_used()) is not None:
            first_screen_drawn.wait(FIRST_SCREEN_PATIENCE_S)
            engine.warm(spec)
        elif (spec := first_spec(engine)) is not None:
            engine.warm(spec)
        first_screen_drawn.wait(FIRST_SCREEN_PATIENCE_S)
        _read_ahead(engine)
    except (ImportError, RuntimeError):
        logger.exception("OpenVINO or its runtime cannot be imported")


def _read_ahead(engine: Engine) -> None:
    """Import what draws charts, and read what they will be of: a second's work with very many."""
    from core.ui.metrics import board  # noqa: F401 - imported for the next to come
    from core.ui.metrics.data import read_ahead

    try:
        read_ahead(engine)
    except RecordsError as error:
        logger.warning("The answers are not read ahead: %s", error)
