"""Authentication middleware: rejects requests before any page code runs.

Where sign-in is required, visitors who are not signed in reach the forms and their files, and
nothing else: no page, no websocket (so that no page script runs for them), no media file, upload
or component.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import PaddockError, RecordsError, UserError
from core.server import forms
from core.server.api_routes import is_api
from core.server.connections import Connections
from core.server.paths import (
    DELETE,
    PAGES,
    PASSWORD,
    REGISTER,
    SIGN_IN,
    SIGN_OUT,
    sign_in_link,
)
from core.server.visitor import Visitor, Visitors

CONNECTION_HEADER = "x-paddock-connection"
"""Passes the connection's id to the page; removed from incoming requests."""
OWNER_HEADER = "x-paddock-owner"
"""Passes the owner of a session to Streamlit (``server.trustedUserHeaders``): another user's
browser that requests the session by its id gets a new one. Removed from incoming requests."""
_INTERNAL = (CONNECTION_HEADER, OWNER_HEADER)

_PUBLIC = {
    "healthz",
    "_stcore/health",
    "favicon.png",
    "oauth2callback",
    "auth/login",
    SIGN_IN,
    REGISTER,
    SIGN_OUT,
    PASSWORD,
    DELETE,
    forms.STYLE_PATH,
    forms.ICON_PATH,
    *forms.FONT_PATHS,
}
"""Paths that everybody reaches; the forms check the session themselves."""
_STREAM = "_stcore/stream"
_MEDIA, _UPLOADS = "media/", "_stcore/upload_file/"

_SIGN_IN_REQUIRED = "Sign-in is required. Sign in and try again."

logger = logging.getLogger(__name__)


class AuthMiddleware:
    """Checks every request and websocket, and rejects those that are not allowed."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        visitors: Callable[[], Visitors],
        connections: Connections,
        prefix: str = "",
    ) -> None:
        self._app = app
        self._visitors = visitors
        self._connections = connections
        self._prefix = prefix
        self._base = f"{prefix}/" if prefix else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request or websocket."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        rejection = None
        if scope["type"] == "http":
            path = self._path(scope)
            if path not in _PUBLIC and not is_api(scope, self._prefix):
                rejection = await self._rejection(scope, path)
        await (rejection or self._app)(scope, receive, send)

    async def _rejection(self, scope: Scope, path: str) -> Response | None:
        """Return the response to a request that is not allowed, or None if it is."""
        try:
            visitor = await self._visitor(scope)
        except RecordsError:
            logger.exception("The database failed while a visitor was identified")
            return _plain("The database cannot be read at the moment. Try again in a minute.", 503)
        except UserError as error:  # an invalid setting
            return _plain(str(error), 500)
        if not visitor.access.use:
            if scope["method"] in ("GET", "HEAD") and path in ("", *PAGES):
                query = scope["query_string"].decode("latin-1")
                # Relative if a proxy may have added a path prefix.
                root = self._base or "../" * (str(scope["path"]).count("/") - 1)
                where = root + sign_in_link(path or PAGES[0], query)
                return RedirectResponse(where, 303, headers={"Cache-Control": "no-store"})
            return _plain(_SIGN_IN_REQUIRED, 401)
        if path.startswith(_MEDIA):
            file_id = path.removeprefix(_MEDIA).partition(".")[0]
            return None if self._connections.may_fetch(file_id, visitor.owner) else _not_found()
        if path.startswith(_UPLOADS):
            session = path.removeprefix(_UPLOADS).partition("/")[0]
            return None if self._connections.owner_of(session) == visitor.owner else _not_found()
        return None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        visitor = None
        if self._path(scope) == _STREAM:
            try:
                visitor = await self._visitor(scope)
            except PaddockError:
                logger.exception("The visitor of a websocket could not be identified")
        if visitor is None or not visitor.access.use:
            await receive()  # websocket.connect
            await send({"type": "websocket.close", "code": 1008})  # rejects it with 403
            return
        connection = self._connections.add(visitor, receive, send)
        scope = dict(scope)
        added = MutableHeaders(raw=[pair for pair in scope["headers"] if not _internal(pair[0])])
        added[CONNECTION_HEADER] = connection.id
        added[OWNER_HEADER] = visitor.owner
        scope["headers"] = added.raw
        try:
            await self._app(scope, connection.receive, connection.send)
        finally:
            self._connections.remove(connection)

    async def _visitor(self, scope: Scope) -> Visitor:
        return await run_in_threadpool(self._visitors().of, HTTPConnection(scope))

    def _path(self, scope: Scope) -> str:
        """Return the path below the prefix, without leading and trailing slashes."""
        return str(scope["path"]).removeprefix(self._prefix).strip("/")


def _internal(name: bytes) -> bool:
    return name.decode("latin-1").lower().replace("_", "-") in _INTERNAL


def _not_found() -> Response:
    """Return the same response for other users' files as for files that do not exist."""
    return _plain("Not found", 404)


def _plain(sentence: str, status: int) -> Response:
    return PlainTextResponse(sentence, status, headers={"Cache-Control": "no-store"})
