"""Invitation codes, created by administrators, for registration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.auth.tokens import code_hash, new_code
from core.db import AccountStore, Invitation
from core.errors import AccountInputError, InvitationError, UnknownAccountError
from core.settings import Settings

MAX_USES = 1000
MAX_HOURS = 366 * 24


@dataclass(frozen=True)
class NewInvitation:
    """A new invitation."""

    code: str = field(repr=False)
    """The code to hand out; it is not stored and cannot be shown again."""
    invitation: Invitation


class Invitations:
    """Creates, lists and revokes invitations; shared by threads.

    Every method raises :class:`core.errors.RecordsError` if the database fails.
    """

    def __init__(
        self, store: AccountStore, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._clock = clock
        self._hours = settings.invitation_h

    def make(self, made_by: str, *, uses: int = 1, hours: float | None = None) -> NewInvitation:
        """Create an invitation.

        Args:
            made_by: the administrator's account; deleting it revokes the code.
            uses: number of registrations.
            hours: validity in hours, by default PADDOCK_INVITATION_H.

        Raises:
            AccountInputError: uses or hours are out of range.
        """
        hours = self._hours if hours is None else hours
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
            made_by=made_by,
            uses=uses,
            uses_left=uses,
            created_at=now,
            expires_at=now + timedelta(hours=hours),
        )
        self._store.invite(invitation)
        return NewInvitation(code, invitation)

    def checked(self, code: str | None) -> str:
        """Return the hash of a valid code.

        Raises:
            InvitationError: the code is not valid.
        """
        hashed = code_hash(code or "")
        if hashed is None or not self._store.invitation_is_valid(hashed, self._clock()):
            raise invalid_code()
        return hashed

    def listing(self) -> list[Invitation]:
        """Return the invitations that can still be used, newest first."""
        return self._store.invitations(self._clock())

    def withdraw(self, invitation_id: str) -> None:
        """Revoke an invitation code.

        Raises:
            UnknownAccountError: there is no such invitation.
        """
        if not self._store.withdraw_invitation(invitation_id):
            raise UnknownAccountError("This invitation no longer exists. Reload the list.")


def invalid_code() -> InvitationError:
    """Return the same error for a code that is unknown, used up or expired."""
    return InvitationError(
        "This invitation code is incorrect, used up or expired. Ask an administrator for another "
        "one."
    )
