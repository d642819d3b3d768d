"""Values of the account tables: accounts, sessions, invitations and API keys."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

GUEST = "guest"
"""Owner of runs and votes without an account, on this machine. Account ids have 32 hexadecimal
digits, so no account has this id."""


class Role(StrEnum):
    """Role of an account; each role includes the rights of those before it."""

    USER = "user"
    """Use models, compare, see measurements."""
    MANAGER = "manager"
    """Download, convert and delete models, and run benchmarks."""
    ADMINISTRATOR = "administrator"
    """List accounts, sign them out, disable them, change their roles, and create invitations."""

    @property
    def manages(self) -> bool:
        """Whether the role may manage models and benchmarks."""
        return self is not Role.USER

    @property
    def administers(self) -> bool:
        """Whether the role may manage other accounts."""
        return self is Role.ADMINISTRATOR


def new_id() -> str:
    """Return a random id for a row, 32 hexadecimal digits."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Holder:
    """Whose conversations they are: an account's, or those of a guest's browser."""

    owner: str = GUEST
    browser: str = ""
    """Empty for accounts."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """One row of ``accounts``."""

    id: str = field(default_factory=new_id)
    """The ``owner`` of this user's runs and votes."""
    name: str
    """As the user writes it."""
    key: str
    """The normalised and case-folded name, by which the account is found."""
    look: str
    """The name with similar-looking characters unified, so that no other account looks the same."""
    password_hash: str = field(repr=False)
    device_key: str = field(repr=False)
    """Secret that identifies browsers in which this account was signed in, in hexadecimal
    digits."""
    role: Role = Role.USER
    disabled: bool = False
    created_at: datetime
    password_changed_at: datetime
    signed_in_at: datetime | None = None
    subject: str | None = field(default=None, repr=False)
    """Subject identifier at the OIDC provider, if the account signs in through one."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One row of ``sessions``: a browser in which an account is signed in."""

    id: str = field(default_factory=new_id)
    """For lists; it cannot be used to sign in."""
    token_hash: str = field(repr=False)
    """SHA-256 of the token in the browser's cookie, in hexadecimal digits."""
    account: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    """End of the session, even if it is in use."""
    agent: str = ""
    """The browser's user agent."""


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """One row of ``invitations``."""

    id: str = field(default_factory=new_id)
    code_hash: str = field(repr=False)
    """SHA-256 of the code, in hexadecimal digits."""
    made_by: str
    """Account of the administrator."""
    uses: int
    uses_left: int
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """One row of ``api_keys``: a key with which a program sends requests for an account."""

    id: str = field(default_factory=new_id)
    """For lists; it cannot be used as a key."""
    key_hash: str = field(repr=False)
    """SHA-256 of the key, in hexadecimal digits."""
    account: str
    name: str
    """Name chosen by the user."""
    created_at: datetime
    used_at: datetime | None = None
    expires_at: datetime | None = None
    """None for a key that is valid until it is revoked."""


@dataclass(frozen=True)
class AccountSummary:
    """An account as an administrator sees it."""

    account: Account
    sessions: int
    """Number of sessions."""
