"""What administrators do with the accounts of others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from core.auth.invitations import Invitations, NewInvitation
from core.auth.sessions import Sessions
from core.auth.tokens import new_device_key
from core.db import AccountStore, AccountSummary, Deleted, Invitation, Role
from core.errors import AccessDeniedError, UnknownAccountError

logger = logging.getLogger(__name__)


class Administration:
    """Lists, raises, disables, signs out and deletes accounts, and invites people.

    Who asks is looked up each time: a right that was taken away is gone at the next click. Every
    method raises :class:`core.errors.RecordsError` where the database fails.
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
        """All accounts by name, for the command line."""
        now = self._clock()
        return self._store.summaries(now, now - self._sessions.idle)

    def listing(self, administrator: str) -> list[AccountSummary]:
        """All accounts by name.

        Args:
            administrator: id of the account that asks, here and below.

        Raises:
            AccessDeniedError: it is no administrator's.
        """
        self._check_administrator(administrator)
        return self.everybody()

    def set_role(self, administrator: str, account_id: str, role: Role) -> None:
        """Give another account a role, from its next click on.

        Raises:
            AccessDeniedError: the asker is no administrator, or it is the asker's own account.
            UnknownAccountError: there is no such account.
        """
        self._check_administrator(administrator, other=account_id)
        check_found(self._store.set_role(account_id, role))
        logger.info("Account %s made account %s %s", administrator, account_id, role)

    def set_disabled(self, administrator: str, account_id: str, disabled: bool) -> None:
        """Shut another account out and end its sessions, or let it in again.

        Raises:
            AccessDeniedError: the asker is no administrator, or it is the asker's own account.
            UnknownAccountError: there is no such account.
        """
        self._check_administrator(administrator, other=account_id)
        check_found(self._store.set_disabled(account_id, disabled))
        done = "disabled" if disabled else "enabled"
        logger.info("Account %s %s account %s", administrator, done, account_id)

    def sign_out_account(self, administrator: str, account_id: str) -> None:
        """End all sessions of an account.

        Raises:
            AccessDeniedError: the asker is no administrator.
            UnknownAccountError: there is no such account.
        """
        self._check_administrator(administrator)
        check_found(self._store.forget_devices(account_id, new_device_key()))
        logger.info("Account %s signed account %s out", administrator, account_id)

    def delete_other(
        self, administrator: str, account_id: str, *, first: Callable[[], None] = lambda: None
    ) -> Deleted:
        """Remove another account with its runs, votes, settings, sessions and invitations.

        Args:
            administrator: who asks.
            account_id: whose it is.
            first: called when the asker may, before anything is removed.

        Raises:
            AccessDeniedError: the asker is no administrator, or it is the asker's own account.
            UnknownAccountError: there is no such account.
        """
        self._check_administrator(administrator, other=account_id)
        first()
        gone = self._store.delete(account_id)
        if gone is None:
            raise not_found()
        logger.info("Account %s deleted account %s", administrator, account_id)
        return gone

    def invite(
        self, administrator: str, *, uses: int = 1, hours: float | None = None
    ) -> NewInvitation:
        """Make an invitation code; see :meth:`core.auth.invitations.Invitations.make`.

        Raises:
            AccessDeniedError: the asker is no administrator.
            AccountInputError: uses or hours are out of range.
        """
        self._check_administrator(administrator)
        return self._invitations.make(administrator, uses=uses, hours=hours)

    def invitations(self, administrator: str) -> list[Invitation]:
        """Invitations that can still be used, the newest first.

        Raises:
            AccessDeniedError: the asker is no administrator.
        """
        self._check_administrator(administrator)
        return self._invitations.listing()

    def withdraw_invitation(self, administrator: str, invitation_id: str) -> None:
        """Make a code useless.

        Raises:
            AccessDeniedError: the asker is no administrator.
            UnknownAccountError: there is no such invitation.
        """
        self._check_administrator(administrator)
        self._invitations.withdraw(invitation_id)

    def _check_administrator(self, account_id: str, *, other: str | None = None) -> None:
        asker = self._store.get(account_id)
        if asker is None or asker.disabled or not asker.role.administers:
            raise AccessDeniedError("Only administrators see and change accounts; ask one.")
        if other == account_id:
            raise AccessDeniedError(
                "Administrators do not change their own account here; ask another administrator."
            )


def check_found(found: bool) -> None:
    """
    Raises:
        UnknownAccountError: it was not found.
    """
    if not found:
        raise not_found()


def not_found() -> UnknownAccountError:
    """What is said of an account that was deleted meanwhile."""
    return UnknownAccountError("This account is there no more; look at the list again.")
