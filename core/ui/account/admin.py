"""Administration on the Account page: all accounts and invitations.

Each callback checks again that the user is an administrator.
"""

from __future__ import annotations

import streamlit as st

from core.auth.administration import Administration
from core.db import AccountSummary, Role
from core.inference.engine import Engine
from core.settings import Registration
from core.ui.account.profile import change
from core.ui.widgets.actions import action, confirmed_action, errors_told
from core.ui.widgets.person import Person, person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.units import counted

_NEW_CODE = "new_invitation"
_PAGE = 25
"""Most accounts shown at once."""

_REGISTRATION = {
    Registration.OPEN: "Anyone who can reach this server can create an account.",
    Registration.INVITATION: "Creating an account requires an invitation code.",
    Registration.CLOSED: "Users cannot create accounts.",
}


def draw_administration(engine: Engine, someone: Person) -> None:
    """Draw accounts and invitations; only for administrators."""
    others, asker = engine.accounts.administration, someone.owner
    st.subheader("All accounts", anchor=False)
    st.caption(
        f"{_REGISTRATION[engine.settings.registration]} To change this, set PADDOCK_REGISTRATION."
    )
    shown = accounts = others.listing(asker)
    if len(accounts) > _PAGE:
        wanted = st.text_input(
            "Search accounts", key="find_account", placeholder="Part of a name", max_chars=40
        )
        shown = [row for row in accounts if (wanted or "").casefold() in row.account.key]
        st.caption(f"{min(len(shown), _PAGE)} of {counted(len(accounts), 'account')}")
    with st.container(border=True, key="accounts"):
        for row in shown[:_PAGE]:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                _draw_account(others, asker, row)
    if engine.settings.registration is Registration.INVITATION:
        days = max(1, round(engine.settings.invitation_h / 24))
        _draw_invitations(others, asker, days)


def _draw_account(others: Administration, asker: str, row: AccountSummary) -> None:
    account, mine = row.account, row.account.id == asker
    badges = " :green-badge[you]" if mine else ""
    badges += " :red-badge[disabled]" if account.disabled else ""
    last = f"{account.signed_in_at:%Y-%m-%d}" if account.signed_in_at else "never"
    st.markdown(
        f"**{safe_inline(account.name)}**{badges}  \n"
        f":small[:gray[created {account.created_at:%Y-%m-%d}, last sign-in {last}, "
        f"{counted(row.sessions, 'session')}]]",
        width="stretch",
    )
    role_key = f"role_{account.id}_{account.role}"
    st.selectbox(
        f"Role of {safe_inline(account.name)}",
        list(Role),
        index=list(Role).index(account.role),
        format_func=lambda role: role.value.capitalize(),
        key=role_key,
        disabled=mine,
        width=170,
        label_visibility="collapsed",
        on_change=_set_role,
        args=(others, account.id, role_key),
    )
    action(
        "Sign out",
        "logout",
        f"out_{account.id}",
        *(change, others.sign_out_account, asker, account.id),
        of=account.name,
        disabled=mine or not row.sessions,
    )
    # Enable and Disable have different keys: a double click must not undo the first click.
    action(
        "Enable" if account.disabled else "Disable",
        "check_circle" if account.disabled else "block",
        f"able_{account.id}_{'on' if account.disabled else 'off'}",
        *(change, _set_disabled, others, asker, account.id, not account.disabled),
        of=account.name,
        disabled=mine,
    )
    confirmed_action(
        "Delete",
        "delete",
        f"gone_{account.id}",
        f"Delete {safe_inline(account.name)} and all their answers and votes? "
        "This cannot be undone.",
        *(change, _delete, others, asker, account.id),
        of=account.name,
        answer="Delete account",
        disabled=mine,
    )


def _draw_invitations(others: Administration, asker: str, days: int) -> None:
    open_codes = others.invitations(asker)
    st.subheader("Invitations", anchor=False)
    with st.container(border=True, key="invitations"):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            st.number_input("Number of uses", 1, 1000, 1, key="invite_uses", width=180)
            st.number_input("Valid for days", 1, 366, days, key="invite_days", width=180)
            action("Create code", "mail", "invite", _invite, others, asker, kind="primary")
        if code := st.session_state.pop(_NEW_CODE, None):
            st.success("Send this code to the users you invite. It is shown only once.")
            st.code(code, language=None)
        for each in open_codes:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(
                    f"{each.uses_left} of {counted(each.uses, 'use')} left  \n"
                    f":small[:gray[created {each.created_at:%Y-%m-%d}, valid until "
                    f"{each.expires_at:%Y-%m-%d}]]",
                    width="stretch",
                )
                key = f"withdraw_{each.id}"
                action("Revoke", "close", key, others.withdraw_invitation, asker, each.id)
        if not open_codes:
            st.caption("There are no open invitations.")


# Callbacks


def _set_role(others: Administration, account_id: str, key: str) -> None:
    with errors_told():
        change(others.set_role, person().owner, account_id, Role(st.session_state[key]))


def _invite(others: Administration, asker: str) -> None:
    uses, days = st.session_state["invite_uses"], st.session_state["invite_days"]
    st.session_state[_NEW_CODE] = others.invite(asker, uses=uses, hours=24.0 * days)


def _set_disabled(others: Administration, asker: str, account_id: str, disabled: bool) -> None:
    others.set_disabled(asker, account_id, disabled)
    if disabled:
        shared_engine().stop_answers(account_id)


def _delete(others: Administration, asker: str, account_id: str) -> None:
    others.delete_other(asker, account_id, first=lambda: shared_engine().stop_answers(account_id))
