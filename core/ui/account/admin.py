"""Administration on the Account page: all accounts and invitations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from core.auth.administration import Administration
from core.db import AccountSummary, Invitation, Role
from core.errors import PaddockError
from core.inference.engine import Engine
from core.settings import Registration
from core.ui.account.profile import change_accounts
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
    st.subheader("All accounts", anchor=False)
    st.caption(
        f"{_REGISTRATION[engine.settings.registration]} To change this, set PADDOCK_REGISTRATION."
    )
    try:
        accounts = engine.accounts.administration.listing(someone.owner)
        open_codes = engine.accounts.administration.invitations(someone.owner)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    _draw_accounts(someone, accounts)
    if engine.settings.registration is Registration.INVITATION:
        _draw_invitations(engine, open_codes)


def _draw_accounts(someone: Person, accounts: list[AccountSummary]) -> None:
    shown = accounts
    if len(accounts) > _PAGE:
        wanted = st.text_input(
            "Search accounts", key="find_account", placeholder="Part of a name", max_chars=40
        )
        shown = [row for row in accounts if (wanted or "").casefold() in row.account.key]
        st.caption(f"{min(len(shown), _PAGE)} of {counted(len(accounts), 'account')}")
    with st.container(border=True, key="accounts"):
        for row in shown[:_PAGE]:
            _draw_account(row, mine=row.account.id == someone.owner)


def _draw_account(row: AccountSummary, *, mine: bool) -> None:
    account = row.account
    badges = " :green-badge[you]" if mine else ""
    badges += " :red-badge[disabled]" if account.disabled else ""
    last = f"{account.signed_in_at:%Y-%m-%d}" if account.signed_in_at else "never"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f"**{safe_inline(account.name)}**{badges}  \n"
            f":small[:gray[created {account.created_at:%Y-%m-%d}, last sign-in {last}, "
            f"{counted(row.sessions, 'session')}]]",
            width="stretch",
        )
        st.selectbox(
            f"Role of {safe_inline(account.name)}",
            list(Role),
            index=list(Role).index(account.role),
            format_func=lambda role: role.value.capitalize(),
            key=f"role_{account.id}_{account.role}",
            disabled=mine,
            width=170,
            label_visibility="collapsed",
            on_change=_set_role,
            args=(account.id, f"role_{account.id}_{account.role}"),
        )
        st.button(
            "Sign out",
            icon=":material/logout:",
            type="tertiary",
            key=f"out_{account.id}",
            disabled=mine or not row.sessions,
            on_click=_administer,
            args=(lambda asker, others: others.sign_out_account(asker, account.id),),
        )
        st.button(
            "Enable" if account.disabled else "Disable",
            icon=":material/check_circle:" if account.disabled else ":material/block:",
            type="tertiary",
            # Enable and Disable have different keys: a double click must not undo the first click.
            key=f"able_{account.id}_{'on' if account.disabled else 'off'}",
            disabled=mine,
            on_click=_administer,
            args=(partial(_set_disabled, account_id=account.id, disabled=not account.disabled),),
        )
        with st.popover("Delete", icon=":material/delete:", type="tertiary", disabled=mine):
            st.markdown(
                f"Delete {safe_inline(account.name)} and all their answers and votes? "
                "This cannot be undone."
            )
            st.button(
                "Delete account",
                type="primary",
                key=f"gone_{account.id}",
                on_click=_administer,
                args=(lambda asker, others: _delete(asker, others, account.id),),
            )


def _draw_invitations(engine: Engine, open_codes: list[Invitation]) -> None:
    st.subheader("Invitations", anchor=False)
    with st.container(border=True, key="invitations"):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            st.number_input("Number of uses", 1, 1000, 1, key="invite_uses", width=180)
            st.number_input(
                "Valid for days",
                1,
                366,
                max(1, round(engine.settings.invitation_h / 24)),
                key="invite_days",
                width=180,
            )
            st.button("Create code", icon=":material/mail:", type="primary", on_click=_invite)
        if code := st.session_state.pop(_NEW_CODE, None):
            st.success("Send this code to the users you invite. It is shown only once.")
            st.code(code, language=None)
        for invitation in open_codes:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(
                    f"{invitation.uses_left} of {counted(invitation.uses, 'use')} left  \n"
                    f":small[:gray[created {invitation.created_at:%Y-%m-%d}, valid until "
                    f"{invitation.expires_at:%Y-%m-%d}]]",
                    width="stretch",
                )
                st.button(
                    "Revoke",
                    icon=":material/close:",
                    type="tertiary",
                    key=f"withdraw_{invitation.id}",
                    on_click=_administer,
                    args=(
                        lambda asker, others, id=invitation.id: others.withdraw_invitation(
                            asker, id
                        ),
                    ),
                )
        if not open_codes:
            st.caption("There are no open invitations.")


# Callbacks; each checks again that the user is an administrator.


def _administer(change: Callable[[str, Administration], object]) -> None:
    asker = person().owner
    change_accounts(lambda accounts: change(asker, accounts.administration))


def _set_role(account_id: str, key: str) -> None:
    role = Role(st.session_state[key])
    _administer(lambda asker, others: others.set_role(asker, account_id, role))


def _invite() -> None:
    uses, days = st.session_state["invite_uses"], st.session_state["invite_days"]

    def make(asker: str, others: Administration) -> None:
        made = others.invite(asker, uses=int(uses), hours=24.0 * float(days))
        st.session_state[_NEW_CODE] = made.code

    _administer(make)


def _set_disabled(asker: str, others: Administration, *, account_id: str, disabled: bool) -> None:
    others.set_disabled(asker, account_id, disabled)
    if disabled:
        shared_engine().stop_answers(account_id)


def _delete(asker: str, others: Administration, account_id: str) -> None:
    others.delete_other(asker, account_id, first=lambda: shared_engine().stop_answers(account_id))
