"""Accounts with cheap hashing, a manual clock, and hostile texts."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import argon2
from hypothesis import strategies as st

from core.auth import Accounts, Client
from core.auth.administration import Administration
from core.auth.hashing import Hasher
from core.auth.rate_limit import Attempts
from core.auth.sessions import Visit
from core.db import AccountStore
from core.settings import Settings

CHEAP = replace(argon2.profiles.RFC_9106_LOW_MEMORY, time_cost=1, memory_cost=8, parallelism=1)
GOOD = "kettle-marsh-violin"
OTHER = "forty damp umbrellas"
HERE = Client(address="192.0.2.7", agent="Browser 1.0")

HOSTILE = (
    "' OR '1'='1",
    "admin'--",
    "'; DROP TABLE accounts; --",
    '" OR ""="',
    "1 UNION SELECT password_hash FROM accounts",
    "name) VALUES ('x'",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "javascript:alert(1)",
    "&lt;b&gt;",
    "{{7*7}}",
    "${jndi:ldap://x/y}",
    "%3Cscript%3E",
    "[link](javascript:alert(1))",
    "../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/shadow",
    "C:\\boot.ini",
    "file:///etc/passwd",
    "%2e%2e%2f",
    "....//....//",
    "~root",
    "a/b",
    "a\\b",
    "$(id)",
    "`id`",
    "a;id",
    "a|id",
    "a&&id",
    "--help",
    "a\x00b",
    "a\r\nSet-Cookie: x=y",
    "a\nb",
    "a\tb",
    "\x1b[31mred",
    "\ud800",
    "a\udfffb",
    "\u202egnp.exe",
    "a\u200bb",
    "a\u200db",
    "a\u00adb",
    "\ufeffabc",
    "a\u2028b",
    "\u3164\u3164",
    "a\u034fb",
    "a\ufe0fb",
    "\u115f\u1160",
    "\U000e0041\U000e0042",
    "раураl-а",
    "pаddock",
    "Z" + "\u0335\u0321\u0322" * 20,
    "\ufdfa" * 9,
    "\ufdfa" * 100_000,
    "😀😀",
    "١" * 40,
    "𝓪𝓭 𝓶𝓲𝓷",
    "ᴀᴅᴍɪɴ",
    "A" * 1_000_000,
    "",
    " ",
    "\u00a0",
    ".",
    "..",
    "-",
    "_",
    "a..b",
    "a.",
    ".a",
)

_PIECES = st.one_of(
    st.sampled_from(HOSTILE).filter(lambda text: len(text) < 100),
    st.text(max_size=8),
    st.text(alphabet="abcXYZ019._- '\"<>/\\%\x00\u202e\u200b\u0301é\u0130ßαа中", max_size=8),
)
hostile_texts = st.lists(_PIECES, min_size=1, max_size=4).map("".join)
"""Random texts combined with parts of attacks."""


class Clock:
    """A clock that is set manually."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        """The time in seconds."""
        return self.now.timestamp()

    def forward(self, **time: float) -> None:
        """Advance the time."""
        self.now += timedelta(**time)


class CountingHasher(Hasher):
    """Counts the calls of argon2."""

    def __init__(self, parameters: argon2.Parameters = CHEAP, **options: Any) -> None:
        super().__init__(parameters, **options)
        self.hashings = 0
        self._count = threading.Lock()
        self._argon2 = _Spy(self._argon2, self._hashed)

    def _hashed(self) -> None:
        with self._count:
            self.hashings += 1


class _Spy:
    def __init__(self, real: Any, hashed: Any) -> None:
        self._real, self._hashed = real, hashed
        self.check_needs_rehash = real.check_needs_rehash

    def hash(self, *arguments: Any) -> str:
        self._hashed()
        return self._real.hash(*arguments)

    def verify(self, *arguments: Any) -> bool:
        self._hashed()
        return self._real.verify(*arguments)


@cache
def _migrated() -> Path:
    """An empty database at the newest revision; copying is faster than creating it."""
    _kept.append(TemporaryDirectory())
    home = Path(_kept[-1].name)
    AccountStore.open(Settings(home=home)).close()
    return home / "paddock.db"


_kept: list[TemporaryDirectory[str]] = []
"""Removed when the process ends."""


class World:
    """Accounts in a new database, with their store, hasher and clock."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.settings = Settings(home=home, **({"registration": "open"} | settings))
        self.clock = Clock()
        self.hasher = CountingHasher()
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(_migrated(), home / "paddock.db")
        self.store = AccountStore.open(self.settings)
        self.attempts = Attempts(self.settings.failure_window_s, clock=self.clock.seconds)
        self.accounts = self.started()

    def started(self) -> Accounts:
        """The accounts as after a restart of the server, but with the counted attempts."""
        return Accounts(
            self.store,
            self.settings,
            hasher=self.hasher,
            attempts=self.attempts,
            clock=self.clock,
        )

    @property
    def others(self) -> Administration:
        """The administration of accounts."""
        return self.accounts.administration

    def visit(self, token: str | None) -> Visit | None:
        """The session of a token, or None."""
        return self.accounts.sessions.visit(token)

    def impatient(self) -> Accounts:
        """The accounts with a short timeout for locked databases."""
        self.store.close()
        self.store = AccountStore.open(self.settings, patience_s=0.02)
        return self.started()

    def administrator(self, name: str = "boss") -> str:
        """Create an administrator and return its id."""
        return self.accounts.make_administrator(name, GOOD).id
