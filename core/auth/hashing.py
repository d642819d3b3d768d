"""Password hashing with argon2id, with limited concurrency and equal work for unknown names."""

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

TIMEOUT_S = 30.0
"""Seconds that a sign-in waits for other hashings; 200 sign-ins a minute on two cores wait for a
few seconds."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """Parameters of argon2id."""

    time_cost: int
    """Passes over the memory."""
    memory_kib: int
    parallelism: int
    """Lanes, each of which can run in a thread."""

    def exceeds(self, other: Cost) -> bool:
        """Whether any parameter is greater than the other's."""
        return (
            self.time_cost > other.time_cost
            or self.memory_kib > other.memory_kib
            or self.parallelism > other.parallelism
        )


RFC_9106_LOW_MEMORY = Cost(time_cost=3, memory_kib=64 * 1024, parallelism=4)
"""The second recommended option of RFC 9106 §4, for systems without 2 GiB of memory per hashing;
exceeds OWASP's Password Storage Cheat Sheet. Takes about 0.17 s on one core."""

HASH_BYTES, SALT_BYTES = 32, 16
"""RFC 9106 §4: 256-bit tag, 128-bit salt."""


class Hasher:
    """Hashes and verifies passwords with limited concurrency; shared by threads."""

    def __init__(
        self,
        cost: Cost = RFC_9106_LOW_MEMORY,
        *,
        max_concurrent: int = 2,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """
        Args:
            cost: parameters of new hashes.
            max_concurrent: concurrent hashings, each of which takes ``cost.memory_kib``.
            timeout_s: how long further ones wait.
        """
        self.cost = cost
        self._argon2 = argon2.PasswordHasher(
            time_cost=cost.time_cost,
            memory_cost=cost.memory_kib,
            parallelism=cost.parallelism,
            hash_len=HASH_BYTES,
            salt_len=SALT_BYTES,
        )
        self._dummy_hash = _dummy_hash(cost)
        self._semaphore = threading.BoundedSemaphore(max_concurrent)
        self._timeout_s = timeout_s

    def hash(self, password: str) -> str:
        """Return the hash of a password, with its parameters and a new salt.

        Raises:
            AccountInputError: the password has characters that are not allowed.
            TooBusyError: too many passwords are being hashed.
            NotEnoughMemoryError: there is not enough memory.
        """
        text = prepared(password)
        with self._slot():
            try:
                return self._argon2.hash(text)
            except HashingError as error:
                raise _no_memory(self.cost) from error

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password matches the hash; hashes exactly once in every case.

        Args:
            password_hash: the hash, or None for an unknown name: takes the same work as for an
                incorrect password.
            password: the password as entered; one that is not allowed is incorrect.

        Raises:
            TooBusyError: too many passwords are being hashed.
            NotEnoughMemoryError: there is not enough memory.
        """
        text, allowed = _prepared_or_empty(password)
        if password_hash is not None and _cost_of(password_hash) is None:
            logger.error(
                "A password hash in the database is damaged. Its account cannot sign in until an "
                "administrator sets a new password."
            )
            password_hash = None
        with self._slot():
            try:
                self._argon2.verify(password_hash or self._dummy_hash, text)
            except VerifyMismatchError:
                return False
            except VerificationError as error:
                raise _no_memory(self.cost) from error
        return allowed and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Whether a hash has weaker parameters than new hashes."""
        cost = _cost_of(password_hash)
        return cost is None or self.cost.exceeds(cost)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._semaphore.acquire(timeout=self._timeout_s):
            raise TooBusyError(
                "Too many users are signing in at the moment. Try again in a minute."
            )
        try:
            yield
        finally:
            self._semaphore.release()


_HASH = re.compile(
    rf"\$argon2id\$v={ARGON2_VERSION}\$m=(\d{{1,9}}),t=(\d{{1,9}}),p=(\d{{1,9}})"
    r"\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)


def _prepared_or_empty(password: str) -> tuple[str, bool]:
    """Return the text to hash, and whether the password is allowed at all."""
    try:
        text = prepared(password)
    except AccountInputError:
        return "", False
    return text, bool(text)


def _dummy_hash(cost: Cost) -> str:
    """Return a random hash with these parameters that no password matches."""
    salt, tag = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (SALT_BYTES, HASH_BYTES)
    )
    work = f"m={cost.memory_kib},t={cost.time_cost},p={cost.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${work}${salt}${tag}"


def _cost_of(password_hash: str) -> Cost | None:
    """Return the parameters of a hash, or None if it is not a valid argon2id hash."""
    found = _HASH.fullmatch(password_hash)
    if found is None:
        return None
    memory_kib, time_cost, parallelism, salt, tag = found.groups()
    if not (_decodes(salt, 8) and _decodes(tag, HASH_BYTES)):
        return None
    return Cost(int(time_cost), int(memory_kib), int(parallelism))


def _decodes(text: str, at_least: int) -> bool:
    """Whether the text is unpadded base64 of at least this many bytes."""
    try:
        return len(base64.b64decode(text + "=" * (-len(text) % 4), validate=True)) >= at_least
    except binascii.Error:
        return False


def _no_memory(cost: Cost) -> NotEnoughMemoryError:
    return NotEnoughMemoryError(
        f"Checking a password takes {cost.memory_kib * 1024 / 1e6:.0f} MB of memory, which is not "
        "free. Unload a model and try again."
    )
