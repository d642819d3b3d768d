"""Password hashing with argon2id, with limited concurrency and equal work for unknown names."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import argon2
from argon2.exceptions import (
    HashingError,
    InvalidHashError,
    VerificationError,
    VerifyMismatchError,
)
from argon2.profiles import RFC_9106_LOW_MEMORY

from core.auth.passwords import prepared
from core.errors import AccountInputError, NotEnoughMemoryError, TooBusyError

TIMEOUT_S = 30.0
"""Seconds that a sign-in waits for other hashings; 200 sign-ins a minute on two cores wait for a
few seconds."""

logger = logging.getLogger(__name__)


class Hasher:
    """Hashes and verifies passwords with limited concurrency; shared by threads."""

    def __init__(
        self,
        parameters: argon2.Parameters = RFC_9106_LOW_MEMORY,
        *,
        max_concurrent: int = 2,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """
        Args:
            parameters: of new hashes. The default is RFC 9106's for systems without 2 GiB of memory
                per hashing, which exceeds OWASP's Password Storage Cheat Sheet; it takes about
                0.17 s on one core.
            max_concurrent: concurrent hashings, each of which takes ``memory_cost`` KiB.
            timeout_s: how long further ones wait.
        """
        self._parameters = parameters
        self._argon2 = argon2.PasswordHasher.from_parameters(parameters)
        self._dummy_hash = _dummy_hash(parameters)
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
                raise self._no_memory() from error

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password matches the hash.

        Args:
            password_hash: the hash, or None for an unknown name: takes the same work as for an
                incorrect password.
            password: the password as entered; one that is not allowed is hashed and incorrect.

        Raises:
            TooBusyError: too many passwords are being hashed.
            NotEnoughMemoryError: there is not enough memory.
        """
        try:
            text = prepared(password)
        except AccountInputError:
            text = ""
        with self._slot():
            try:
                self._argon2.verify(password_hash or self._dummy_hash, text)
            except VerifyMismatchError:
                return False
            except (VerificationError, InvalidHashError) as error:
                if any(text in str(error) for text in ("Memory allocation", "Threading")):
                    raise self._no_memory() from error
                logger.error(
                    "A password hash in the database is damaged. Its account cannot sign in until "
                    "an administrator sets a new password."
                )
                return False
        return bool(text) and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Whether a hash has other parameters than new hashes."""
        return self._argon2.check_needs_rehash(password_hash)

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

    def _no_memory(self) -> NotEnoughMemoryError:
        size = self._parameters.memory_cost * 1024 / 1e6
        return NotEnoughMemoryError(
            f"Checking a password takes {size:.0f} MB of memory, which is not free. Unload a model "
            "and try again."
        )


def _dummy_hash(parameters: argon2.Parameters) -> str:
    """Return a hash with these parameters that is verified for unknown names."""
    salt, tag = (
        base64.b64encode(bytes(size)).decode().rstrip("=")
        for size in (parameters.salt_len, parameters.hash_len)
    )
    work = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    return f"$argon2id$v={parameters.version}${work}${salt}${tag}"
