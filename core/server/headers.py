"""Security headers of all responses."""

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
    "Referrer-Policy": "same-origin",  # links contain instructions
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), "
    "payment=(), usb=()",
}
HSTS = "max-age=31536000"
"""One year, the minimum of browsers' preload lists; sent over HTTPS only (RFC 6797 §7.2)."""

FORM_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""``Content-Security-Policy`` of the form pages, which need no scripts."""


def page_policy(index: Path, scripts: Iterable[str] = ()) -> str:
    """Return the ``Content-Security-Policy`` of the Streamlit pages.

    Inline styles must be allowed because Streamlit adds its own at runtime. Scripts are loaded from
    this server only, and inline scripts, without their tags, are allowed by hash.
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
    """Middleware that adds the security headers to every response."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        """
        Args:
            policy: ``Content-Security-Policy`` of responses that do not set one.
        """
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(ALWAYS)
                headers.setdefault("Content-Security-Policy", self._policy)
                if scope.get("scheme") == "https":
                    headers["Strict-Transport-Security"] = HSTS
                if "access-control-allow-origin" in headers:
                    del headers["access-control-allow-origin"]  # no cross-origin access
            await send(message)

        await self._app(scope, receive, with_headers)
