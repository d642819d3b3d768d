"""The accounts, their sessions and the invitations; what belongs together changes together.

Everything that two requests could do at once is decided inside one transaction: who gets a name,
who gets the last use of an invitation, and whether a password that was checked a moment ago is
still the one that counts when the session begins.
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

_HASHES_AT_ONCE = 500
"""Well below the number of parameters that SQLite takes in one statement."""


class AccountStore:
    """Reads and writes ``accounts``, ``sessions`` and ``invitations``; threads may share it.

    Every method raises :class:`core.errors.RecordsError` where the database fails.
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
        """Write a new account; False where its name, or one that looks like it, is taken."""
        return self._added(account, lambda connection: True)

    def add_invited(self, account: Account, code_hash: str, now: datetime) -> bool | None:
        """Write a new account and take one use of an invitation, both or neither.

        Returns:
            False where the name is taken, None where the code does not hold (any more).
        """
        used = True

        def take_a_use(connection: Connection) -> bool:
            nonlocal used
            used = _take_a_use(connection, code_hash, now)
            return used

        added = self._added(account, take_a_use)
        return added if used else None

    def by_key(self, key: str) -> Account | None:
        """The account that is found by this normalised name, or None."""
        return self._account(accounts.c.key == key)

    def by_subject(self, subject: str) -> Account | None:
        """The account that a provider knows by this subject, or None."""
        return self._account(accounts.c.subject == subject)

    def get(self, account_id: str) -> Account | None:
        """The account of this id, or None."""
        return self._account(accounts.c.id == account_id)

    def taken(self, key: str, look: str) -> bool:
        """Whether an account has this name, or one that looks like it."""
        with self.database.reading() as connection:
            return _taken(connection, key, look)

    def summaries(self, now: datetime, seen_after: datetime) -> list[AccountSummary]:
        """All accounts by name, each with the number of its sessions that have not expired."""
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
        """Give an account a role; False where it is there no more."""
        return self._change(account_id, role=role)

    def set_disabled(self, account_id: str, disabled: bool) -> bool:
        """Disable an account and end its sessions, or enable it; False where it is gone."""
        with self.database.writing() as connection:
            if disabled:
                _end_sessions(connection, account_id)
            return _changed(connection, account_id, disabled=disabled)

    def replace_hash(self, account_id: str, old: str, new: str) -> bool:
        """Store the same password hashed anew; False where it was changed meanwhile."""
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
        """Store another password and end every session of the account.

        Args:
            account_id: whose.
            new_hash: of the new password.
            device_key: a new one, so that browsers of before are strangers again.
            now: the time of the change.
            old_hash: what was checked; None where an administrator of the machine sets it.

        Returns:
            False where the account is gone, or its password was changed meanwhile.
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
        """End every session, and make known browsers strangers; False where it is gone."""
        with self.database.writing() as connection:
            _end_sessions(connection, account_id)
            return _changed(connection, account_id, device_key=device_key)

    def delete(self, account_id: str, *, old_hash: str | None = None) -> Deleted | None:
        """Remove an account and all that belongs to it.

        Args:
            account_id: whose runs, votes, sessions and invitations go too.
            old_hash: what was checked; None where no password was asked for.

        Returns:
            What went; None where the account is gone or its password was changed meanwhile.
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
        """Write a session, and remove those of anybody that have expired.

        Args:
            session: begins at its ``created_at``.
            password_hash: the one that the person's password was checked against.
            seen_after: sessions that were last seen at this time or before have expired.

        Returns:
            False where the account was deleted, disabled, or given another password meanwhile.
        """
        now = session.created_at
        expired = or_(sessions.c.expires_at <= now, sessions.c.seen_at <= seen_after)
        with self.database.writing() as connection:
            connection.execute(sessions.delete().where(expired))
            begun = connection.execute(
                update(accounts)
                .where(accounts.c.id == session.account)
                .where(accounts.c.password_hash == password_hash)
                .where(accounts.c.disabled.is_(False))
                .values(signed_in_at=now)
            )
            if begun.rowcount == 0:
                return False
            connection.execute(sessions.insert().values(_row(session)))
            return True

    def session(self, token_hash: str) -> tuple[Session, Account] | None:
        """The session of a token and whose it is, expired or not; None where there is none."""
        mine = [column.label(f"account_{column.name}") for column in accounts.c]
        statement = (
            select(sessions, *mine)
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
        """Sessions of an account that have not expired, the one seen last first."""
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
        """Those of the hashes that are of sessions which hold, of accounts that may sign in."""
        hashes, found = list(token_hashes), set[str]()
        with self.database.reading() as connection:
            for start in range(0, len(hashes), _HASHES_AT_ONCE):
                statement = (
                    select(sessions.c.token_hash)
                    .join(accounts, accounts.c.id == sessions.c.account)
                    .where(sessions.c.token_hash.in_(hashes[start : start + _HASHES_AT_ONCE]))
                    .where(sessions.c.expires_at > now, sessions.c.seen_at > seen_after)
                    .where(accounts.c.disabled.is_(False))
                )
                found.update(connection.execute(statement).scalars())
        return found

    def see_session(self, session_id: str, now: datetime) -> bool:
        """Note that a session is in use; False where it has ended."""
        statement = update(sessions).where(sessions.c.id == session_id).values(seen_at=now)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def end_session(self, token_hash: str) -> bool:
        """End the session of a token; False where there is none."""
        statement = sessions.delete().where(sessions.c.token_hash == token_hash)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def end_listed_session(self, account_id: str, session_id: str) -> bool:
        """End one session of this account; False where it has none of this id."""
        statement = (
            sessions.delete()
            .where(sessions.c.account == account_id)
            .where(sessions.c.id == session_id)
        )
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    # Invitations

    def invite(self, invitation: Invitation) -> None:
        """Write an invitation."""
        with self.database.writing() as connection:
            connection.execute(invitations.insert().values(_row(invitation)))

    def invitation_holds(self, code_hash: str, now: datetime) -> bool:
        """Whether a code can be used now."""
        statement = (
            select(invitations.c.id)
            .where(invitations.c.code_hash == code_hash)
            .where(invitations.c.uses_left > 0, invitations.c.expires_at > now)
        )
        with self.database.reading() as connection:
            return connection.execute(statement).first() is not None

    def invitations(self, now: datetime) -> list[Invitation]:
        """Invitations that can still be used, the newest first."""
        statement = (
            select(invitations)
            .where(invitations.c.uses_left > 0, invitations.c.expires_at > now)
            .order_by(invitations.c.created_at.desc(), invitations.c.id)
        )
        with self.database.reading() as connection:
            return [_of(Invitation, row) for row in connection.execute(statement).mappings()]

    def withdraw_invitation(self, invitation_id: str) -> bool:
        """Remove an invitation; False where there is none of this id."""
        statement = invitations.delete().where(invitations.c.id == invitation_id)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    # Settings of people

    def preferences(self, account_id: str) -> dict[str, str]:
        """What a person last set the pages to; empty where they never did."""
        statement = select(preferences.c.choices).where(preferences.c.account == account_id)
        with self.database.reading() as connection:
            found = connection.execute(statement).scalar()
        return {str(name): str(value) for name, value in (found or {}).items()}

    def keep_preferences(self, account_id: str, choices: Mapping[str, str], now: datetime) -> bool:
        """Write them in the place of earlier ones; False where the account is gone."""
        row = {"choices": dict(choices), "saved_at": now}
        mine = preferences.c.account == account_id
        with self.database.writing() as connection:
            if connection.execute(update(preferences).where(mine).values(row)).rowcount:
                return True
            there = select(accounts.c.id).where(accounts.c.id == account_id)
            if connection.execute(there).first() is None:
                return False
            connection.execute(preferences.insert().values(row | {"account": account_id}))
            return True

    # What these are made of

    def _added(self, account: Account, first: Callable[[Connection], bool]) -> bool:
        """Write an account unless ``first``, in the same transaction, or its name forbid it."""
        try:
            with self.database.writing() as connection:
                if _taken(connection, account.key, account.look) or not first(connection):
                    return False
                connection.execute(accounts.insert().values(_row(account)))
        except RecordsError as error:  # another server wrote the name between look and insert
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


def _take_a_use(connection: Connection, code_hash: str, now: datetime) -> bool:
    statement = (
        update(invitations)
        .where(invitations.c.code_hash == code_hash)
        .where(invitations.c.uses_left > 0, invitations.c.expires_at > now)
        .values(uses_left=invitations.c.uses_left - 1)
    )
    return connection.execute(statement).rowcount > 0


def check_owner(connection: Connection, owner: str) -> None:
    """Look, within the transaction that writes a row, whether whose it is to be is still there.

    Whoever deletes an account deletes all that is theirs, and an answer of theirs that waits in a
    line or streams meanwhile must not bring anything back.

    Raises:
        RecordsError: there is no such account.
    """
    found = select(accounts.c.id).where(accounts.c.id == owner).with_for_update(read=True)
    if owner != GUEST and connection.execute(found).first() is None:
        raise RecordsError("This account was deleted, and nothing is kept for it any more.")


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
