"""Administration of accounts and invitations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from core.auth.invitations import Invitations, NewInvitation
from core.auth.permissions import ADMINISTRATOR_REQUIRED
from core.auth.sessions import Sessions
from core.auth.tokens import new_device_key
from core.db import AccountStore, AccountSummary, Deleted, Invitation, Role
from core.errors import AccessDeniedError, UnknownAccountError

logger = logging.getLogger(__name__)


class Administration:
    """Lists, changes, disables, signs out and deletes accounts, and creates invitations.

    Each call looks up the calling administrator, so that a role that was removed takes effect
    immediately. Every method raises :class:`core.errors.RecordsError` if the database fails.
    """

    def __init__(
        self,
        store: AccountStore,
        sessions: Sessions,
        invitations: Invitations,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._invitations = invitations
        self._clock = clock

    def everybody(self) -> list[AccountSummary]:
        """Return all accounts by name, for the command line."""
        now = self._clock()
        return self._store.summaries(now, now - self._sessions.idle)

    def listing(self, administrator: str) -> list[AccountSummary]:
        """Return all accounts by name.

        Args:
            administrator: id of the calling account, here and below.

        Raises:
            AccessDeniedError: the caller is not an administrator.
        """
        self._check_administrator(administrator)
        return self.everybody()

    def set_role(self, administrator: str, account_id: str, role: Role) -> None:
        """Set the role of another account.

        Raises:
            AccessDeniedError: the caller is not an administrator, or it is the caller's account.
            UnknownAccountError: there is no such account.
        """
        self._check_administrator(administrator, other=account_id)
        check_found(self._store.set_role(account_id, role))
        logger.info("Account %s made account %s %s", administrator, account_id, role)

    def set_disabled(self, administrator: str, account_id: str, disabled: bool) -> None:
        """Disable another account and end its sessions, or enable it again.

        Raises:
            AccessDeniedError: the caller is not an administrator, or it is the caller's account.
            UnknownAccountError: there is no such account.
        """
        self._check_administrator(administrator, other=account_id)
        check_found(self._store.set_disabled(account_id, disabled))
        done = "disabled" if disabled else "enabled"
        logger.info("Account %s %s account %s", administrator, done, account_id)

    def sign_out_account(self, administrator: str, account_id: str) -> None:
        """End all sessions of an account.

        Raises:
            AccessDeniedError: the caller is not an administrator.
            UnknownAccountError: there is no such account.
        """
        self._check_administrator(administrator)
        check_found(self._store.forget_devices(account_id, new_device_key()))
        logger.info("Account %s signed account %s out", administrator, account_id)

    def delete_other(
        self, administrator: str, account_id: str, *, first: Callable[[], None] = lambda: None
    ) -> Deleted:
        """Delete another account with its runs, votes, settings, sessions and invitations.

        Args:
            administrator: id of the calling account.
            account_id: the account to delete.
            first: called after the permission check, before anything is deleted.

        Raises:
            AccessDeniedError: the caller is not an administrator, or it is the caller's account.
            UnknownAccountError: there is no such account.
        """
        self._check_administrator(administrator, other=account_id)
        first()
        deleted = self._store.delete(account_id)
        if deleted is None:
            raise not_found()
        logger.info("Account %s deleted account %s", administrator, account_id)
        return deleted

    def invite(
        self, administrator: str, *, uses: int = 1, hours: float | None = None
    ) -> NewInvitation:
        """Create an invitation code; see :meth:`core.auth.invitations.Invitations.make`.

        Raises:
            AccessDeniedError: the caller is not an administrator.
            AccountInputError: uses or hours are out of range.
        """
        self._check_administrator(administrator)
        return self._invitations.make(administrator, uses=uses, hours=hours)

    def invitations(self, administrator: str) -> list[Invitation]:
        """Return the invitations that can still be used, newest first.

        Raises:
            AccessDeniedError: the caller is not an administrator.
        """
        self._check_administrator(administrator)
        return self._invitations.listing()

    def withdraw_invitation(self, administrator: str, invitation_id: str) -> None:
        """Revoke an invitation code.

        Raises:
            AccessDeniedError: the caller is not an administrator.
            UnknownAccountError: there is no such invitation.
        """
        self._check_administrator(administrator)
        self._invitations.withdraw(invitation_id)

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
