"""Limits failed attempts in a sliding window, without locking out the owner of an account.

Each attempt is counted before the password is checked and removed if it succeeds, so that
concurrent attempts cannot exceed the limit together. Failures are limited per address, and per name
from all addresses. A browser in which the account signed in before has its own limit instead: even
if somebody else fails often, from the same address too, the owner can sign in (OWASP, "Slow Down
Online Guessing Attacks with Device Cookies").

The counts are kept in memory. One server process serves everybody, so that nothing needs to be
shared; checking and counting is atomic under a lock, independent of the database; and an attacker
can neither fill the database nor block its only writer. The cost: a restart resets the counts of
the last 15 minutes, but an attacker cannot cause a restart.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.errors import TooManyAttemptsError

MAX_BUCKETS = 100_000
"""Addresses, names and browsers remembered, which takes some tens of MB. Beyond that the one
without attempts for the longest time is dropped, so that a flood of addresses cannot fill the
memory."""

_IPV6_SITE = 64
"""Prefix length of one site's IPv6 network (RFC 6177); a client can use all its addresses."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """A counted attempt; :meth:`Attempts.forgive` removes it."""

    at: float
    buckets: tuple[str, ...]


class Attempts:
    """Failed attempts within the window; shared by threads."""

    def __init__(
        self,
        window_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_buckets: int = MAX_BUCKETS,
    ) -> None:
        self._window_s = window_s
        self._clock = clock
        self._max_buckets = max_buckets
        self._counted: OrderedDict[str, deque[Attempt]] = OrderedDict()
        """Attempts by bucket, oldest first."""
        self._lock = threading.Lock()

    def begin(self, limits: Mapping[str, int]) -> Attempt:
        """Count an attempt as failed until it is forgiven.

        Args:
            limits: by bucket: what is counted and for whom, such as ``address 192.0.2.1``.

        Raises:
            TooManyAttemptsError: a limit is reached; the attempt was not counted.
        """
        with self._lock:
            now = self._clock()
            wait_s = max((self._wait_s(*each, now) for each in limits.items()), default=0.0)
            if wait_s > 0:
                raise TooManyAttemptsError(_sentence(wait_s))
            attempt = Attempt(now, tuple(limits))
            for bucket in limits:
                self._counted.setdefault(bucket, deque()).append(attempt)
                self._counted.move_to_end(bucket)
            while len(self._counted) > self._max_buckets:
                self._counted.popitem(last=False)
            return attempt

    def forgive(self, attempt: Attempt) -> None:
        """Remove one attempt, which succeeded or failed for another reason.

        Others remain, so that signing in to one's own account gives no further guesses at another.
        """
        with self._lock:
            for bucket in attempt.buckets:
                counted = self._counted.get(bucket, deque())
                if attempt in counted:
                    counted.remove(attempt)
                if not counted:
                    self._counted.pop(bucket, None)

    def _wait_s(self, bucket: str, limit: int, now: float) -> float:
        """Return the seconds until the bucket is below its limit, 0 if it is."""
        counted = self._counted.get(bucket, deque())
        while counted and counted[0].at <= now - self._window_s:
            counted.popleft()
        if len(counted) < limit:
            return 0.0
        return max(counted[-limit].at + self._window_s - now, 0.001)


def address_key(address: str | None) -> str:
    """Return the bucket key of an address: the /64 of IPv6, and IPv4-mapped addresses as IPv4."""
    if not address:
        return "unknown"
    try:
        parsed = ipaddress.ip_address(address.strip().partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_SITE), strict=False))


def _sentence(wait_s: float) -> str:
    minutes = int(wait_s // 60) + 1
    return (
        "Too many failed attempts. Wait "
        f"{'a minute' if minutes == 1 else f'{minutes} minutes'} and try again."
    )
