"""Store of accounts and of what only they own.

Everything that concurrent requests could do is decided within one transaction: who gets a name, who
gets the last use of an invitation, and whether a password that was just checked is still valid when
the account is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.db.account_values import GUEST, Account
from core.db.database import Store
from core.db.rows import from_row, to_row
from core.db.tables import (
    accounts,
    conversations,
    evaluations,
    invitations,
    preferences,
    runs,
    sessions,
    test_sets,
    votes,
)
from core.errors import RecordsError

T = TypeVar("T")


class AccountStore(Store):
    """Reads and writes ``accounts`` and ``preferences``.

    Sessions, invitations and API keys are read and written in :mod:`core.auth`.
    """

    def add(self, account: Account, code_hash: str | None = None) -> bool | None:
        """Insert an account, and use up one use of an invitation if its code is given.

        Returns:
            False if the name, or one that looks the same, is taken; None if the invitation is not
            valid (any more).
        """
        use_invitation = (
            update(invitations)
            .where(invitations.c.code_hash == code_hash, *usable(account.created_at))
            .values(uses_left=invitations.c.uses_left - 1)
        )
        try:
            with self.database.writing() as connection:
                if _taken(connection, account.key, account.look):
                    return False
                if code_hash is not None and connection.execute(use_invitation).rowcount == 0:
                    return None
                connection.execute(accounts.insert().values(to_row(account)))
        except RecordsError as error:  # another server inserted the name after the check
            if isinstance(error.__cause__, IntegrityError) and self.taken(
                account.key, account.look
            ):
                return False
            raise
        return True

    def get(self, account_id: str) -> Account | None:
        """Return the account with this id, or None."""
        return self.find(id=account_id)

    def find(self, **which: str) -> Account | None:
        """Return the account with this value in a unique column, such as ``key``, or None."""
        return self.database.first(Account, select(accounts).filter_by(**which))

    def taken(self, key: str, look: str) -> bool:
        """Return whether an account has this name, or one that looks the same."""
        with self.database.reading() as connection:
            return _taken(connection, key, look)

    def invitation_is_valid(self, code_hash: str, now: datetime) -> bool:
        """Return whether an invitation can be used now."""
        this = invitations.c.code_hash == code_hash, *usable(now)
        return self.database.value(select(invitations.c.id).where(*this)) is not None

    def change(
        self,
        account_id: str,
        old_hash: str | None = None,
        *,
        end_sessions: bool = False,
        **values: Any,
    ) -> bool:
        """Change columns of an account.

        Args:
            old_hash: hash of the password that was checked; None if it was not checked.
            end_sessions: whether to end all its sessions.

        Returns:
            False if the account does not exist or its password was changed in the meantime.
        """
        statement = update(accounts).where(*_this(account_id, old_hash)).values(values)
        with self.database.writing() as connection:
            if connection.execute(statement).rowcount == 0:
                return False
            if end_sessions:
                connection.execute(sessions.delete().where(sessions.c.account == account_id))
            return True

    def delete(self, account_id: str, *, old_hash: str | None = None) -> bool:
        """Delete an account with everything that it owns, and its sessions and invitations.

        Args:
            old_hash: hash of the password that was checked; None if it was not checked.

        Returns:
            False if the account does not exist or its password was changed in the meantime.
        """
        statement = accounts.delete().where(*_this(account_id, old_hash))
        with self.database.writing() as connection:
            if connection.execute(statement).rowcount == 0:  # sessions and invitations cascade
                return False
            for table in (runs, votes, conversations, test_sets, evaluations):
                connection.execute(table.delete().where(table.c.owner == account_id))
            return True

    def with_account(
        self, kind: type[T], table: Table, *conditions: ColumnElement[bool]
    ) -> tuple[T, Account] | None:
        """Return the row of a table with an ``account`` that matches, and this account.

        Returns:
            None if there is no such row, or its account is disabled.
        """
        columns = [column.label(f"account_{column.name}") for column in accounts.c]
        statement = (
            select(table, *columns)
            .join(accounts, accounts.c.id == table.c.account)
            .where(accounts.c.disabled.is_(False), *conditions)
        )
        row = self.database.row(statement)
        return None if row is None else (from_row(kind, row), from_row(Account, row, "account_"))

    def preferences(self, account_id: str) -> dict[str, str]:
        """Return the stored page settings of an account; empty if there are none."""
        statement = select(preferences.c.choices).where(preferences.c.account == account_id)
        found = self.database.value(statement) or {}
        return {str(name): str(value) for name, value in found.items()}

    def save_preferences(self, account_id: str, choices: Mapping[str, str], now: datetime) -> bool:
        """Replace the stored page settings; return False if the account does not exist."""
        row = {"choices": dict(choices), "saved_at": now}
        own = preferences.c.account == account_id
        with self.database.writing() as connection:
            if connection.execute(update(preferences).where(own).values(row)).rowcount:
                return True
            account = select(accounts.c.id).where(accounts.c.id == account_id)
            if connection.execute(account).first() is None:
                return False
            connection.execute(preferences.insert().values(row | {"account": account_id}))
            return True


def check_owner(connection: Connection, owner: str) -> None:
    """Check, in the transaction that writes a row, that its owner still exists.

    Deleting an account deletes all its rows; an answer that is still queued or streaming must not
    add new ones.

    Raises:
        RecordsError: there is no such account.
    """
    found = select(accounts.c.id).where(accounts.c.id == owner).with_for_update(read=True)
    if owner != GUEST and connection.execute(found).first() is None:
        raise RecordsError("This account was deleted. Nothing is stored for it any more.")


def _taken(connection: Connection, key: str, look: str) -> bool:
    same = or_(accounts.c.key == key, accounts.c.look == look)
    return connection.execute(select(accounts.c.id).where(same)).first() is not None


def _this(account_id: str, old_hash: str | None) -> list[ColumnElement[bool]]:
    unchanged = [] if old_hash is None else [accounts.c.password_hash == old_hash]
    return [accounts.c.id == account_id, *unchanged]


def usable(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of invitations that can still be used."""
    return invitations.c.uses_left > 0, invitations.c.expires_at > now
