"""API keys, with which programs send requests for an account.

A key is 256 random bits, of which only the SHA-256 is stored, as with sessions. It gives access to
the API, but not to pages and forms. It is valid until it expires or is revoked, or its account is
deleted or disabled, independent of sessions and passwords.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update

from core.auth.tokens import new_token, sha256
from core.db import Account, AccountStore, ApiKey
from core.db.rows import to_row
from core.db.tables import accounts, api_keys
from core.errors import AccountInputError, RecordsError, UnknownAccountError

PREFIX = "pdk_"
"""Identifies Paddock's keys, for users and for secret scanners."""
MAX_KEYS = 20
"""Keys per account."""
MAX_NAME_LENGTH = 60
MAX_DAYS = 366
USED_INTERVAL = timedelta(minutes=1)
"""Minimum time between updates of a key's last use, because each is a database write."""

_KEY = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")

logger = logging.getLogger(__name__)


class Keys:
    """Creates, finds and revokes API keys; shared by threads.

    Every method raises :class:`core.errors.RecordsError` if the database fails.
    """

    def __init__(self, store: AccountStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._database = store.database
        self._clock = clock

    def make(self, account_id: str, name: str, *, days: int | None = None) -> str:
        """Create a key and return it, to be shown once; it is not stored.

        Args:
            name: by which the user recognizes the key.
            days: validity in days; None for unlimited.

        Raises:
            AccountInputError: name or days are invalid, or the account has too many keys.
        """
        name = " ".join(name.split())
        if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
            raise AccountInputError(
                "The name of the key is empty, too long or has control characters. Enter 1 to "
                f"{MAX_NAME_LENGTH} characters, such as the name of the program."
            )
        if days is not None and not 1 <= days <= MAX_DAYS:
            raise AccountInputError(
                f"The validity is {days} days. Choose 1 to {MAX_DAYS} days, or no expiry."
            )
        secret, now = PREFIX + new_token(), self._clock()
        key = ApiKey(
            key_hash=key_hash(secret) or "",
            account=account_id,
            name=name,
            created_at=now,
            expires_at=None if days is None else now + timedelta(days=days),
        )
        enabled = accounts.c.id == account_id, accounts.c.disabled.is_(False)
        count = select(func.count()).where(api_keys.c.account == account_id)
        with self._database.writing() as connection:
            if connection.execute(select(accounts.c.id).where(*enabled)).first() is None:
                raise UnknownAccountError("This account was deleted or disabled. Sign in again.")
            if connection.execute(count).scalar_one() >= MAX_KEYS:
                raise AccountInputError(
                    f"This account has {MAX_KEYS} keys, which is the maximum. Revoke one of them."
                )
            connection.execute(api_keys.insert().values(to_row(key)))
        logger.info("Account %s created the API key %s", account_id, key.id)
        return secret

    def holder(self, secret: str) -> Account | None:
        """Return the key's account; None if it is incorrect or expired, or the account disabled."""
        hashed, now = key_hash(secret), self._clock()
        valid = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now)
        this = api_keys.c.key_hash == hashed, valid
        found = self._store.with_account(ApiKey, api_keys, *this) if hashed else None
        if found is None:
            return None
        key, account = found
        if key.used_at is None or now - key.used_at >= USED_INTERVAL:
            used = update(api_keys).where(api_keys.c.id == key.id).values(used_at=now)
            try:
                self._database.change(used)
            except RecordsError as error:  # a busy database must not reject requests
                logger.warning("The last use of an API key could not be recorded: %s", error)
        return account

    def listing(self, account_id: str) -> list[ApiKey]:
        """Return the keys of an account, including expired ones, newest first."""
        statement = (
            select(api_keys)
            .where(api_keys.c.account == account_id)
            .order_by(api_keys.c.created_at.desc(), api_keys.c.id)
        )
        return self._database.all(ApiKey, statement)

    def revoke(self, account_id: str, key_id: str) -> None:
        """Revoke a key.

        Raises:
            UnknownAccountError: the account has no such key.
        """
        this = api_keys.c.account == account_id, api_keys.c.id == key_id
        if not self._database.change(api_keys.delete().where(*this)):
            raise UnknownAccountError("This key no longer exists. Reload the list.")
        logger.info("Account %s revoked the API key %s", account_id, key_id)


def key_hash(secret: str) -> str | None:
    """Return the hash that is stored of a key, or None if the text is not a key."""
    return sha256(secret) if _KEY.fullmatch(secret) else None
