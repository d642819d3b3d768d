"""The Account page's last part, for administrators: everybody's accounts, and invitations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from core.auth.administration import Administration
from core.db import AccountSummary, Invitation, Role
from core.engine import Engine
from core.errors import PaddockError
from core.settings import Registration
from core.ui.account.profile import acting
from core.ui.widgets.person import Person, person
from core.ui.widgets.safe_text import safe_inline
from core.units import counted

_NEW_CODE = "new_invitation"
_PAGE = 25
"""Accounts that are shown at once."""

_REGISTRATION = {
    Registration.OPEN: "Whoever reaches this server may make an account.",
    Registration.INVITATION: "Whoever has an invitation code may make an account.",
    Registration.CLOSED: "Nobody can make an account by themselves.",
}


def draw_administration(engine: Engine, someone: Person) -> None:
    """Accounts and invitations; whoever draws it is an administrator."""
    st.subheader("Everybody's accounts", anchor=False)
    st.caption(f"{_REGISTRATION[engine.settings.registration]} PADDOCK_REGISTRATION sets it.")
    try:
        everybody = engine.accounts.administration.listing(someone.owner)
        open_codes = engine.accounts.administration.invitations(someone.owner)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    _draw_accounts(someone, everybody)
    if engine.settings.registration is Registration.INVITATION:
        _draw_invitations(engine, open_codes)


def _draw_accounts(someone: Person, everybody: list[AccountSummary]) -> None:
    shown = everybody
    if len(everybody) > _PAGE:
        wanted = st.text_input(
            "Find an account", key="find_account", placeholder="Part of a name", max_chars=40
        )
        shown = [row for row in everybody if (wanted or "").casefold() in row.account.key]
        st.caption(f"{min(len(shown), _PAGE)} of {counted(len(everybody), 'account')}")
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
            f":small[:gray[since {account.created_at:%Y-%m-%d}, last signed in {last}, "
            f"{counted(row.sessions, 'browser')} now]]",
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
            # Another button than its opposite: a second quick click must not undo the first.
            key=f"able_{account.id}_{'on' if account.disabled else 'off'}",
            disabled=mine,
            on_click=_administer,
            args=(partial(_set_disabled, account_id=account.id, disabled=not account.disabled),),
        )
        with st.popover("Delete", icon=":material/delete:", type="tertiary", disabled=mine):
            st.markdown(
                f"Delete {safe_inline(account.name)} with all answers and votes? "
                "This cannot be undone."
            )
            st.button(
                "Delete the account",
                type="primary",
                key=f"gone_{account.id}",
                on_click=_administer,
                args=(lambda asker, others: _delete(asker, others, account.id),),
            )


def _draw_invitations(engine: Engine, open_codes: list[Invitation]) -> None:
    st.subheader("Invitations", anchor=False)
    with st.container(border=True, key="invitations"):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            st.number_input("For how many people", 1, 1000, 1, key="invite_uses", width=180)
            st.number_input(
                "Holds for days",
                1,
                366,
                max(1, round(engine.settings.invitation_h / 24)),
                key="invite_days",
                width=180,
            )
            st.button("Make a code", icon=":material/mail:", type="primary", on_click=_invite)
        if code := st.session_state.pop(_NEW_CODE, None):
            st.success("Give this code to the people you invite; it is shown this once.")
            st.code(code, language=None)
        for invitation in open_codes:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(
                    f"{invitation.uses_left} of {counted(invitation.uses, 'use')} left  \n"
                    f":small[:gray[made {invitation.created_at:%Y-%m-%d}, holds until "
                    f"{invitation.expires_at:%Y-%m-%d}]]",
                    width="stretch",
                )
                st.button(
                    "Withdraw",
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
            st.caption("No code is open.")


# Callbacks; each looks up anew whether who asks is an administrator.


def _administer(change: Callable[[str, Administration], object]) -> None:
    asker = person().owner
    acting(lambda accounts: change(asker, accounts.administration))


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
    from core.ui.widgets.resources import shared_engine

    others.set_disabled(asker, account_id, disabled)
    if disabled:
        shared_engine().stop_answers(account_id)


def _delete(asker: str, others: Administration, account_id: str) -> None:
    from core.ui.widgets.resources import shared_engine

    others.delete_other(asker, account_id, first=lambda: shared_engine().stop_answers(account_id))
