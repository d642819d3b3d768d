"""The paths of the server that are ours, and where a person may be sent on to.

All stand beside each other at the same depth as the pages, and are linked relative to one another:
so they hold below whatever prefix a proxy, or ``server.baseUrlPath``, puts before them.
"""

from __future__ import annotations

import re
from urllib.parse import quote

SIGN_IN, REGISTER, SIGN_OUT = "sign-in", "register", "sign-out"
PASSWORD, DELETE = "change-password", "delete-account"
PAGES = ("instruct", "compare", "metrics", "models", "account")
"""The pages behind the door."""
FIRST_PAGE = PAGES[0]
ACCOUNT_PAGE = "account"
V1 = "/v1"
"""Below it OpenAI's protocol is spoken; see :mod:`core.api`."""

LONGEST = 4000
"""Characters of a link that is kept while somebody signs in."""
_ONWARD = re.compile(rf"(?:{'|'.join(PAGES)})(?:\?[\x21-\x7e]*)?", re.ASCII)


def onward(text: str | None) -> str:
    """Where somebody goes after signing in: a page of ours with its link, or the first one."""
    text = text or ""
    return text if len(text) <= LONGEST and _ONWARD.fullmatch(text) else FIRST_PAGE


def sign_in_for(path: str, query: str) -> str:
    """The way to the sign-in form that leads on to a page afterwards.

    Args:
        path: of the page, without slashes.
        query: of its link, as the browser sent it.
    """
    wanted = onward(f"{path}?{query}" if query else path)
    return SIGN_IN if wanted == FIRST_PAGE else f"{SIGN_IN}?next={quote(wanted, safe='')}"
