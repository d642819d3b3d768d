"""The user of a page and their permissions, checked in every run, callback and fragment.

The middleware (:mod:`core.server.middleware`) has accepted the connection; here the user's
permissions are looked up. Visitors whose session has ended are redirected to the sign-in form, and
the script stops.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core.auth import Access
from core.db import GUEST, Account, Holder
from core.errors import RecordsError
from core.inference.engine import User
from core.server.middleware import CONNECTION_HEADER
from core.server.visitor import Visitor
from core.settings import KIOSK_ERROR
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.visits import ENDED, connections, redirect_message, visitors

FRESH_S = 0.5
"""Seconds for which the permissions are cached, so that one run does one database query."""
_CACHED = "person_memo"

MANAGE_SENTENCE = (
    "Downloading, converting and deleting models and running benchmarks requires the Manage "
    "permission. Ask an administrator."
)


@dataclass(frozen=True)
class Person:
    """The user of this page."""

    access: Access
    account: Account | None
    """None for a guest on this machine."""
    token: str | None = field(repr=False)
    """Token of the sign-in session; None for a guest."""
    session: str
    """Id of this Streamlit session."""
    local: bool
    """Whether the browser certainly runs on this machine."""
    browser: str | None = None
    """Id of a guest's browser, the same in all its pages; None if it is not known."""

    @property
    def owner(self) -> str:
        """Owner id under which runs, votes and settings are stored."""
        return self.account.id if self.account else GUEST

    @property
    def user(self) -> User:
        """The user for whom answers are started; limits apply to each page of a guest."""
        lane = self.owner if self.account else f"{GUEST} {self.session}"
        return User(self.owner, lane, self.session)

    @property
    def holder(self) -> Holder:
        """Whose conversations are shown: the account's, or those of this browser."""
        browser = None if self.access.kiosk else self.browser
        return Holder(self.owner, "" if self.account else browser or self.session)


@dataclass
class _CachedVisitor:
    """Result of the latest lookup; a plain object in the session state."""

    connection: str = ""
    at: float = 0.0
    visitor: Visitor | None = None


def person() -> Person:
    """Return the user of this page; without access, redirect to sign-in and stop the script."""
    visitor, context = _current_visitor(), get_script_run_ctx(suppress_warning=True)
    if visitor is None or not visitor.access.use:
        redirect_to()
        st.stop()
    return Person(
        access=visitor.access,
        account=visitor.account,
        token=visitor.token,
        session=context.session_id if context else "",
        local=visitor.place.on_this_machine,
        browser=visitor.browser,
    )


def enter() -> Person:
    """Return :func:`person` and register the session's owner; for the start of the shell."""
    someone = person()
    connections.note_owner(someone.session, someone.owner)
    return someone


def redirect_to(where: str = ENDED) -> None:
    """Redirect the browser to one of the forms of :mod:`core.server.paths`."""
    if (context := get_script_run_ctx(suppress_warning=True)) is not None:
        context.enqueue(redirect_message(where))


def clear_cached_visitor() -> None:
    """Look up the permissions again at the next use, because this page has changed them."""
    st.session_state.pop(_CACHED, None)


def _current_visitor() -> Visitor | None:
    """Return the visitor with current permissions; None without a connection of this server."""
    connection = st.context.headers.get(CONNECTION_HEADER) or ""
    connected = connections.visitor(connection)
    if connected is None:
        return None
    cached: _CachedVisitor = st.session_state.setdefault(_CACHED, _CachedVisitor())
    if cached.connection != connection or time.monotonic() - cached.at > FRESH_S:
        try:
            cached.visitor = visitors().refresh(connected)
        except RecordsError as error:
            st.error(safe_inline(str(error)), icon=":material/error:")
            st.stop()
        cached.connection, cached.at = connection, time.monotonic()
    return cached.visitor


# The Manage permission


def may_manage() -> bool:
    """Return whether this user may download, convert and delete models and run benchmarks."""
    return person().access.manage


def in_kiosk() -> bool:
    """Return whether this is a kiosk, where controls that need the Manage permission are hidden."""
    return person().access.kiosk


def draw_manage_hint() -> None:
    """Draw a hint for users without the Manage permission."""
    access = person().access
    if not access.manage:
        st.info(KIOSK_ERROR if access.kiosk else MANAGE_SENTENCE, icon=":material/lock:")
