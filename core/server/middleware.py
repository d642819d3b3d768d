"""The door: what of the server may be reached by whom, before anything of it runs.

Where signing in is required, somebody who is not signed in reaches the forms and what these are
made of, and nothing else: no page, no websocket (so that no script of a page ever starts for
them), no media, upload or component.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import PaddockError, PersonMistake, RecordsError
from core.server import form_pages
from core.server.connections import Connections
from core.server.forms import same_origin
from core.server.missing_v1 import is_astray
from core.server.paths import (
    DELETE,
    PAGES,
    PASSWORD,
    REGISTER,
    SIGN_IN,
    SIGN_OUT,
    V1,
    sign_in_for,
)
from core.server.prometheus_route import METRICS, asks_for_page
from core.server.visitor import Visitor, Visitors

CONNECTION_HEADER = "x-paddock-connection"
"""Tells a page, within the server, which connection it is drawn for; from outside it is dropped."""
OWNER_HEADER = "x-paddock-owner"
"""Tells Streamlit whose session a page is (``server.trustedUserHeaders``): a browser of somebody
else that asks for it by its id gets a new one."""
_OURS = (CONNECTION_HEADER, OWNER_HEADER)

_OPEN = {
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
    form_pages.STYLE_PATH,
    form_pages.ICON_PATH,
}
"""What everybody reaches; the forms see to themselves."""
_STREAM = "_stcore/stream"
_MEDIA, _UPLOADS = "media/", "_stcore/upload_file/"

_SIGN_IN_FIRST = "Sign in first: this Paddock is for people with an account."

logger = logging.getLogger(__name__)


class Guard:
    """Looks at every request and websocket, and turns away what may not pass."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        visitors: Callable[[], Visitors],
        connections: Connections,
        prefix: str = "",
    ) -> None:
        """
        Args:
            app: what is behind the door.
            visitors: tells who visits; asked for when the first one comes.
            connections: where open pages are noted.
            prefix: ``server.baseUrlPath``, with a slash before and none behind.
        """
        self._app = app
        self._visitors = visitors
        self._connections = connections
        self._prefix = prefix
        self._base = f"{prefix}/" if prefix else ""  # a path without its slash is one up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._path(scope)
        open_to_all = path in _OPEN or self._for_programs(scope)
        refusal = None if open_to_all else await self._refusal(scope, path)
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope, path: str) -> Response | None:
        """What somebody is told who may not pass."""
        try:
            visitor = await self._visitor(scope)
        except RecordsError:
            logger.exception("The database failed at the door")
            return _plain("The database cannot be read just now; try again in a minute.", 503)
        except PersonMistake as error:  # a setting that cannot be
            return _plain(str(error), 500)
        if not visitor.access.use:
            if scope["method"] in ("GET", "HEAD") and path in ("", *PAGES):
                query = scope["query_string"].decode("latin-1")
                where = self._way_up(scope) + sign_in_for(path or PAGES[0], query)
                return RedirectResponse(where, 303, headers={"Cache-Control": "no-store"})
            return _plain(_SIGN_IN_FIRST, 401)
        if path.startswith(_MEDIA):
            file_id = path.removeprefix(_MEDIA).partition(".")[0]
            return None if self._connections.may_fetch(file_id, visitor.owner) else _not_yours()
        if path.startswith(_UPLOADS):
            session = path.removeprefix(_UPLOADS).partition("/")[0]
            return None if self._connections.owner_of(session) == visitor.owner else _not_yours()
        return None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = self._path(scope) == _STREAM and (
            origin is None or same_origin(origin, headers.get("host"))
        )
        visitor = None
        if allowed:
            try:
                visitor = await self._visitor(scope)
            except PaddockError:
                logger.exception("Nobody could be told at the door")
        if visitor is None or not visitor.access.use:
            await receive()  # the browser's opening
            await send({"type": "websocket.close", "code": 1008})  # refused with 403
            return
        connection = self._connections.opened(visitor, receive, send)
        scope = dict(scope)
        inside = MutableHeaders(raw=[pair for pair in scope["headers"] if not _ours(pair[0])])
        inside[CONNECTION_HEADER] = connection.id
        inside[OWNER_HEADER] = visitor.owner
        scope["headers"] = inside.raw
        try:
            await self._app(scope, connection.receive, connection.send)
        finally:
            self._connections.remove(connection)

    async def _visitor(self, scope: Scope) -> Visitor:
        return await run_in_threadpool(self._visitors().of, HTTPConnection(scope))

    def _for_programs(self, scope: Scope) -> bool:
        """Whether the route looks by itself at who asks, by a key: as no page or form does."""
        path = str(scope["path"]).removeprefix(self._prefix)
        return (
            path.startswith(f"{V1}/")
            or (path == METRICS and not asks_for_page(scope))
            or is_astray(scope, self._prefix)
        )

    def _way_up(self, scope: Scope) -> str:
        """From the path to where the forms are, relative where a proxy may have put a prefix."""
        return self._base or "../" * (str(scope["path"]).count("/") - 1)

    def _path(self, scope: Scope) -> str:
        """The path below the prefix, without slashes at its ends."""
        return str(scope["path"]).removeprefix(self._prefix).strip("/")


def _ours(name: bytes) -> bool:
    return name.decode("latin-1").lower().replace("_", "-") in _OURS


def _not_yours() -> Response:
    """The same for what is another person's as for what is not there."""
    return _plain("Not found", 404)


def _plain(sentence: str, status: int) -> Response:
    return PlainTextResponse(sentence, status, headers={"Cache-Control": "no-store"})
