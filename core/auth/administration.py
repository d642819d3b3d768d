"""Administration of accounts and invitations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import func, select

from core.auth.permissions import ADMINISTRATOR_REQUIRED
from core.auth.sessions import Sessions
from core.auth.tokens import code_hash, new_code, new_device_key
from core.db import Account, AccountStore, AccountSummary, Invitation, Role
from core.db.accounts import usable
from core.db.rows import from_row, to_row
from core.db.tables import accounts, invitations, sessions
from core.errors import AccessDeniedError, AccountInputError, UnknownAccountError
from core.settings import Settings

MAX_USES = 1000
MAX_HOURS = 366 * 24

logger = logging.getLogger(__name__)


class Administration:
    """Lists, changes, disables, signs out and deletes accounts, and creates invitations.

    Each call looks up the calling administrator, whose account id is the first argument, so that a
    role that was removed takes effect immediately. Calls of others raise
    :class:`core.errors.AccessDeniedError`, and so do changes to the caller's own account. Every
    method raises :class:`core.errors.RecordsError` if the database fails, and
    :class:`core.errors.UnknownAccountError` if the account or invitation does not exist.
    """

    def __init__(
        self,
        store: AccountStore,
        sessions: Sessions,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._database = store.database
        self._sessions = sessions
        self._settings = settings
        self._clock = clock

    def everybody(self) -> list[AccountSummary]:
        """Return all accounts by name, for the command line."""
        valid = (
            select(sessions.c.account, func.count().label("sessions"))
            .where(self._sessions.unexpired())
            .group_by(sessions.c.account)
            .subquery()
        )
        statement = (
            select(accounts, func.coalesce(valid.c.sessions, 0).label("sessions"))
            .outerjoin(valid, valid.c.account == accounts.c.id)
            .order_by(accounts.c.key)
        )
        rows = self._database.rows(statement)
        return [AccountSummary(from_row(Account, row), row["sessions"]) for row in rows]

    def listing(self, administrator: str) -> list[AccountSummary]:
        """Return all accounts by name."""
        self._check_administrator(administrator)
        return self.everybody()

    def set_role(self, administrator: str, account_id: str, role: Role) -> None:
        """Set the role of another account."""
        self._check_administrator(administrator, other=account_id)
        check_found(self._store.change(account_id, role=role))
        logger.info("Account %s made account %s %s", administrator, account_id, role)

    def set_disabled(self, administrator: str, account_id: str, disabled: bool) -> None:
        """Disable another account and end its sessions, or enable it again."""
        self._check_administrator(administrator, other=account_id)
        check_found(self._store.change(account_id, end_sessions=disabled, disabled=disabled))
        done = "disabled" if disabled else "enabled"
        logger.info("Account %s %s account %s", administrator, done, account_id)

    def sign_out_account(self, administrator: str, account_id: str) -> None:
        """End all sessions of an account, and forget its browsers."""
        self._check_administrator(administrator)
        forgotten = {"device_key": new_device_key()}
        check_found(self._store.change(account_id, end_sessions=True, **forgotten))
        logger.info("Account %s signed account %s out", administrator, account_id)

    def delete_other(
        self, administrator: str, account_id: str, *, first: Callable[[], None] = lambda: None
    ) -> None:
        """Delete another account with its runs, votes, settings, sessions and invitations.

        Args:
            first: called after the permission check, before anything is deleted.
        """
        self._check_administrator(administrator, other=account_id)
        first()
        check_found(self._store.delete(account_id))
        logger.info("Account %s deleted account %s", administrator, account_id)

    def invite(self, administrator: str, *, uses: int = 1, hours: float | None = None) -> str:
        """Create an invitation code, which is revoked with the administrator's account.

        The code is not stored and cannot be shown again.

        Args:
            uses: number of registrations.
            hours: validity in hours, by default PADDOCK_INVITATION_H.

        Raises:
            AccountInputError: uses or hours are out of range.
        """
        self._check_administrator(administrator)
        hours = self._settings.invitation_h if hours is None else hours
        if not 1 <= uses <= MAX_USES:
            raise AccountInputError(
                f"The number of uses is {uses}. Choose 1 to {MAX_USES} for an invitation."
            )
        if not 0 < hours <= MAX_HOURS:
            raise AccountInputError(
                f"The validity is {hours:g} hours. Choose more than 0 and at most {MAX_HOURS:,} "
                "hours for an invitation."
            )
        code, now = new_code(), self._clock()
        invitation = Invitation(
            code_hash=code_hash(code) or "",
            made_by=administrator,
            uses=uses,
            uses_left=uses,
            created_at=now,
            expires_at=now + timedelta(hours=hours),
        )
        self._database.change(invitations.insert().values(to_row(invitation)))
        return code

    def invitations(self, administrator: str) -> list[Invitation]:
        """Return the invitations that can still be used, newest first."""
        self._check_administrator(administrator)
        statement = (
            select(invitations)
            .where(*usable(self._clock()))
            .order_by(invitations.c.created_at.desc(), invitations.c.id)
        )
        return self._database.all(Invitation, statement)

    def withdraw_invitation(self, administrator: str, invitation_id: str) -> None:
        """Revoke an invitation code."""
        self._check_administrator(administrator)
        this = invitations.c.id == invitation_id
        if not self._database.change(invitations.delete().where(this)):
            raise UnknownAccountError("This invitation no longer exists. Reload the list.")

    def _check_administrator(self, account_id: str, *, other: str | None = None) -> None:
        caller = self._store.get(account_id)
        if caller is None or caller.disabled or not caller.role.administers:
            raise AccessDeniedError(ADMINISTRATOR_REQUIRED)
        if other == account_id:
            raise AccessDeniedError(
                "Administrators cannot change their own account here. Ask another administrator."
            )


def check_found(found: bool) -> None:
    """Check the result of a change to an account.

    Raises:
        UnknownAccountError: the account was not found.
    """
    if not found:
        raise not_found()


def not_found() -> UnknownAccountError:
    """Return the error for an account that was deleted meanwhile."""
    return UnknownAccountError("This account no longer exists. Reload the list.")
