"""Paths of the forms and pages, and the redirect after sign-in.

All have the same depth as the pages and are linked relative to each other, so that they work below
any path prefix of a proxy or of ``server.baseUrlPath``. In this package a ``prefix`` is the latter,
with a leading and without a trailing slash.
"""

from __future__ import annotations

import re
from urllib.parse import quote

SIGN_IN, REGISTER, SIGN_OUT = "sign-in", "register", "sign-out"
PASSWORD, DELETE = "change-password", "delete-account"
PAGES = ("instruct", "compare", "tests", "metrics", "models", "lab", "account")
"""The Streamlit pages."""
FIRST_PAGE = PAGES[0]
ACCOUNT_PAGE = "account"
V1 = "/v1"
"""Path of the OpenAI-compatible API; see :mod:`core.api`."""

MAX_LINK = 4000
"""Characters of a link that is kept during sign-in."""
_PAGE_LINK = re.compile(rf"(?:{'|'.join(PAGES)})(?:\?[\x21-\x7e]*)?", re.ASCII)


def safe_next(text: str | None) -> str:
    """Return the redirect after sign-in: the given link if it is to a page, or the first page."""
    text = text or ""
    return text if len(text) <= MAX_LINK and _PAGE_LINK.fullmatch(text) else FIRST_PAGE


def sign_in_link(path: str, query: str) -> str:
    """Return the link to the sign-in form that redirects to a page afterwards."""
    wanted = safe_next(f"{path}?{query}" if query else path)
    return SIGN_IN if wanted == FIRST_PAGE else f"{SIGN_IN}?next={quote(wanted, safe='')}"
