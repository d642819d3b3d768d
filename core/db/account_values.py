"""What an account, a session and an invitation are: the values of their tables."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

GUEST = "guest"
"""Owner of what is asked and judged without an account, on this machine; no account has this id,
which is 32 hexadecimal digits."""


class Role(StrEnum):
    """What an account may do; each may do what the one before it may."""

    USER = "user"
    """Ask models, compare, see what is measured."""
    MANAGER = "manager"
    """Fetch, convert and delete models, and run sweeps."""
    ADMINISTRATOR = "administrator"
    """See accounts, sign them out, disable them, change their role, and invite."""

    @property
    def manages(self) -> bool:
        """Whether it has the right to manage models and sweeps."""
        return self is not Role.USER

    @property
    def administers(self) -> bool:
        """Whether it has the right to look after other accounts."""
        return self is Role.ADMINISTRATOR


def new_id() -> str:
    """An id of a row that nobody can guess from another: 32 hexadecimal digits."""
    return uuid.uuid4().hex


@dataclass(frozen=True, kw_only=True)
class Account:
    """One row of ``accounts``."""

    id: str = field(default_factory=new_id)
    """Stands in ``owner`` of this person's runs and votes."""
    name: str
    """As the person writes it."""
    key: str
    """What it is found by: normalised and case-folded."""
    look: str
    """What it looks like, so that no other account can pass for it."""
    password_hash: str = field(repr=False)
    device_key: str = field(repr=False)
    """Secret that tells browsers in which this account was signed in, in hexadecimal digits."""
    role: Role = Role.USER
    disabled: bool = False
    created_at: datetime
    password_changed_at: datetime
    signed_in_at: datetime | None = None
    subject: str | None = field(default=None, repr=False)
    """Who it is to the provider by which it signs in, if it does."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One row of ``sessions``: a browser in which an account is signed in."""

    id: str = field(default_factory=new_id)
    """For lists; it signs nobody in."""
    token_hash: str = field(repr=False)
    """SHA-256 of the token that the browser holds, in hexadecimal digits."""
    account: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    """When it ends whatever happens."""
    agent: str = ""
    """The browser, as it calls itself."""


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
    """One row of ``api_keys``: with it a program asks in the name of an account."""

    id: str = field(default_factory=new_id)
    """For lists; it opens nothing."""
    key_hash: str = field(repr=False)
    """SHA-256 of the key, in hexadecimal digits."""
    account: str
    name: str
    """What the person tells it by."""
    created_at: datetime
    used_at: datetime | None = None
    expires_at: datetime | None = None
    """None for a key that holds until it is revoked."""


@dataclass(frozen=True)
class AccountSummary:
    """An account as an administrator sees it."""

    account: Account
    sessions: int
    """Browsers in which it is signed in."""


@dataclass(frozen=True)
class Deleted:
    """What went with an account."""

    runs: int
    votes: int
