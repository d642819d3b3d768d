"""Store of the API keys of accounts."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime

from sqlalchemy import func, select, update

from core.db.account_values import Account, ApiKey
from core.db.database import Database
from core.db.tables import accounts, api_keys


class KeyStore:
    """Reads and writes ``api_keys``. Thread-safe.

    Every method raises :class:`core.errors.RecordsError` if the database fails.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, key: ApiKey, most: int) -> bool | None:
        """Insert a key.

        Args:
            most: highest number of keys per account.

        Returns:
            False if the account has that many, None if it does not exist or is disabled.
        """
        with self.database.writing() as connection:
            holder = select(accounts.c.id).where(
                accounts.c.id == key.account, accounts.c.disabled.is_(False)
            )
            if connection.execute(holder).first() is None:
                return None
            count = select(func.count()).where(api_keys.c.account == key.account)
            if connection.execute(count).scalar_one() >= most:
                return False
            row = {each.name: getattr(key, each.name) for each in fields(ApiKey)}
            connection.execute(api_keys.insert().values(row))
            return True

    def find(self, key_hash: str) -> tuple[ApiKey, Account] | None:
        """Return the key with this hash, expired or not, and its account; None if missing."""
        account_columns = [column.label(f"account_{column.name}") for column in accounts.c]
        statement = (
            select(api_keys, *account_columns)
            .join(accounts, accounts.c.id == api_keys.c.account)
            .where(api_keys.c.key_hash == key_hash)
        )
        with self.database.reading() as connection:
            row = connection.execute(statement).mappings().first()
        if row is None:
            return None
        key = ApiKey(**{each.name: row[each.name] for each in fields(ApiKey)})
        holder = Account(**{each.name: row[f"account_{each.name}"] for each in fields(Account)})
        return key, holder

    def listing(self, account_id: str) -> list[ApiKey]:
        """Return the keys of an account, newest first."""
        statement = (
            select(api_keys)
            .where(api_keys.c.account == account_id)
            .order_by(api_keys.c.created_at.desc(), api_keys.c.id)
        )
        with self.database.reading() as connection:
            rows = connection.execute(statement).mappings().all()
        return [ApiKey(**{each.name: row[each.name] for each in fields(ApiKey)}) for row in rows]

    def note_use(self, key_id: str, now: datetime) -> bool:
        """Record that a key was used; return False if it does not exist."""
        statement = update(api_keys).where(api_keys.c.id == key_id).values(used_at=now)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def revoke(self, account_id: str, key_id: str) -> bool:
        """Delete a key of this account; return False if it has none with this id."""
        statement = (
            api_keys.delete().where(api_keys.c.account == account_id).where(api_keys.c.id == key_id)
        )
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0
