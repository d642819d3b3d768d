"""API keys: with one, a program asks in the name of an account, and does nothing else in it.

A key is 256 random bits, of which only the SHA-256 is stored, as with sessions. It opens what is
made for programs and no page or form; it holds until it expires or is revoked, whatever becomes of
sessions and passwords, and goes with its account.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.auth.tokens import new_token
from core.db import Account, ApiKey, KeyStore
from core.errors import AccountInputError, RecordsError, UnknownAccountError

PREFIX = "pdk_"
"""Tells a key of ours from other secrets: for people, and for what looks for leaked ones."""
MOST_KEYS = 20
"""Of one account."""
LONGEST_NAME = 60
MOST_DAYS = 366
USED_EVERY = timedelta(minutes=1)
"""How often it is noted that a key is in use, at most: each note is a write."""

_KEY = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewKey:
    """A key that was made."""

    secret: str = field(repr=False)
    """To be shown once; it is stored nowhere."""
    key: ApiKey


class Keys:
    """Makes, finds and revokes keys; threads share it.

    Every method raises :class:`core.errors.RecordsError` where the database fails.
    """

    def __init__(self, store: KeyStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def make(self, account_id: str, name: str, *, days: int | None = None) -> NewKey:
        """Make a key.

        Args:
            account_id: whose; somebody signed in to it.
            name: for the person to tell it by.
            days: after which it expires; None for never.

        Raises:
            AccountInputError: name or days cannot be taken, or there are too many keys.
        """
        name = " ".join(name.split())
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise AccountInputError(
                f"Give the key a name of 1 to {LONGEST_NAME} characters, such as the program's."
            )
        if days is not None and not 1 <= days <= MOST_DAYS:
            raise AccountInputError(f"A key holds for 1 to {MOST_DAYS} days, or until revoked.")
        secret, now = PREFIX + new_token(), self._clock()
        key = ApiKey(
            key_hash=key_hash(secret) or "",
            account=account_id,
            name=name,
            created_at=now,
            expires_at=None if days is None else now + timedelta(days=days),
        )
        added = self._store.add(key, MOST_KEYS)
        if added is None:
            raise UnknownAccountError("This account is there no more, or disabled.")
        if not added:
            raise AccountInputError(
                f"An account has at most {MOST_KEYS} keys; revoke one that is not needed."
            )
        logger.info("Account %s made the API key %s", account_id, key.id)
        return NewKey(secret, key)

    def holder(self, secret: str) -> Account | None:
        """Whose key this is; None where it is none's, has expired, or the account is disabled."""
        hashed = key_hash(secret)
        found = self._store.find(hashed) if hashed else None
        if found is None:
            return None
        key, account = found
        now = self._clock()
        if account.disabled or (key.expires_at is not None and key.expires_at <= now):
            return None
        self._note_use(key, now)
        return account

    def listing(self, account_id: str) -> list[ApiKey]:
        """The keys of an account, expired ones too, the newest first."""
        return self._store.listing(account_id)

    def revoke(self, account_id: str, key_id: str) -> None:
        """Make a key useless.

        Raises:
            UnknownAccountError: the account has no such key.
        """
        if not self._store.revoke(account_id, key_id):
            raise UnknownAccountError("This key is there no more; look at the list again.")
        logger.info("Account %s revoked the API key %s", account_id, key_id)

    def _note_use(self, key: ApiKey, now: datetime) -> None:
        if key.used_at is not None and now - key.used_at < USED_EVERY:
            return
        try:
            self._store.note_use(key.id, now)
        except RecordsError as error:  # a busy database refuses nobody
            logger.warning("It could not be noted that a key is in use: %s", error)


def key_hash(secret: str) -> str | None:
    """What is stored of a key; None for a text that cannot be one."""
    return hashlib.sha256(secret.encode()).hexdigest() if _KEY.fullmatch(secret) else None
