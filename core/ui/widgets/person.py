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

from core.db import GUEST, Holder
from core.errors import RecordsError
from core.inference.request import User
from core.server.middleware import CONNECTION_HEADER
from core.server.visitor import Visitor
from core.settings import KIOSK_ERROR
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.visits import ENDED, connections, redirect_message, visitors

FRESH_S = 0.5
"""Seconds for which the permissions are cached, so that one run does one database query."""
_CACHED = "person_memo"
"""Connection, time of the lookup, and its result."""


@dataclass(frozen=True)
class Person(Visitor):
    """The visitor whose page this is."""

    session: str = field(kw_only=True)
    """Id of this Streamlit session."""

    @property
    def local(self) -> bool:
        """Whether the browser certainly runs on this machine."""
        return self.place.on_this_machine

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


def person() -> Person:
    """Return the user of this page; without access, redirect to sign-in and stop the script."""
    visitor, context = _current_visitor(), get_script_run_ctx(suppress_warning=True)
    if visitor is None or not visitor.access.use:
        redirect_to()
        st.stop()
    return Person(**vars(visitor), session=context.session_id if context else "")


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
    now = time.monotonic()
    cached: tuple[str, float, Visitor] | None = st.session_state.get(_CACHED)
    if cached is not None and cached[0] == connection and now - cached[1] <= FRESH_S:
        return cached[2]
    try:
        visitor = visitors().refresh(connected)
    except RecordsError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        st.stop()
    st.session_state[_CACHED] = connection, time.monotonic(), visitor
    return visitor


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
        sentence = (
            "Downloading, converting and deleting models and running benchmarks requires the "
            "Manage permission. Ask an administrator."
        )
        st.info(KIOSK_ERROR if access.kiosk else sentence, icon=":material/lock:")
