"""Middleware that refuses requests which a page of another site has sent.

``docs/security.md`` says what it protects from, and which part is left to the CSRF tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.api.errors import PERMISSION, ApiError
from core.server import forms
from core.server.api_keys import is_key, sent_key
from core.server.api_routes import is_api
from core.server.paths import FIRST_PAGE

_CROSS_ORIGIN = "Cross-origin requests are not allowed."


class CrossSiteMiddleware:
    """Refuses cross-site websockets, changes (any method but GET and HEAD) and API requests.

    Links from other sites to pages work. API requests with a key are left to the API: browsers
    never attach a key by themselves, and browser extensions may send one from another origin.
    """

    def __init__(
        self, app: ASGIApp, *, prefix: str = "", is_key: Callable[[str], bool] = is_key
    ) -> None:
        """
        Args:
            is_key: whether the API checks this text as a key; any other means no key.
        """
        self._app = app
        self._prefix = prefix
        self._is_key = is_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request or websocket."""
        if scope["type"] == "lifespan" or self._is_allowed(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # websocket.connect
            await send({"type": "websocket.close", "code": 1008})  # rejects it with 403
        else:
            await self._refusal(scope)(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        if scope["type"] == "websocket":
            return _own_origin(headers)  # browsers always send it, RFC 6455 §4.1
        reads = scope["method"] in ("GET", "HEAD")
        if is_api(scope, self._prefix):
            if self._is_key(sent_key(headers) or ""):
                return True
        elif reads:
            return True
        match headers.get("sec-fetch-site"):
            case None:  # not a browser, an old one, or a connection without TLS
                return _own_origin(headers)
            case "none":  # the user opened the address directly, so that no page reads the response
                return reads
            case site:
                return site == "same-origin"

    def _refusal(self, scope: Scope) -> Response:
        if is_api(scope, self._prefix):
            error = ApiError(403, _CROSS_ORIGIN, kind=PERMISSION, code="forbidden")
            return error.response()
        card = forms.Card("Request refused", links=[(FIRST_PAGE, "Open Paddock")])
        error = f"{_CROSS_ORIGIN} Open Paddock and submit the form there."
        return forms.response(card, 403, errors={forms.FORM: error})


def _own_origin(headers: Headers) -> bool:
    """Whether ``Origin`` names the requested host, or is missing because no page sent the request.

    The scheme is not compared: behind a proxy that ends TLS it may be unknown.
    """
    origin, host = headers.get("origin"), headers.get("host", "").strip()
    if origin is None:
        return True
    try:
        parts = urlsplit(origin.strip())
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host:
        return False
    return parts.netloc.lower() == host.lower()
