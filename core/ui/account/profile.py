"""The Account page's first part: who is signed in, where, and the ways in and out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import streamlit as st

from core.auth import Accounts
from core.db import Role, Session
from core.engine import Engine
from core.errors import PaddockError
from core.server.paths import DELETE, PASSWORD, REGISTER, SIGN_IN, SIGN_OUT
from core.ui.widgets.person import Person, forget, person, send_to
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.visits import connections
from core.units import duration_text

ROLES = {
    Role.USER: "May ask models, compare them and see what is measured.",
    Role.MANAGER: "May also fetch, convert and delete models, and run benchmarks.",
    Role.ADMINISTRATOR: "May also look after the accounts of others.",
}
_REFUSED = "account_refused"

Kind = Literal["primary", "secondary", "tertiary"]


def draw_guest() -> None:
    """For whoever sits at the machine without an account."""
    with st.container(border=True, key="profile"):
        st.markdown(":material/person: **Guest on this machine**")
        st.caption(
            "Whoever sits at it may use everything without an account. With one, your history and "
            "settings are yours alone and follow you to other browsers."
        )
        with st.container(horizontal=True, gap="small"):
            _way("Sign in", SIGN_IN, "login", kind="primary")
            _way("Create an account", REGISTER, "person_add")


def draw_profile(someone: Person) -> None:
    """Name, role, and what can be done with the account."""
    account = someone.account
    assert account is not None
    with st.container(border=True, key="profile"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f":material/account_circle: **{safe_inline(account.name)}** "
                f":blue-badge[{account.role.value}]",
                width="stretch",
            )
            _way("Sign out", SIGN_OUT, "logout")
        managing = (
            ""
            if account.role.manages or not someone.access.manage
            else (" On this machine itself everybody may manage models.")
        )
        st.caption(f"{ROLES[account.role]}{managing} Account since {day_text(account.created_at)}.")
        with st.container(horizontal=True, gap="small"):
            _way("Change password", PASSWORD, "key", kind="tertiary")
            _way("Delete account", DELETE, "person_remove", kind="tertiary")


def draw_sessions(engine: Engine, someone: Person) -> None:
    """The browsers in which one is signed in."""
    draw_refusal()
    try:
        sessions = engine.accounts.my_sessions(someone.token or "")
        here = engine.accounts.visit(someone.token)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    st.subheader("Where you are signed in", anchor=False)
    with st.container(border=True, key="sessions"):
        for session in sessions:
            mine = here is not None and session.id == here.session.id
            _draw_session(engine, session, mine=mine)


def _draw_session(engine: Engine, session: Session, *, mine: bool) -> None:
    badge = " :green-badge[this browser]" if mine else ""
    with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
        st.markdown(
            f"{safe_inline(browser_name(session.agent))}{badge}  \n"
            f":small[:gray[signed in {day_text(session.created_at)}, "
            f"last seen {ago_text(session.seen_at)}, "
            f"until {day_text(session.expires_at)} at the latest]]",
            width="stretch",
        )
        if not mine:
            st.button(
                "Sign out",
                key=f"end_{session.id}",
                type="tertiary",
                icon=":material/logout:",
                on_click=acting,
                args=(lambda accounts: accounts.end_my_session(person().token or "", session.id),),
            )


def acting(change: Callable[[Accounts], object]) -> None:
    """Do something to accounts in a callback; a refusal is shown at the next drawing."""
    from core.ui.widgets.resources import shared_engine

    try:
        change(shared_engine().accounts)
    except PaddockError as error:
        st.session_state[_REFUSED] = str(error)
    else:
        forget()
        connections.check_now()


def draw_refusal() -> None:
    """Why the last click did nothing, once."""
    if refused := st.session_state.pop(_REFUSED, None):
        st.error(safe_inline(refused), icon=":material/error:")


def _way(
    label: str,
    where: str,
    icon: str,
    *,
    kind: Literal["primary", "secondary", "tertiary"] = "secondary",
) -> None:
    """The way to one of the forms, which are pages of their own: no password ever comes here."""
    st.button(
        label,
        icon=f":material/{icon}:",
        type=kind,
        key=f"to_{where}",
        on_click=send_to,
        args=(where,),
    )


def browser_name(agent: str) -> str:
    """What a browser calls itself, short: its kind and its system."""
    kinds = ("Edg", "OPR", "Firefox", "Chrome", "Safari")
    systems = {
        "Windows": "Windows",
        "Android": "Android",
        "iPhone": "iPhone",
        "iPad": "iPad",
        "Mac OS": "macOS",
        "CrOS": "ChromeOS",
        "Linux": "Linux",
    }
    kind = next((kind for kind in kinds if f"{kind}/" in agent), None)
    system = next((name for sign, name in systems.items() if sign in agent), None)
    names = {"Edg": "Edge", "OPR": "Opera"}
    if kind is None:
        return agent[:40] or "Unknown browser"
    return f"{names.get(kind, kind)} on {system}" if system else names.get(kind, kind)


def day_text(moment: datetime) -> str:
    """A day as it is shown."""
    return f"{moment:%Y-%m-%d}"


def ago_text(moment: datetime) -> str:
    """How long ago, in words."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return "just now" if seconds < 120 else f"{duration_text(seconds)} ago"
