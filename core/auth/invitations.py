"""Invitations: codes with which people may register, made by an administrator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.auth.tokens import code_hash, new_code
from core.db import AccountStore, Invitation
from core.errors import AccountInputError, InvitationError, UnknownAccountError
from core.settings import Settings

MOST_USES = 1000
MOST_HOURS = 366 * 24


@dataclass(frozen=True)
class NewInvitation:
    """An invitation that was made."""

    code: str = field(repr=False)
    """To be given to people; it is stored nowhere, and cannot be shown again."""
    invitation: Invitation


class Invitations:
    """Makes, lists and withdraws invitations; threads share it.

    Every method raises :class:`core.errors.RecordsError` where the database fails.
    """

    def __init__(
        self, store: AccountStore, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._clock = clock
        self._hours = settings.invitation_h

    def make(self, made_by: str, *, uses: int = 1, hours: float | None = None) -> NewInvitation:
        """Make a code.

        Args:
            made_by: the administrator's account; the code goes when it goes.
            uses: people who may register with it.
            hours: for which it holds; by default as the settings say.

        Raises:
            AccountInputError: uses or hours are out of range.
        """
        hours = self._hours if hours is None else hours
        if not 1 <= uses <= MOST_USES:
            raise AccountInputError(
                f"An invitation has 1 to {MOST_USES} uses; choose a number between."
            )
        if not 0 < hours <= MOST_HOURS:
            raise AccountInputError(
                "An invitation holds for more than no time and at most a year; choose between."
            )
        code, now = new_code(), self._clock()
        invitation = Invitation(
            code_hash=code_hash(code) or "",
            made_by=made_by,
            uses=uses,
            uses_left=uses,
            created_at=now,
            expires_at=now + timedelta(hours=hours),
        )
        self._store.invite(invitation)
        return NewInvitation(code, invitation)

    def checked(self, code: str | None) -> str:
        """The hash of a code that holds now.

        Raises:
            InvitationError: it does not.
        """
        hashed = code_hash(code or "")
        if hashed is None or not self._store.invitation_is_valid(hashed, self._clock()):
            raise refused()
        return hashed

    def listing(self) -> list[Invitation]:
        """Invitations that can still be used, the newest first."""
        return self._store.invitations(self._clock())

    def withdraw(self, invitation_id: str) -> None:
        """Make a code useless.

        Raises:
            UnknownAccountError: there is no such invitation.
        """
        if not self._store.withdraw_invitation(invitation_id):
            raise UnknownAccountError("This invitation is there no more; look at the list again.")


def refused() -> InvitationError:
    """The same for a code that never was, is used up or has expired."""
    return InvitationError(
        "This invitation code does not hold (any more); ask an administrator for another."
    )
