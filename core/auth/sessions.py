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


class Sessions:
    """Begins, finds and ends sessions; shared by threads.

    Every method raises :class:`core.errors.RecordsError` if the database fails.
    """

    def __init__(
        self, store: AccountStore, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._clock = clock
        self.idle = timedelta(hours=settings.session_idle_h)
        """Time without use after which a session ends."""
        self._max_age = timedelta(hours=settings.session_max_h)
        self._seen_interval = min(SEEN_INTERVAL, self.idle / _SEEN_SHARE)

    def begin(self, account: Account, agent: str) -> tuple[str, Session] | None:
        """Begin a session of an account whose password was just checked.

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
        begun = self._store.begin_session(session, account.password_hash, now - self.idle)
        return (token, session) if begun else None

    def find(self, token: str | None) -> Visit | None:
        """Return the session of a token and its account, or None if it is not valid."""
        hashed = token_hash(token or "")
        found = self._store.session(hashed) if hashed else None
        if found is None:
            return None
        session, account = found
        now = self._clock()
        expired = session.expires_at <= now or session.seen_at <= now - self.idle
        if expired or account.disabled:
            return None
        if now - session.seen_at >= self._seen_interval:
            try:
                self._store.touch_session(session.id, now)
            except RecordsError as error:  # a busy database must not sign users out
                logger.warning("The last use of a session could not be recorded: %s", error)
        return Visit(session, account)

    def valid_tokens(self, tokens: Collection[str]) -> set[str]:
        """Return the tokens whose sessions are valid, without updating their last use."""
        hashes = {hashed: token for token in tokens if (hashed := token_hash(token))}
        now = self._clock()
        live = self._store.live_sessions(hashes.keys(), now, now - self.idle)
        return {hashes[each] for each in live}

    def end(self, token: str | None) -> bool:
        """End the session of a token; return False if there is none."""
        hashed = token_hash(token or "")
        return bool(hashed) and self._store.end_session(hashed)

    def listing(self, account_id: str) -> list[Session]:
        """Return the valid sessions of an account, the one used last first."""
        now = self._clock()
        return self._store.sessions(account_id, now, now - self.idle)
