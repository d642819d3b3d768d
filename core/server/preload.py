"""Insert a script into Streamlit's page that preloads files which the browser will need."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_END_OF_HEAD = b"</head>"
_VALIDATORS = ("etag", "last-modified")


class PreloadMiddleware:
    """Inserts a script at the end of each page's ``<head>``.

    Pages that set their own ``Content-Security-Policy`` and all other responses are unchanged.
    """

    def __init__(self, app: ASGIApp, script: str) -> None:
        """
        Args:
            script: script that :func:`core.server.headers.page_policy` allows; nothing is inserted
                if it is empty.
        """
        self._app = app
        self._tag = f"<script>{script}</script>".encode() if script else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if not (self._tag and scope["type"] == "http" and scope["method"] == "GET"):
            await self._app(scope, receive, send)
            return
        if "text/html" not in Headers(scope=scope).get("accept", ""):
            await self._app(scope, receive, send)
            return
        scope = dict(scope)
        scope["headers"] = [  # request the page uncompressed
            (name, value) for name, value in scope["headers"] if name != b"accept-encoding"
        ]
        start: Message | None = None
        body = b""

        async def with_script(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_page(message):
                start = message
            elif start is None or message["type"] != "http.response.body":
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    whole = body.replace(_END_OF_HEAD, self._tag + _END_OF_HEAD, 1)
                    await send(_resized(start, len(whole)))
                    await send({"type": "http.response.body", "body": whole})

        await self._app(scope, receive, with_script)


def _is_page(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    return (
        start["status"] == 200
        and headers.get("content-type", "").startswith("text/html")
        and "content-encoding" not in headers
        and "content-security-policy" not in headers
    )


def _resized(start: Message, length: int) -> Message:
    """Return the response start for this length, without the cache validators of the file."""
    headers = MutableHeaders(raw=list(start["headers"]))
    for name in _VALIDATORS:
        if name in headers:
            del headers[name]
    headers["content-length"] = str(length)
    return {**start, "headers": headers.raw}
