"""Headers that make the browser refuse what no page of ours does."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # links hold instructions
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), "
    "payment=(), usb=()",
}
HSTS = "max-age=31536000"
"""A year, as browsers' preload lists ask for at least; sent over HTTPS only (RFC 6797 §7.2)."""

FORM_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Of the pages with forms: they need no script at all."""


def page_policy(index: Path, scripts: Iterable[str] = ()) -> str:
    """Content policy of the Streamlit pages.

    Styles are the one thing that must be allowed inline: Streamlit writes its own into the page as
    it runs. Scripts come from this server only, and those inside a page are known by their hash.

    Args:
        index: Streamlit's ``index.html``, with a script of its own.
        scripts: of ours, as they stand between their tags.
    """
    inside = [*_INLINE.findall(index.read_bytes()), *(script.encode() for script in scripts)]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in inside
    )
    return (
        "default-src 'none'; "
        f"script-src 'self' {hashes}; "
        "style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; "
        "font-src 'self' data:; "
        "media-src 'self' blob:; "
        "connect-src 'self'; "
        "manifest-src 'self'; "
        "worker-src 'self' blob:; "
        "form-action 'self'; "
        "base-uri 'none'; "
        "frame-ancestors 'none'"
    )


class SecurityHeaders:
    """Adds them to every answer of the server."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        """
        Args:
            policy: content policy of answers that bring none of their own.
        """
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    headers[name] = value
                headers.setdefault("Content-Security-Policy", self._policy)
                if scope.get("scheme") == "https":
                    headers["Strict-Transport-Security"] = HSTS
                if "access-control-allow-origin" in headers:
                    del headers["access-control-allow-origin"]  # nobody else's page reads us
            await send(message)

        await self._app(scope, receive, with_headers)
