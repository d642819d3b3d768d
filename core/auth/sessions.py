"""Sessions of signed-in browsers.

The token is 256 random bits, of which only the SHA-256 is stored, so that a copy of the database
does not allow anybody to sign in. A session ends when it is idle for too long, at its maximum age,
at sign-out, and when the password changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update

from core.auth.tokens import new_token, token_hash
from core.db import Account, AccountStore, Session
from core.db.rows import to_row
from core.db.tables import accounts, sessions
from core.errors import AccessDeniedError, RecordsError, UnknownAccountError
from core.settings import Settings

SEEN_INTERVAL = timedelta(minutes=1)
"""Minimum time between updates of a session's last use, because a page runs many times a minute
and each update is a database write."""
_SEEN_SHARE = 10
"""With a short idle time, the interval is a tenth of it."""
AGENT_LIMIT = 200
"""Characters kept of the ``User-Agent``, whose beginning identifies the browser."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Visit:
    """A valid session and its account."""

    session: Session
    account: Account


class Sessions:
    """Begins, finds and ends sessions; shared by threads.

    Every method raises :class:`core.errors.RecordsError` if the database fails.
    """

    def __init__(
        self, store: AccountStore, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._database = store.database
        self._clock = clock
        self._idle = timedelta(hours=settings.session_idle_h)
        self._max_age = timedelta(hours=settings.session_max_h)
        self._seen_interval = min(SEEN_INTERVAL, self._idle / _SEEN_SHARE)

    def begin(self, account: Account, agent: str) -> tuple[str, Session] | None:
        """Begin a session of an account whose password was just checked; delete expired sessions.

        Returns:
            The token for the browser's cookie, which is not stored, and the session; None if the
            account was deleted, disabled or given another password meanwhile.
        """
        token, now = new_token(), self._clock()
        session = Session(
            token_hash=token_hash(token) or "",
            account=account.id,
            created_at=now,
            seen_at=now,
            expires_at=now + self._max_age,
            agent=" ".join(agent[: 2 * AGENT_LIMIT].split())[:AGENT_LIMIT],
        )
        expired = or_(sessions.c.expires_at <= now, sessions.c.seen_at <= now - self._idle)
        checked = accounts.c.id == account.id, accounts.c.password_hash == account.password_hash
        signs_in = update(accounts).where(*checked, accounts.c.disabled.is_(False))
        with self._database.writing() as connection:
            connection.execute(sessions.delete().where(expired))
            if connection.execute(signs_in.values(signed_in_at=now)).rowcount == 0:
                return None
            connection.execute(sessions.insert().values(to_row(session)))
        return token, session

    def visit(self, token: str | None) -> Visit | None:
        """Return the session of a token and its account, or None if it is not valid."""
        hashed = token_hash(token or "")
        this = sessions.c.token_hash == hashed, self.unexpired()
        found = self._store.with_account(Session, sessions, *this) if hashed else None
        if found is None:
            return None
        session, account = found
        now = self._clock()
        if now - session.seen_at >= self._seen_interval:
            seen = update(sessions).where(sessions.c.id == session.id).values(seen_at=now)
            try:
                self._database.change(seen)
            except RecordsError as error:  # a busy database must not sign users out
                logger.warning("The last use of a session could not be recorded: %s", error)
        return Visit(session, account)

    def account(self, token: str) -> Account:
        """Return the account that is signed in.

        Raises:
            AccessDeniedError: the session is not valid.
        """
        visit = self.visit(token)
        if visit is None:
            raise AccessDeniedError("You are signed out. Sign in and try again.")
        return visit.account

    def valid_tokens(self, tokens: Collection[str]) -> set[str]:
        """Return the tokens whose sessions are valid, without counting this as a visit."""
        hashes = {hashed: token for token in tokens if (hashed := token_hash(token))}
        statement = (
            select(sessions.c.token_hash)
            .join(accounts, accounts.c.id == sessions.c.account)
            .where(sessions.c.token_hash.in_(list(hashes)), self.unexpired())
            .where(accounts.c.disabled.is_(False))
        )
        return {hashes[row["token_hash"]] for row in self._database.rows(statement)}

    def listing(self, token: str) -> list[Session]:
        """Return the valid sessions of the token's account, the one used last first.

        Raises:
            AccessDeniedError: the token is not valid.
        """
        statement = (
            select(sessions)
            .where(sessions.c.account == self.account(token).id, self.unexpired())
            .order_by(sessions.c.seen_at.desc(), sessions.c.id)
        )
        return self._database.all(Session, statement)

    def end(self, token: str | None) -> bool:
        """End the session of a token; return False if there is none."""
        hashed = token_hash(token or "")
        return hashed is not None and self._delete(sessions.c.token_hash == hashed)

    def end_other(self, token: str, session_id: str) -> None:
        """End a session of the token's account.

        Raises:
            AccessDeniedError: the token is not valid.
            UnknownAccountError: the account has no session with this id.
        """
        owner = sessions.c.account == self.account(token).id
        if not self._delete(owner, sessions.c.id == session_id):
            raise UnknownAccountError("This session has already ended. Reload the list.")

    def unexpired(self) -> ColumnElement[bool]:
        """Return the condition of sessions that have not expired."""
        now = self._clock()
        return and_(sessions.c.expires_at > now, sessions.c.seen_at > now - self._idle)

    def _delete(self, *which: Any) -> bool:
        return self._database.change(sessions.delete().where(*which)) > 0
