"""The sliding-window limit of failed attempts."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.auth.rate_limit import Attempts, address_key
from core.errors import TooManyAttemptsError
from tests.auth.samples import Clock
from tests.waiting import PATIENCE_S

LIMITS = {"address x": 3}


def attempts_of(clock: Clock, **options: int) -> Attempts:
    return Attempts(60, clock=clock.seconds, **options)


def failures(attempts: Attempts, bucket: str = "address x") -> int:
    return len(attempts._counted[bucket])


def test_failures_are_limited():
    attempts = attempts_of(Clock())
    for _ in range(3):
        attempts.begin(LIMITS)
    for _ in range(3):
        with pytest.raises(TooManyAttemptsError, match="Wait 2 minutes and try again"):
            attempts.begin(LIMITS)
    assert failures(attempts) == 3, "rejected attempts are not counted"


def test_window_slides():
    clock = Clock()
    attempts = attempts_of(clock)
    for _ in range(3):
        attempts.begin(LIMITS)
        clock.forward(seconds=20)
    attempts.begin(LIMITS)  # the first is 60 s old
    with pytest.raises(TooManyAttemptsError, match="Wait a minute"):
        attempts.begin(LIMITS)
    clock.forward(seconds=19)
    with pytest.raises(TooManyAttemptsError):
        attempts.begin(LIMITS)
    clock.forward(seconds=1)
    attempts.begin(LIMITS)


def test_each_bucket_has_its_own_limit():
    attempts = attempts_of(Clock())
    one, other = {"address a": 3, "name a": 5}, {"address b": 3, "name a": 5}
    for _ in range(3):
        attempts.begin(one)
    with pytest.raises(TooManyAttemptsError):
        attempts.begin(one)
    assert failures(attempts, "name a") == 3
    attempts.begin(other)
    attempts.begin(other)
    with pytest.raises(TooManyAttemptsError):
        attempts.begin(other)
    assert failures(attempts, "address b") == 2


def test_forgive_removes_one_attempt_only():
    attempts = attempts_of(Clock())
    attempts.begin(LIMITS)
    attempts.begin(LIMITS)
    for _ in range(50):
        attempts.forgive(attempts.begin(LIMITS))
    assert failures(attempts) == 2
    last = attempts.begin(LIMITS)
    attempts.forgive(last)
    attempts.forgive(last)  # a second time has no effect
    assert failures(attempts) == 2


def test_empty_and_oldest_buckets_are_dropped():
    clock = Clock()
    attempts = attempts_of(clock, max_buckets=10)
    attempts.forgive(attempts.begin({"mine": 3}))
    assert not attempts._counted
    for number in range(1000):
        attempts.begin({str(number): 3})
        attempts.begin({"busy": 10_000})
    assert len(attempts._counted) == 10
    assert failures(attempts, "busy") == 1000


@pytest.mark.parametrize("limit", [1, 5, 20])
def test_fifty_concurrent_attempts_do_not_exceed_the_limit(limit: int):
    attempts, start = Attempts(60), threading.Barrier(50)

    def try_once(_: int) -> bool:
        start.wait(PATIENCE_S)
        try:
            attempts.begin({"address x": limit})
        except TooManyAttemptsError:
            return False
        return True

    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(try_once, range(50))) == limit


def test_limit_agrees_with_a_simple_implementation():
    chance, clock = random.Random(7), Clock()
    attempts, taken = attempts_of(clock), []
    for _ in range(1000):
        clock.forward(seconds=chance.choice((0, 1, 5, 30)))
        now = clock.seconds()
        taken = [at for at in taken if at > now - 60]
        if len(taken) < 4:
            attempts.begin({"address x": 4})
            taken.append(now)
        else:
            with pytest.raises(TooManyAttemptsError):
                attempts.begin({"address x": 4})


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("192.0.2.7, 10.0.0.1", "unknown"),
        ("x" * 100_000, "unknown"),
        ("' OR 1=1", "unknown"),
    ],
)
def test_address_key(address: str | None, key: str):
    assert address_key(address) == key
