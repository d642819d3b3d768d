"""How passwords are hashed: argon2id, so many at once, and as much work for a name nobody has."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import argon2
from argon2.exceptions import (
    HashingError,
    VerificationError,
    VerifyMismatchError,
)
from argon2.low_level import ARGON2_VERSION

from core.auth.passwords import prepared
from core.errors import AccountInputError, NotEnoughMemoryError, TooBusyError

PATIENCE_S = 30.0
"""Seconds that a person waits for a turn: two hundred sign-ins a minute on two cores need a few."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """How much work one hashing is."""

    time_cost: int
    """Passes over the memory."""
    memory_kib: int
    parallelism: int
    """Lanes, each of which may run in a thread."""

    def exceeds(self, other: Cost) -> bool:
        """Whether any of it is more than the other's."""
        return (
            self.time_cost > other.time_cost
            or self.memory_kib > other.memory_kib
            or self.parallelism > other.parallelism
        )


RFC_9106_LOW_MEMORY = Cost(time_cost=3, memory_kib=64 * 1024, parallelism=4)
"""RFC 9106 §4, the second recommended option, for where 2 GiB a hashing are not to be had; more
than OWASP's Password Storage Cheat Sheet asks for. About 0.17 s of a core."""

HASH_BYTES, SALT_BYTES = 32, 16
"""RFC 9106 §4: 256-bit tag, 128-bit salt."""


class Hasher:
    """Hashes and checks passwords, so many at once and no more; threads share it."""

    def __init__(
        self,
        cost: Cost = RFC_9106_LOW_MEMORY,
        *,
        at_once: int = 2,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """
        Args:
            cost: of new hashes.
            at_once: hashings that may run at the same time, each with ``cost.memory_kib``.
            patience_s: how long one more waits for its turn.
        """
        self.cost = cost
        self._argon2 = argon2.PasswordHasher(
            time_cost=cost.time_cost,
            memory_cost=cost.memory_kib,
            parallelism=cost.parallelism,
            hash_len=HASH_BYTES,
            salt_len=SALT_BYTES,
        )
        self._nobodys = _nobodys_hash(cost)
        self._turns = threading.BoundedSemaphore(at_once)
        self._patience_s = patience_s

    def hash(self, password: str) -> str:
        """The hash of a password, with its parameters and a salt of its own.

        Raises:
            AccountInputError: it cannot be a password.
            TooBusyError: too many others are being hashed.
            NotEnoughMemoryError: there is not the memory for it.
        """
        text = prepared(password)
        with self._turn():
            try:
                return self._argon2.hash(text)
            except HashingError as error:
                raise _no_memory(self.cost) from error

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is the one of this hash; one hashing, whatever comes of it.

        Args:
            password_hash: None where the name is unknown: as much work as for a wrong password.
            password: as the person typed it; one that nobody can have is a wrong one.

        Raises:
            TooBusyError: too many others are being hashed.
            NotEnoughMemoryError: there is not the memory for it.
        """
        text, possible = _guess(password)
        if password_hash is not None and _cost_of(password_hash) is None:
            logger.error("A password's hash in the database is damaged; nobody can sign in by it.")
            password_hash = None
        with self._turn():
            try:
                self._argon2.verify(password_hash or self._nobodys, text)
            except VerifyMismatchError:
                return False
            except VerificationError as error:
                raise _no_memory(self.cost) from error
        return possible and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Whether a hash was made with less work than a new one takes."""
        cost = _cost_of(password_hash)
        return cost is None or self.cost.exceeds(cost)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=self._patience_s):
            raise TooBusyError("Too many people are signing in just now; try again in a minute.")
        try:
            yield
        finally:
            self._turns.release()


_HASH = re.compile(
    rf"\$argon2id\$v={ARGON2_VERSION}\$m=(\d{{1,9}}),t=(\d{{1,9}}),p=(\d{{1,9}})"
    r"\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)


def _guess(password: str) -> tuple[str, bool]:
    """What is hashed to check a password, and whether any account can have it."""
    try:
        text = prepared(password)
    except AccountInputError:
        return "", False
    return text, bool(text)


def _nobodys_hash(cost: Cost) -> str:
    """A hash of these parameters that no password has, made without hashing."""
    salt, tag = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (SALT_BYTES, HASH_BYTES)
    )
    work = f"m={cost.memory_kib},t={cost.time_cost},p={cost.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${work}${salt}${tag}"


def _cost_of(password_hash: str) -> Cost | None:
    """The work that went into a hash; None where it is no whole hash of argon2id."""
    found = _HASH.fullmatch(password_hash)
    if found is None:
        return None
    memory_kib, time_cost, parallelism, salt, tag = found.groups()
    if not (_decodes(salt, 8) and _decodes(tag, HASH_BYTES)):
        return None
    return Cost(int(time_cost), int(memory_kib), int(parallelism))


def _decodes(text: str, at_least: int) -> bool:
    """Whether it is base64 without padding of so many bytes."""
    try:
        return len(base64.b64decode(text + "=" * (-len(text) % 4), validate=True)) >= at_least
    except binascii.Error:
        return False


def _no_memory(cost: Cost) -> NotEnoughMemoryError:
    return NotEnoughMemoryError(
        f"Checking a password takes {cost.memory_kib // 1024} MiB of memory, which are not free; "
        "unload a model and try again."
    )
