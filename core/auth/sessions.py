"""Sessions: what makes a browser that of a person who signed in.

The token is 256 random bits and the browser alone has it: what is stored is its SHA-256, so that a
copy of the database signs nobody in. A session ends when it was not used for a while, when it is
old, when the person signs out, and with every change of the password.
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

SEEN_EVERY = timedelta(minutes=1)
"""How often it is noted that a session is in use, at most: a page is run many times a minute, and
each note is a write."""
_SEEN_SHARE = 10
"""Of the idle time: a short one is kept to a tenth."""
AGENT_LIMIT = 200
"""Characters kept of what a browser calls itself: the telling ones come first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Visit:
    """A session that holds, and whose it is."""

    session: Session
    account: Account


@dataclass(frozen=True)
class NewSession:
    """A session that has begun."""

    token: str = field(repr=False)
    """For the browser's cookie; it is stored nowhere else."""
    session: Session


class Sessions:
    """Begins, finds and ends sessions; threads share it."""

    def __init__(
        self, store: AccountStore, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._clock = clock
        self._idle = timedelta(hours=settings.session_idle_h)
        self._longest = timedelta(hours=settings.session_max_h)
        self._seen_every = min(SEEN_EVERY, self._idle / _SEEN_SHARE)

    def begin(self, account: Account, agent: str = "") -> NewSession | None:
        """Begin a session of an account whose password was checked a moment ago.

        Returns:
            None where the account was deleted, disabled or given another password meanwhile.

        Raises:
            RecordsError: the database failed.
        """
        token, now = new_token(), self._clock()
        session = Session(
            token_hash=token_hash(token) or "",
            account=account.id,
            created_at=now,
            seen_at=now,
            expires_at=now + self._longest,
            agent=" ".join(agent[: 2 * AGENT_LIMIT].split())[:AGENT_LIMIT],
        )
        begun = self._store.begin_session(session, account.password_hash, now - self._idle)
        return NewSession(token, session) if begun else None

    def find(self, token: str | None) -> Visit | None:
        """Whose session this is; None where the token is none's, or its session has ended.

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

    def holding(self, tokens: Collection[str]) -> set[str]:
        """Those of the tokens whose sessions hold; their use is not noted.

        Raises:
            RecordsError: the database could not be read.
        """
        hashes = {hashed: token for token in tokens if (hashed := token_hash(token))}
        now = self._clock()
        live = self._store.live_sessions(hashes.keys(), now, now - self._idle)
        return {hashes[each] for each in live}

    def end(self, token: str | None) -> bool:
        """Sign out; False where the token is no session's.

        Raises:
            RecordsError: the database failed.
        """
        hashed = token_hash(token or "")
        return bool(hashed) and self._store.end_session(hashed)

    def listing(self, account_id: str) -> list[Session]:
        """Sessions of an account that hold, the one seen last first.

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
    def longest(self) -> timedelta:
        """Time after which a session ends whatever happens."""
        return self._longest

    def _note_use(self, session: Session, now: datetime) -> None:
        if now - session.seen_at < self._seen_every:
            return
        try:
            self._store.touch_session(session.id, now)
        except RecordsError as error:  # a busy database signs nobody out
            logger.warning("It could not be noted that a session is in use: %s", error)
