"""Profile on the Account page: the account, its sessions, and links to the account forms."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import streamlit as st

from core.auth import Accounts
from core.db import Role, Session
from core.errors import PaddockError
from core.inference.engine import Engine
from core.server.paths import DELETE, PASSWORD, REGISTER, SIGN_IN, SIGN_OUT
from core.ui.widgets.person import Person, clear_cached_visitor, person, redirect_to
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.visits import connections
from core.units import duration_text

ROLES = {
    Role.USER: "Can run models, compare them and view measurements.",
    Role.MANAGER: "Can also download, convert and delete models and run benchmarks.",
    Role.ADMINISTRATOR: "Can also manage all accounts.",
}
_REFUSED = "account_refused"

Kind = Literal["primary", "secondary", "tertiary"]


def draw_guest() -> None:
    """Draw the profile of a guest at this machine."""
    with st.container(border=True, key="profile"):
        st.markdown(":material/person: **Guest on this machine**")
        st.caption(
            "No account is required at this machine. With an account, your history and settings "
            "are private and available in other browsers."
        )
        with st.container(horizontal=True, gap="small"):
            _form_button("Sign in", SIGN_IN, "login", kind="primary")
            _form_button("Create an account", REGISTER, "person_add")


def draw_profile(someone: Person) -> None:
    """Draw name, role and account actions."""
    account = someone.account
    assert account is not None
    with st.container(border=True, key="profile"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f":material/account_circle: **{safe_inline(account.name)}** "
                f":blue-badge[{account.role.value}]",
                width="stretch",
            )
            _form_button("Sign out", SIGN_OUT, "logout")
        managing = (
            ""
            if account.role.manages or not someone.access.manage
            else " At this machine, all users can manage models."
        )
        created = f" Account created {day_text(account.created_at)}."
        st.caption(f"{ROLES[account.role]}{managing}{created}")
        with st.container(horizontal=True, gap="small"):
            _form_button("Change password", PASSWORD, "key", kind="tertiary")
            _form_button("Delete account", DELETE, "person_remove", kind="tertiary")


def draw_sessions(engine: Engine, someone: Person) -> None:
    """Draw the browsers in which the user is signed in."""
    draw_error()
    try:
        sessions = engine.accounts.my_sessions(someone.token or "")
        here = engine.accounts.visit(someone.token)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    st.subheader("Active sessions", anchor=False)
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
            f"last active {ago_text(session.seen_at)}, "
            f"expires {day_text(session.expires_at)}]]",
            width="stretch",
        )
        if not mine:
            st.button(
                "Sign out",
                key=f"end_{session.id}",
                type="tertiary",
                icon=":material/logout:",
                on_click=change_accounts,
                args=(lambda accounts: accounts.end_my_session(person().token or "", session.id),),
            )


def change_accounts(change: Callable[[Accounts], object]) -> None:
    """Callback: apply a change to the accounts; an error is shown in the next run."""
    try:
        change(shared_engine().accounts)
    except PaddockError as error:
        st.session_state[_REFUSED] = str(error)
    else:
        clear_cached_visitor()
        connections.check_now()


def draw_error() -> None:
    """Show the error of the last callback, once."""
    if refused := st.session_state.pop(_REFUSED, None):
        st.error(safe_inline(refused), icon=":material/error:")


def _form_button(
    label: str,
    where: str,
    icon: str,
    *,
    kind: Literal["primary", "secondary", "tertiary"] = "secondary",
) -> None:
    """Draw a button that opens an account form.

    The forms are separate HTML pages, so that no password passes through Streamlit.
    """
    st.button(
        label,
        icon=f":material/{icon}:",
        type=kind,
        key=f"to_{where}",
        on_click=redirect_to,
        args=(where,),
    )


def browser_name(agent: str) -> str:
    """Return browser and operating system from a User-Agent header."""
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
    """Return a date as YYYY-MM-DD."""
    return f"{moment:%Y-%m-%d}"


def ago_text(moment: datetime) -> str:
    """Return how long ago a time was, in words."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return "just now" if seconds < 120 else f"{duration_text(seconds)} ago"
