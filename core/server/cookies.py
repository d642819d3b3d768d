"""The cookies by which a browser is known, and how they are set.

Under HTTPS the session's cookie has a name that browsers accept from this very host alone
(``__Host-``, RFC 6265bis §4.1.3), so that no neighbouring host can plant one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from starlette.responses import Response

SESSION = "paddock_session"
"""Signs in."""
DEVICE = "paddock_device"
"""Tells a browser that an account was signed in with before; signs nobody in."""
FORM = "paddock_form"
"""Ties a form to the browser that asked for it."""

DEVICE_AGE = timedelta(days=365)
_SECURE_PREFIX = "__Host-"


def name_of(cookie: str, *, secure: bool) -> str:
    """The name of a cookie on this kind of connection."""
    return f"{_SECURE_PREFIX}{cookie}" if secure else cookie


def read(cookies: Mapping[str, str], cookie: str, *, secure: bool) -> str | None:
    """The value of a cookie, under the name that this kind of connection has for it."""
    return cookies.get(name_of(cookie, secure=secure))


def put(
    response: Response,
    cookie: str,
    value: str,
    *,
    secure: bool,
    age: timedelta | None = None,
    strict: bool = False,
) -> None:
    """Set a cookie that scripts cannot read and that other sites' requests do not carry.

    Args:
        response: what sets it.
        cookie: one of this module's.
        value: made of characters that need no quotes.
        secure: whether the connection is encrypted.
        age: for which it is kept; None until the browser is closed.
        strict: whether not even a link from another site carries it.
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


def drop(response: Response, cookie: str, *, secure: bool) -> None:
    """Make the browser forget a cookie."""
    response.delete_cookie(
        name_of(cookie, secure=secure), path="/", secure=secure, httponly=True, samesite="lax"
    )
