"""Names of the cookies, and functions to read, set and delete them.

Over HTTPS the names have the prefix ``__Host-``, which browsers accept from this host only
(RFC 6265bis §4.1.3), so that no neighbouring host can set one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

SESSION = "paddock_session"
"""Session token."""
DEVICE = "paddock_device"
"""Identifies a browser in which an account signed in before; it does not sign in."""
BROWSER = "paddock_browser"
"""Identifies a guest's browser, to which the conversations belong."""
FORM = "paddock_form"
"""Binds the CSRF token of a form to the browser."""

DEVICE_AGE = BROWSER_AGE = timedelta(days=365)
_SECURE_PREFIX = "__Host-"
_MAX_LENGTH = 200


def name_of(cookie: str, *, secure: bool) -> str:
    """Return the name of a cookie on an encrypted or unencrypted connection."""
    return f"{_SECURE_PREFIX}{cookie}" if secure else cookie


def read(cookies: Mapping[str, str], cookie: str, *, secure: bool) -> str | None:
    """Return the value of a cookie, or None if it is missing or too long to be Paddock's."""
    value = cookies.get(name_of(cookie, secure=secure), "")
    return value if 0 < len(value) <= _MAX_LENGTH else None


def put(
    response: Response,
    cookie: str,
    value: str,
    *,
    secure: bool,
    age: timedelta | None = None,
    strict: bool = False,
) -> None:
    """Set a cookie that scripts cannot read and cross-site requests do not send.

    Args:
        value: characters that need no quotes.
        secure: whether the connection is encrypted.
        age: maximum age; None keeps it until the browser is closed.
        strict: whether links from other sites do not send it either (``SameSite=Strict``).
    """
    response.set_cookie(
        name_of(cookie, secure=secure),
        value,
        max_age=None if age is None else int(age.total_seconds()),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict" if strict else "lax",
    )


def identify(request: Request, response: Response) -> None:
    """Give a browser without one the cookie that identifies it."""
    secure = request.scope["scheme"] == "https"  # the URL may not be readable
    if read(request.cookies, BROWSER, secure=secure) is None:
        put(response, BROWSER, secrets.token_urlsafe(24), secure=secure, age=BROWSER_AGE)


def drop(response: Response, cookie: str, *, secure: bool) -> None:
    """Delete a cookie."""
    response.delete_cookie(
        name_of(cookie, secure=secure), path="/", secure=secure, httponly=True, samesite="lax"
    )
