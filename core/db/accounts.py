"""Store of accounts, sessions and invitations.

Everything that concurrent requests could do is decided within one transaction: who gets a name, who
gets the last use of an invitation, and whether a password that was just checked is still valid when
the session starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, RowMapping, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.db.account_values import (
    GUEST,
    Account,
    AccountSummary,
    Deleted,
    Invitation,
    Role,
    Session,
)
from core.db.database import PATIENCE_S, Database
from core.db.tables import accounts, invitations, preferences, runs, sessions, votes
from core.errors import RecordsError
from core.settings import Settings

_BATCH_SIZE = 500
"""Well below SQLite's limit of parameters per statement."""


class AccountStore:
    """Reads and writes ``accounts``, ``sessions``, ``invitations`` and ``preferences``.
    Thread-safe.

    Every method raises :class:`core.errors.RecordsError` if the database fails.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, settings: Settings, *, patience_s: float = PATIENCE_S) -> AccountStore:
        """Open the database of these settings; see :meth:`Database.open`."""
        return cls(Database.open(settings, patience_s=patience_s))

    def close(self) -> None:
        """Close the idle connections of the database."""
        self.database.close()

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
                .where(invitations.c.code_hash == code_hash)
                .where(invitations.c.uses_left > 0, invitations.c.expires_at > now)
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
            .where(sessions.c.expires_at > now, sessions.c.seen_at > seen_after)
            .group_by(sessions.c.account)
            .subquery()
        )
        statement = (
            select(accounts, func.coalesce(alive.c.sessions, 0).label("sessions"))
            .outerjoin(alive, alive.c.account == accounts.c.id)
            .order_by(accounts.c.key)
        )
        with self.database.reading() as connection:
            rows = connection.execute(statement).mappings().all()
        return [AccountSummary(_of(Account, row), row["sessions"]) for row in rows]

    def set_role(self, account_id: str, role: Role) -> bool:
        """Set the role of an account; return False if it does not exist."""
        return self._change(account_id, role=role)

    def set_disabled(self, account_id: str, disabled: bool) -> bool:
        """Disable an account and end its sessions, or enable it; return False if it is missing."""
        with self.database.writing() as connection:
            if disabled:
                _end_sessions(connection, account_id)
            return _changed(connection, account_id, disabled=disabled)

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
            new_hash: hash of the new password.
            device_key: a new key, so that known browsers become unknown.
            now: time of the change.
            old_hash: hash of the password that was checked; None if it was not checked, as on the
                command line.

        Returns:
            False if the account does not exist or its password was changed in the meantime.
        """
        values = {
            "password_hash": new_hash,
            "device_key": device_key,
            "password_changed_at": now,
        }
        with self.database.writing() as connection:
            if not _changed(connection, account_id, old_hash, **values):
                return False
            _end_sessions(connection, account_id)
            return True

    def forget_devices(self, account_id: str, device_key: str) -> bool:
        """End all sessions and forget known browsers; return False if the account is missing."""
        with self.database.writing() as connection:
            _end_sessions(connection, account_id)
            return _changed(connection, account_id, device_key=device_key)

    def delete(self, account_id: str, *, old_hash: str | None = None) -> Deleted | None:
        """Delete an account with its runs, votes, sessions and invitations.

        Args:
            old_hash: hash of the password that was checked; None if it was not checked.

        Returns:
            None if the account does not exist or its password was changed in the meantime.
        """
        with self.database.writing() as connection:
            statement = accounts.delete().where(accounts.c.id == account_id)
            if old_hash is not None:
                statement = statement.where(accounts.c.password_hash == old_hash)
            if connection.execute(statement).rowcount == 0:  # sessions and invitations cascade
                return None
            counts = [
                connection.execute(table.delete().where(table.c.owner == account_id)).rowcount
                for table in (runs, votes)
            ]
        return Deleted(*counts)

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
                .where(accounts.c.id == session.account)
                .where(accounts.c.password_hash == password_hash)
                .where(accounts.c.disabled.is_(False))
                .values(signed_in_at=now)
            )
            if signed_in.rowcount == 0:
                return False
            connection.execute(sessions.insert().values(_row(session)))
            return True

    def session(self, token_hash: str) -> tuple[Session, Account] | None:
        """Return the session of a token, expired or not, and its account; None if missing."""
        account_columns = [column.label(f"account_{column.name}") for column in accounts.c]
        statement = (
            select(sessions, *account_columns)
            .join(accounts, accounts.c.id == sessions.c.account)
            .where(sessions.c.token_hash == token_hash)
        )
        with self.database.reading() as connection:
            row = connection.execute(statement).mappings().first()
        if row is None:
            return None
        account = {f.name: row[f"account_{f.name}"] for f in fields(Account)}
        return _of(Session, row), Account(**account)

    def sessions(self, account_id: str, now: datetime, seen_after: datetime) -> list[Session]:
        """Return the unexpired sessions of an account, the last used first."""
        statement = (
            select(sessions)
            .where(sessions.c.account == account_id)
            .where(sessions.c.expires_at > now, sessions.c.seen_at > seen_after)
            .order_by(sessions.c.seen_at.desc(), sessions.c.id)
        )
        with self.database.reading() as connection:
            return [_of(Session, row) for row in connection.execute(statement).mappings()]

    def live_sessions(
        self, token_hashes: Collection[str], now: datetime, seen_after: datetime
    ) -> set[str]:
        """Return those hashes that belong to unexpired sessions of enabled accounts."""
        hashes, found = list(token_hashes), set[str]()
        with self.database.reading() as connection:
            for start in range(0, len(hashes), _BATCH_SIZE):
                statement = (
                    select(sessions.c.token_hash)
                    .join(accounts, accounts.c.id == sessions.c.account)
                    .where(sessions.c.token_hash.in_(hashes[start : start + _BATCH_SIZE]))
                    .where(sessions.c.expires_at > now, sessions.c.seen_at > seen_after)
                    .where(accounts.c.disabled.is_(False))
                )
                found.update(connection.execute(statement).scalars())
        return found

    def touch_session(self, session_id: str, now: datetime) -> bool:
        """Record that a session is in use; return False if it has ended."""
        statement = update(sessions).where(sessions.c.id == session_id).values(seen_at=now)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def end_session(self, token_hash: str) -> bool:
        """End the session of a token; return False if there is none."""
        statement = sessions.delete().where(sessions.c.token_hash == token_hash)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def end_session_by_id(self, account_id: str, session_id: str) -> bool:
        """End a session of this account; return False if it has none with this id."""
        statement = (
            sessions.delete()
            .where(sessions.c.account == account_id)
            .where(sessions.c.id == session_id)
        )
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    # Invitations

    def invite(self, invitation: Invitation) -> None:
        """Insert an invitation."""
        with self.database.writing() as connection:
            connection.execute(invitations.insert().values(_row(invitation)))

    def invitation_is_valid(self, code_hash: str, now: datetime) -> bool:
        """Return whether an invitation can be used now."""
        statement = (
            select(invitations.c.id)
            .where(invitations.c.code_hash == code_hash)
            .where(invitations.c.uses_left > 0, invitations.c.expires_at > now)
        )
        with self.database.reading() as connection:
            return connection.execute(statement).first() is not None

    def invitations(self, now: datetime) -> list[Invitation]:
        """Return the invitations that can still be used, newest first."""
        statement = (
            select(invitations)
            .where(invitations.c.uses_left > 0, invitations.c.expires_at > now)
            .order_by(invitations.c.created_at.desc(), invitations.c.id)
        )
        with self.database.reading() as connection:
            return [_of(Invitation, row) for row in connection.execute(statement).mappings()]

    def withdraw_invitation(self, invitation_id: str) -> bool:
        """Delete an invitation; return False if there is none with this id."""
        statement = invitations.delete().where(invitations.c.id == invitation_id)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    # Preferences

    def preferences(self, account_id: str) -> dict[str, str]:
        """Return the stored page settings of an account; empty if there are none."""
        statement = select(preferences.c.choices).where(preferences.c.account == account_id)
        with self.database.reading() as connection:
            found = connection.execute(statement).scalar()
        return {str(name): str(value) for name, value in (found or {}).items()}

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
                connection.execute(accounts.insert().values(_row(account)))
        except RecordsError as error:  # another server inserted the name after the check
            if isinstance(error.__cause__, IntegrityError) and self.taken(
                account.key, account.look
            ):
                return False
            raise
        return True

    def _account(self, condition: Any) -> Account | None:
        with self.database.reading() as connection:
            row = connection.execute(select(accounts).where(condition)).mappings().first()
        return None if row is None else _of(Account, row)

    def _change(self, account_id: str, old_hash: str | None = None, **values: Any) -> bool:
        with self.database.writing() as connection:
            return _changed(connection, account_id, old_hash, **values)


_Kind = TypeVar("_Kind", Account, Session, Invitation)


def _taken(connection: Connection, key: str, look: str) -> bool:
    same = or_(accounts.c.key == key, accounts.c.look == look)
    return connection.execute(select(accounts.c.id).where(same)).first() is not None


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


def _changed(
    connection: Connection, account_id: str, old_hash: str | None = None, **values: Any
) -> bool:
    statement = update(accounts).where(accounts.c.id == account_id).values(values)
    if old_hash is not None:
        statement = statement.where(accounts.c.password_hash == old_hash)
    return connection.execute(statement).rowcount > 0


def _end_sessions(connection: Connection, account_id: str) -> None:
    connection.execute(sessions.delete().where(sessions.c.account == account_id))


def _row(value: Account | Session | Invitation) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _of(kind: type[_Kind], row: RowMapping) -> _Kind:
    return kind(**{f.name: row[f.name] for f in fields(kind)})
