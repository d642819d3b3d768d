"""Sessions of signed-in browsers.

The token is 256 random bits, of which only the SHA-256 is stored, so that a copy of the database
does not allow anybody to sign in. A session ends when it is idle for too long, at its maximum age,
at sign-out, and when the password changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.auth.tokens import new_token, token_hash
from core.db import Account, AccountStore, Session
from core.errors import RecordsError
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


@dataclass(frozen=True)
class NewSession:
    """A new session."""

    token: str = field(repr=False)
    """Token for the browser's cookie; it is not stored."""
    session: Session


class Sessions:
    """Begins, finds and ends sessions; shared by threads."""

    def __init__(
        self, store: AccountStore, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._clock = clock
        self._idle = timedelta(hours=settings.session_idle_h)
        self._max_age = timedelta(hours=settings.session_max_h)
        self._seen_interval = min(SEEN_INTERVAL, self._idle / _SEEN_SHARE)

    def begin(self, account: Account, agent: str = "") -> NewSession | None:
        """Begin a session of an account whose password was just checked.

        Returns:
            The session, or None if the account was deleted, disabled or given another password
            meanwhile.

        Raises:
            RecordsError: the database failed.
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
        begun = self._store.begin_session(session, account.password_hash, now - self._idle)
        return NewSession(token, session) if begun else None

    def find(self, token: str | None) -> Visit | None:
        """Return the session of a token and its account, or None if it is not valid.

        Raises:
            RecordsError: the database could not be read.
        """
        hashed = token_hash(token or "")
        found = self._store.session(hashed) if hashed else None
        if found is None:
            return None
        session, account = found
        now = self._clock()
        expired = session.expires_at <= now or session.seen_at <= now - self._idle
        if expired or account.disabled:
            return None
        self._note_use(session, now)
        return Visit(session, account)

    def valid_tokens(self, tokens: Collection[str]) -> set[str]:
        """Return the tokens whose sessions are valid, without updating their last use.

        Raises:
            RecordsError: the database could not be read.
        """
        hashes = {hashed: token for token in tokens if (hashed := token_hash(token))}
        now = self._clock()
        live = self._store.live_sessions(hashes.keys(), now, now - self._idle)
        return {hashes[each] for each in live}

    def end(self, token: str | None) -> bool:
        """End the session of a token; return False if there is none.

        Raises:
            RecordsError: the database failed.
        """
        hashed = token_hash(token or "")
        return bool(hashed) and self._store.end_session(hashed)

    def listing(self, account_id: str) -> list[Session]:
        """Return the valid sessions of an account, the one used last first.

        Raises:
            RecordsError: the database could not be read.
        """
        now = self._clock()
        return self._store.sessions(account_id, now, now - self._idle)

    @property
    def idle(self) -> timedelta:
        """Time without use after which a session ends."""
        return self._idle

    @property
    def max_age(self) -> timedelta:
        """Time after which a session ends in any case."""
        return self._max_age

    def _note_use(self, session: Session, now: datetime) -> None:
        if now - session.seen_at < self._seen_interval:
            return
        try:
            self._store.touch_session(session.id, now)
        except RecordsError as error:  # a busy database must not sign users out
            logger.warning("The last use of a session could not be recorded: %s", error)
