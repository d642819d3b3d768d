"""A rolling limit of failed attempts that stops guessing and does not lock the owner out.

Each attempt is counted before the password is looked at and forgiven if it was right: so many
that run at once cannot slip past the limit together. One address may fail so often, and one name
may be failed so often from anywhere. A browser in which the account was signed in before has a
count of its own instead of these two: however much a stranger fails, on the same address too, the
owner gets in (OWASP, "Slow Down Online Guessing Attacks with Device Cookies").

The counts are kept in memory. One server process holds the models and answers everybody, so that
nothing is shared with another; looking and counting are one step under a lock, the same whatever
the database is; and a guesser can make neither the database grow nor its only writer wait. What it
costs: a restart forgets the last quarter of an hour, which a guesser cannot bring about.
"""

from __future__ import annotations

import ipaddress
import itertools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.errors import TooManyAttemptsError

MOST_BUCKETS = 100_000
"""Addresses, names and browsers remembered: some tens of MB. Beyond that the one that was quiet
for longest is forgotten, so that a flood of addresses cannot fill the memory."""

_IPV6_SITE = 64
"""Prefix length of an IPv6 network at one site (RFC 6177): whoever has one address has them all."""


class Kind(StrEnum):
    """What failures are counted by."""

    ADDRESS = "address"
    ACCOUNT = "account"
    DEVICE = "device"
    OWNER = "owner"
    """Somebody who is signed in and is asked for the password once more."""
    REGISTRATION = "registration"


@dataclass(frozen=True)
class Bucket:
    """One thing by which failures are counted, and how many there may be."""

    kind: Kind
    key: str
    limit: int


@dataclass(frozen=True)
class Attempt:
    """An attempt that was counted; :meth:`Attempts.forgive` takes it back."""

    at: float
    serial: int
    """Tells it from others of the same instant."""
    buckets: tuple[Bucket, ...]


_Times = deque[tuple[float, int]]
"""When attempts were, and their serial numbers; the oldest first."""


class Attempts:
    """Failures of the latest while, of everybody; threads share it."""

    def __init__(
        self,
        window_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_buckets: int = MOST_BUCKETS,
    ) -> None:
        """
        Args:
            window_s: seconds for which a failure counts.
            clock: seconds, from any beginning.
            most_buckets: how many are remembered.
        """
        self._window_s = window_s
        self._clock = clock
        self._most = most_buckets
        self._times: OrderedDict[tuple[Kind, str], _Times] = OrderedDict()
        self._serial = itertools.count()
        self._turn = threading.Lock()

    def begin(self, buckets: Sequence[Bucket]) -> Attempt:
        """Count an attempt as failed, until it is forgiven.

        Raises:
            TooManyAttemptsError: one of the limits is reached; nothing was counted.
        """
        with self._turn:
            now = self._clock()
            waits = [self._wait_s(bucket, now) for bucket in buckets]
            if max(waits, default=0.0) > 0:
                raise TooManyAttemptsError(_sentence(max(waits)))
            attempt = Attempt(now, next(self._serial), tuple(buckets))
            for bucket in buckets:
                times = self._times.setdefault((bucket.kind, bucket.key), deque())
                times.append((now, attempt.serial))
                self._times.move_to_end((bucket.kind, bucket.key))
            while len(self._times) > self._most:
                self._times.popitem(last=False)
            return attempt

    def forgive(self, attempt: Attempt) -> None:
        """Take one attempt back: it succeeded, or was not the person's fault.

        Others stay: signing in to one's own account does not buy more guesses at another.
        """
        with self._turn:
            for bucket in attempt.buckets:
                times = self._times.get((bucket.kind, bucket.key))
                if times and (attempt.at, attempt.serial) in times:
                    times.remove((attempt.at, attempt.serial))
                if not times:
                    self._times.pop((bucket.kind, bucket.key), None)

    def failures(self, bucket: Bucket) -> int:
        """Attempts that count now, those under way included."""
        with self._turn:
            return len(self._pruned(bucket, self._clock()))

    def _pruned(self, bucket: Bucket, now: float) -> _Times:
        times = self._times.get((bucket.kind, bucket.key), deque())
        while times and times[0][0] <= now - self._window_s:
            times.popleft()
        return times

    def _wait_s(self, bucket: Bucket, now: float) -> float:
        """Seconds until the bucket has room; 0 where it has."""
        times = self._pruned(bucket, now)
        if len(times) < bucket.limit:
            return 0.0
        return max(times[-bucket.limit][0] + self._window_s - now, 0.001)


def address_key(address: str | None) -> str:
    """What failures from an address are counted by: IPv6 by its /64, IPv4 inside IPv6 as IPv4."""
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
        "There were too many failed attempts; wait "
        f"{'a minute' if minutes == 1 else f'{minutes} minutes'} and try again."
    )
