"""The person in front of a page, looked up anew with every run, click and fragment.

The middleware (:mod:`core.server.middleware`) has accepted the connection; here the person's
permissions are looked up. Visitors whose session has ended are redirected to the sign-in form, and
the page stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import streamlit as st
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core.auth import Access
from core.db import GUEST, Account
from core.errors import AccessDeniedError, RecordsError
from core.server.middleware import CONNECTION_HEADER
from core.server.visitor import Visitor
from core.settings import KIOSK_ERROR
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.visits import connections, redirect_message, visitors

FRESH_S = 0.5
"""Seconds for which a look at the database serves all of a page that asks."""
_MEMO, _REFUSED = "person_memo", "person_refused"

MANAGE_SENTENCE = (
    "You can look at everything here. Fetching, converting and deleting models and running "
    "benchmarks take the right to manage, which an administrator gives."
)


@dataclass(frozen=True)
class Person:
    """Who uses this page now."""

    access: Access
    account: Account | None
    """None for a guest on this machine."""
    token: str | None = field(repr=False)
    """Of the session that signs them in."""
    session: str
    """Id of this session of the pages."""
    local: bool
    """Whether they certainly sit at this machine."""

    @property
    def owner(self) -> str:
        """Whose runs, votes and settings are theirs."""
        return self.account.id if self.account else GUEST

    @property
    def lane(self) -> str:
        """By whom answers take turns: a person with an account, or one browser page of a guest."""
        return self.owner if self.account else f"{GUEST} {self.session}"


@dataclass
class _Memo:
    """The latest look; a plain object in the session's state."""

    connection: str = ""
    at: float = 0.0
    visitor: Visitor | None = None


def session_id() -> str | None:
    """Opaque id of this session of the pages; None outside of one."""
    context = get_script_run_ctx(suppress_warning=True)
    return context.session_id if context else None


def person() -> Person:
    """Who uses this page; where nobody may, the script ends here."""
    visitor, session = _look(), session_id()
    if visitor is None or session is None or not visitor.access.use:
        leave()
    return Person(
        access=visitor.access,
        account=visitor.account,
        token=visitor.token,
        session=session,
        local=visitor.place.on_this_machine,
    )


def enter() -> Person:
    """As :func:`person`, at the beginning of every run of the shell."""
    someone = person()
    connections.note_owner(someone.session, someone.owner)
    return someone


def leave() -> NoReturn:
    """Send the browser to the sign-in form and end the script."""
    _send(redirect_message())
    st.stop()


def send_to(where: str) -> None:
    """Send the browser to one of the forms; a callback.

    Args:
        where: one of :mod:`core.server.paths`.
    """
    _send(redirect_message(where))


def _send(message: ForwardMsg) -> None:
    if (context := get_script_run_ctx(suppress_warning=True)) is not None:
        context.enqueue(message)


def forget() -> None:
    """Look anew the next time: this page has changed what its person may do."""
    st.session_state.pop(_MEMO, None)


def _look() -> Visitor | None:
    """The visitor as they are now; None where the page belongs to no connection of this server."""
    connection = st.context.headers.get(CONNECTION_HEADER) or ""
    at_the_door = connections.visitor(connection)
    if at_the_door is None:
        return None
    memo: _Memo = st.session_state.setdefault(_MEMO, _Memo())
    if memo.connection != connection or time.monotonic() - memo.at > FRESH_S:
        try:
            memo.visitor = visitors().refresh(at_the_door)
        except RecordsError as error:
            st.error(safe_inline(str(error)), icon=":material/error:")
            st.stop()
        memo.connection, memo.at = connection, time.monotonic()
    return memo.visitor


# What only some may do


def may_manage() -> bool:
    """Whether this person may fetch, convert and delete models and run benchmarks."""
    return person().access.manage


def in_kiosk() -> bool:
    """Whether nobody may manage here, so that what would be refused is not drawn."""
    return person().access.kiosk


def manage_button(
    label: str,
    *,
    on_click: Callable[..., None] | None = None,
    disabled: bool = False,
    **options: Any,
) -> bool:
    """A button that works for those with the right to manage, and is greyed out for others; in a
    kiosk it is not drawn.

    The right is looked up when it is drawn and once more when it was pressed: a browser can send
    the press of a button that is greyed out.
    """
    access = person().access
    if access.kiosk:
        return False
    allowed = access.manage
    if not allowed:
        options["help"] = "This takes the right to manage, which an administrator gives."
    callback = None if on_click is None else _if_allowed(on_click)
    pressed = st.button(label, on_click=callback, disabled=disabled or not allowed, **options)
    return pressed and allowed


def draw_manage_hint() -> None:
    """For those who have not the right to manage, one sentence; and what was refused just now."""
    if refused := st.session_state.pop(_REFUSED, None):
        st.error(safe_inline(refused), icon=":material/lock:")
    access = person().access
    if not access.manage:
        st.info(KIOSK_ERROR if access.kiosk else MANAGE_SENTENCE, icon=":material/lock:")


def _if_allowed(callback: Callable[..., None]) -> Callable[..., None]:
    def checked(*arguments: Any) -> None:
        try:
            person().access.check_manage()
        except AccessDeniedError as error:
            st.session_state[_REFUSED] = str(error)
        else:
            callback(*arguments)

    return checked
