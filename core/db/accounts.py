"""Store of accounts, sessions, invitations and API keys.

Everything that concurrent requests could do is decided within one transaction: who gets a name, who
gets the last use of an invitation, and whether a password that was just checked is still valid when
the session starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.db.account_values import (
    GUEST,
    Account,
    AccountSummary,
    ApiKey,
    Deleted,
    Invitation,
    Role,
    Session,
)
from core.db.database import Store
from core.db.rows import from_row, to_row
from core.db.tables import (
    accounts,
    api_keys,
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


class AccountStore(Store):
    """Reads and writes ``accounts``, ``sessions``, ``invitations``, ``api_keys`` and
    ``preferences``."""

    # Accounts

    def add(self, account: Account) -> bool:
        """Insert an account; return False if its name, or one that looks the same, is taken."""
        return self._insert(account, lambda connection: True)

    def add_invited(self, account: Account, code_hash: str, now: datetime) -> bool | None:
        """Insert an account and use up one use of an invitation, in one transaction.

        Returns:
            False if the name is taken, None if the invitation is not valid (any more).
        """
        used = True

        def use_invitation(connection: Connection) -> bool:
            nonlocal used
            statement = (
                update(invitations)
                .where(invitations.c.code_hash == code_hash, *_usable(now))
                .values(uses_left=invitations.c.uses_left - 1)
            )
            used = connection.execute(statement).rowcount > 0
            return used

        added = self._insert(account, use_invitation)
        return added if used else None

    def by_key(self, key: str) -> Account | None:
        """Return the account with this normalised name, or None."""
        return self._account(accounts.c.key == key)

    def by_subject(self, subject: str) -> Account | None:
        """Return the account with this OIDC subject, or None."""
        return self._account(accounts.c.subject == subject)

    def get(self, account_id: str) -> Account | None:
        """Return the account with this id, or None."""
        return self._account(accounts.c.id == account_id)

    def taken(self, key: str, look: str) -> bool:
        """Return whether an account has this name, or one that looks the same."""
        with self.database.reading() as connection:
            return _taken(connection, key, look)

    def summaries(self, now: datetime, seen_after: datetime) -> list[AccountSummary]:
        """Return all accounts by name, each with the number of its unexpired sessions."""
        alive = (
            select(sessions.c.account, func.count().label("sessions"))
            .where(*_unexpired(now, seen_after))
            .group_by(sessions.c.account)
            .subquery()
        )
        statement = (
            select(accounts, func.coalesce(alive.c.sessions, 0).label("sessions"))
            .outerjoin(alive, alive.c.account == accounts.c.id)
            .order_by(accounts.c.key)
        )
        rows = self.database.rows(statement)
        return [AccountSummary(from_row(Account, row), row["sessions"]) for row in rows]

    def set_role(self, account_id: str, role: Role) -> bool:
        """Set the role of an account; return False if it does not exist."""
        return self._change(account_id, role=role)

    def set_disabled(self, account_id: str, disabled: bool) -> bool:
        """Disable an account and end its sessions, or enable it; return False if it is missing."""
        return self._change(account_id, end_sessions=disabled, disabled=disabled)

    def replace_hash(self, account_id: str, old: str, new: str) -> bool:
        """Store a new hash of the same password; return False if the password was changed."""
        return self._change(account_id, old, password_hash=new)

    def set_password(
        self,
        account_id: str,
        new_hash: str,
        device_key: str,
        now: datetime,
        *,
        old_hash: str | None = None,
    ) -> bool:
        """Store a new password and end all sessions of the account.

        Args:
            device_key: a new key, so that known browsers become unknown.
            old_hash: hash of the password that was checked; None if it was not checked, as on the
                command line.

        Returns:
            False if the account does not exist or its password was changed in the meantime.
        """
        return self._change(
            account_id,
            old_hash,
            end_sessions=True,
            password_hash=new_hash,
            device_key=device_key,
            password_changed_at=now,
        )

    def forget_devices(self, account_id: str, device_key: str) -> bool:
        """End all sessions and forget known browsers; return False if the account is missing."""
        return self._change(account_id, end_sessions=True, device_key=device_key)

    def delete(self, account_id: str, *, old_hash: str | None = None) -> Deleted | None:
        """Delete an account with everything that it owns, and its sessions and invitations.

        Args:
            old_hash: hash of the password that was checked; None if it was not checked.

        Returns:
            None if the account does not exist or its password was changed in the meantime.
        """
        statement = accounts.delete().where(*_this(account_id, old_hash))
        with self.database.writing() as connection:
            if connection.execute(statement).rowcount == 0:  # sessions and invitations cascade
                return None
            counts = [
                connection.execute(table.delete().where(table.c.owner == account_id)).rowcount
                for table in (runs, votes, conversations, test_sets, evaluations)
            ]
        return Deleted(runs=counts[0], votes=counts[1])

    # Sessions

    def begin_session(self, session: Session, password_hash: str, seen_after: datetime) -> bool:
        """Insert a session, and delete all expired sessions.

        Args:
            session: starts at its ``created_at``.
            password_hash: the hash against which the password was checked.
            seen_after: sessions last used at this time or earlier have expired.

        Returns:
            False if the account was deleted, disabled, or its password was changed in the meantime.
        """
        now = session.created_at
        expired = or_(sessions.c.expires_at <= now, sessions.c.seen_at <= seen_after)
        with self.database.writing() as connection:
            connection.execute(sessions.delete().where(expired))
            signed_in = connection.execute(
                update(accounts)
                .where(*_this(session.account, password_hash), accounts.c.disabled.is_(False))
                .values(signed_in_at=now)
            )
            if signed_in.rowcount == 0:
                return False
            connection.execute(sessions.insert().values(to_row(session)))
            return True

    def session(self, token_hash: str) -> tuple[Session, Account] | None:
        """Return the session of a token, expired or not, and its account; None if missing."""
        return self._with_account(Session, sessions, sessions.c.token_hash == token_hash)

    def sessions(self, account_id: str, now: datetime, seen_after: datetime) -> list[Session]:
        """Return the unexpired sessions of an account, the last used first."""
        statement = (
            select(sessions)
            .where(sessions.c.account == account_id, *_unexpired(now, seen_after))
            .order_by(sessions.c.seen_at.desc(), sessions.c.id)
        )
        return [from_row(Session, row) for row in self.database.rows(statement)]

    def live_sessions(
        self, token_hashes: Collection[str], now: datetime, seen_after: datetime
    ) -> set[str]:
        """Return those hashes that belong to unexpired sessions of enabled accounts."""
        statement = (
            select(sessions.c.token_hash)
            .join(accounts, accounts.c.id == sessions.c.account)
            .where(sessions.c.token_hash.in_(list(token_hashes)), *_unexpired(now, seen_after))
            .where(accounts.c.disabled.is_(False))
        )
        return {row["token_hash"] for row in self.database.rows(statement)}

    def touch_session(self, session_id: str, now: datetime) -> bool:
        """Record that a session is in use; return False if it has ended."""
        statement = update(sessions).where(sessions.c.id == session_id).values(seen_at=now)
        return self.database.change(statement) > 0

    def end_session(self, token_hash: str) -> bool:
        """End the session of a token; return False if there is none."""
        statement = sessions.delete().where(sessions.c.token_hash == token_hash)
        return self.database.change(statement) > 0

    def end_session_by_id(self, account_id: str, session_id: str) -> bool:
        """End a session of this account; return False if it has none with this id."""
        return self._delete_of(sessions, account_id, session_id)

    # Invitations

    def invite(self, invitation: Invitation) -> None:
        """Insert an invitation."""
        self.database.change(invitations.insert().values(to_row(invitation)))

    def invitation_is_valid(self, code_hash: str, now: datetime) -> bool:
        """Return whether an invitation can be used now."""
        statement = select(invitations.c.id).where(
            invitations.c.code_hash == code_hash, *_usable(now)
        )
        return self.database.value(statement) is not None

    def invitations(self, now: datetime) -> list[Invitation]:
        """Return the invitations that can still be used, newest first."""
        statement = (
            select(invitations)
            .where(*_usable(now))
            .order_by(invitations.c.created_at.desc(), invitations.c.id)
        )
        return [from_row(Invitation, row) for row in self.database.rows(statement)]

    def withdraw_invitation(self, invitation_id: str) -> bool:
        """Delete an invitation; return False if there is none with this id."""
        return (
            self.database.change(invitations.delete().where(invitations.c.id == invitation_id)) > 0
        )

    # API keys

    def add_api_key(self, key: ApiKey, most: int) -> bool | None:
        """Insert an API key.

        Args:
            most: highest number of keys per account.

        Returns:
            False if the account has that many, None if it does not exist or is disabled.
        """
        holder = select(accounts.c.id).where(
            accounts.c.id == key.account, accounts.c.disabled.is_(False)
        )
        count = select(func.count()).where(api_keys.c.account == key.account)
        with self.database.writing() as connection:
            if connection.execute(holder).first() is None:
                return None
            if connection.execute(count).scalar_one() >= most:
                return False
            connection.execute(api_keys.insert().values(to_row(key)))
            return True

    def api_key(self, key_hash: str) -> tuple[ApiKey, Account] | None:
        """Return the key with this hash, expired or not, and its account; None if missing."""
        return self._with_account(ApiKey, api_keys, api_keys.c.key_hash == key_hash)

    def api_keys(self, account_id: str) -> list[ApiKey]:
        """Return the API keys of an account, newest first."""
        statement = (
            select(api_keys)
            .where(api_keys.c.account == account_id)
            .order_by(api_keys.c.created_at.desc(), api_keys.c.id)
        )
        return [from_row(ApiKey, row) for row in self.database.rows(statement)]

    def touch_api_key(self, key_id: str, now: datetime) -> bool:
        """Record that an API key was used; return False if it does not exist."""
        statement = update(api_keys).where(api_keys.c.id == key_id).values(used_at=now)
        return self.database.change(statement) > 0

    def delete_api_key(self, account_id: str, key_id: str) -> bool:
        """Delete a key of this account; return False if it has none with this id."""
        return self._delete_of(api_keys, account_id, key_id)

    # Preferences

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

    # Helpers

    def _insert(self, account: Account, first: Callable[[Connection], bool]) -> bool:
        """Insert an account unless its name is taken or ``first`` fails in the same transaction."""
        try:
            with self.database.writing() as connection:
                if _taken(connection, account.key, account.look) or not first(connection):
                    return False
                connection.execute(accounts.insert().values(to_row(account)))
        except RecordsError as error:  # another server inserted the name after the check
            if isinstance(error.__cause__, IntegrityError) and self.taken(
                account.key, account.look
            ):
                return False
            raise
        return True

    def _account(self, condition: ColumnElement[bool]) -> Account | None:
        row = self.database.row(select(accounts).where(condition))
        return None if row is None else from_row(Account, row)

    def _with_account(
        self, kind: type[Any], table: Table, condition: ColumnElement[bool]
    ) -> tuple[Any, Account] | None:
        columns = [column.label(f"account_{column.name}") for column in accounts.c]
        statement = (
            select(table, *columns)
            .join(accounts, accounts.c.id == table.c.account)
            .where(condition)
        )
        row = self.database.row(statement)
        return None if row is None else (from_row(kind, row), from_row(Account, row, "account_"))

    def _change(
        self,
        account_id: str,
        old_hash: str | None = None,
        *,
        end_sessions: bool = False,
        **values: Any,
    ) -> bool:
        statement = update(accounts).where(*_this(account_id, old_hash)).values(values)
        with self.database.writing() as connection:
            if connection.execute(statement).rowcount == 0:
                return False
            if end_sessions:
                connection.execute(sessions.delete().where(sessions.c.account == account_id))
            return True

    def _delete_of(self, table: Table, account_id: str, row_id: str) -> bool:
        own = table.c.account == account_id, table.c.id == row_id
        return self.database.change(table.delete().where(*own)) > 0


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


def _unexpired(now: datetime, seen_after: datetime) -> tuple[ColumnElement[bool], ...]:
    return sessions.c.expires_at > now, sessions.c.seen_at > seen_after


def _usable(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return invitations.c.uses_left > 0, invitations.c.expires_at > now
