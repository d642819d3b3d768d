"""The user's own account: profile, sessions, and links to the account forms."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from core.db import Role
from core.inference.engine import Engine
from core.server.paths import DELETE, PASSWORD, REGISTER, SIGN_IN, SIGN_OUT
from core.ui.widgets.actions import action
from core.ui.widgets.person import Person, clear_cached_visitor, redirect_to
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.visits import connections
from core.units import duration_text

ROLES = {
    Role.USER: "Can run models, compare them and view measurements.",
    Role.MANAGER: "Can run, download, convert and delete models, and run benchmarks.",
    Role.ADMINISTRATOR: "Can run and manage models, run benchmarks, and manage all accounts.",
}


def draw_guest() -> None:
    """Draw the profile of a guest at this machine."""
    with st.container(border=True, key="profile"):
        st.markdown(":material/person: **Guest on this machine**")
        st.caption(
            "No account is required at this machine. With an account, your history and settings "
            "are private and available in other browsers."
        )
        with st.container(horizontal=True, gap="small"):
            _draw_form_button("Sign in", "login", SIGN_IN, kind="primary")
            _draw_form_button("Create an account", "person_add", REGISTER)


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
            _draw_form_button("Sign out", "logout", SIGN_OUT)
        managing = ""
        if someone.access.manage and not account.role.manages:
            managing = " At this machine, all users can manage models."
        created = f" Account created {day_text(account.created_at)}."
        st.caption(f"{ROLES[account.role]}{managing}{created}")
        with st.container(horizontal=True, gap="small"):
            _draw_form_button("Change password", "key", PASSWORD, kind="tertiary")
            _draw_form_button("Delete account", "person_remove", DELETE, kind="tertiary")


def _draw_form_button(label: str, icon: str, where: str, kind: Any = "secondary") -> None:
    """Draw a button that opens an account form.

    The forms are separate HTML pages, so that no password passes through Streamlit.
    """
    action(label, icon, f"to_{where}", redirect_to, where, kind=kind)


def draw_sessions(engine: Engine, someone: Person) -> None:
    """Draw the browsers in which the user is signed in."""
    sessions, token = engine.accounts.sessions, someone.token or ""
    here = sessions.visit(token)
    st.subheader("Active sessions", anchor=False)
    with st.container(border=True, key="sessions"):
        for session in sessions.listing(token):
            mine = here is not None and session.id == here.session.id
            browser = browser_name(session.agent)
            with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
                st.markdown(
                    f"{safe_inline(browser)}{' :green-badge[this browser]' if mine else ''}  \n"
                    f":small[:gray[signed in {day_text(session.created_at)}, "
                    f"last active {ago_text(session.seen_at)}, "
                    f"expires {day_text(session.expires_at)}]]",
                    width="stretch",
                )
                if not mine:
                    action(
                        "Sign out",
                        "logout",
                        f"end_{session.id}",
                        *(change, sessions.end_other, token, session.id),
                        of=browser,
                    )


def change(call: Callable[..., object], *args: Any) -> None:
    """Callback: change an account, and look up at once who may still do what."""
    call(*args)
    clear_cached_visitor()
    connections.check_now()


def browser_name(agent: str) -> str:
    """Return browser and operating system from a User-Agent header."""
    browsers = {
        "Edg": "Edge",
        "OPR": "Opera",
        "Firefox": "Firefox",
        "Chrome": "Chrome",
        "Safari": "Safari",
    }
    systems = {
        "Windows": "Windows",
        "Android": "Android",
        "iPhone": "iPhone",
        "iPad": "iPad",
        "Mac OS": "macOS",
        "CrOS": "ChromeOS",
        "Linux": "Linux",
    }
    browser = next((name for sign, name in browsers.items() if f"{sign}/" in agent), None)
    system = next((name for sign, name in systems.items() if sign in agent), None)
    if browser is None:
        return agent[:40] or "Unknown browser"
    return f"{browser} on {system}" if system else browser


def day_text(moment: datetime) -> str:
    """Return a date as YYYY-MM-DD."""
    return f"{moment:%Y-%m-%d}"


def ago_text(moment: datetime) -> str:
    """Return how long ago a time was, in words."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return "just now" if seconds < 120 else f"{duration_text(seconds)} ago"
