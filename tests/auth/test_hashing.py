"""Password hashing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import argon2
import pytest
from argon2.exceptions import HashingError, VerificationError

from core.auth.hashing import RFC_9106_LOW_MEMORY, Hasher
from core.errors import NotEnoughMemoryError, TooBusyError
from tests.auth.samples import CHEAP, GOOD, HOSTILE, CountingHasher
from tests.waiting import PATIENCE_S


def test_hash_has_its_parameters_and_its_own_salt():
    hasher = Hasher()
    first = hasher.hash(GOOD)
    assert first.startswith("$argon2id$v=19$m=65536,t=3,p=4$") and GOOD not in first
    assert hasher.verify(first, GOOD) and not hasher.outdated(first)
    parameters = argon2.extract_parameters(first)
    assert (parameters.hash_len, parameters.salt_len) == (32, 16)
    standard = argon2.profiles.RFC_9106_LOW_MEMORY
    assert parameters == standard, "the parameters are those of the RFC"
    cheap = Hasher(CHEAP)
    assert cheap.hash(GOOD) != cheap.hash(GOOD)


def test_only_the_correct_password_matches():
    hasher = Hasher(CHEAP)
    hashed = hasher.hash("café au lait")
    assert hasher.verify(hashed, "cafe\u0301\u00a0au lait")
    for wrong in ("cafe au lait", "Café au lait", "", "café au lait ", *HOSTILE):
        assert not hasher.verify(hashed, wrong)
    assert not hasher.verify(None, "café au lait")
    assert not hasher.verify(None, "") and not hasher.verify(hasher.hash(""), "")


def test_unknown_names_take_one_hashing_too():
    hasher = CountingHasher()
    hashed = hasher.hash(GOOD)
    for stored, password in [
        (hashed, GOOD),
        (hashed, "wrong"),
        (hashed, "\ud800"),
        (hashed, "x" * 1_000_000),
        (None, GOOD),
        (None, "\x00"),
        ("damaged", GOOD),
        ("$argon2id$v=19$m=8,t=1,p=1$$", GOOD),
        (hashed[:-1], GOOD),
        (hashed[:-20], GOOD),
        (hashed.replace("v=19", "v=16"), GOOD),
    ]:
        before = hasher.hashings
        assert hasher.verify(stored, password) == (stored == hashed and password == GOOD)
        assert hasher.hashings == before + 1, (stored, password)


def test_dummy_hash_has_the_parameters_of_new_hashes():
    for parameters in (CHEAP, RFC_9106_LOW_MEMORY):
        assert argon2.extract_parameters(Hasher(parameters)._dummy_hash) == parameters


@pytest.mark.parametrize("changed", [{"time_cost": 2}, {"memory_cost": 32}, {"parallelism": 2}])
def test_hash_with_other_parameters_is_outdated(changed: dict[str, int]):
    cheap = replace(CHEAP, memory_cost=16)  # enough for two threads
    weak, strong = Hasher(cheap), Hasher(replace(cheap, **changed))
    assert strong.outdated(weak.hash(GOOD)) and not weak.outdated(weak.hash(GOOD))


class Slow:
    """Hashes slowly, and counts concurrent hashings."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.turn = threading.Lock()
        self.go_on = threading.Event()

    def verify(self, *_: str) -> bool:
        with self.turn:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go_on.wait(PATIENCE_S)
        with self.turn:
            self.now -= 1
        return True


def test_concurrent_hashings_are_limited():
    hasher, slow = Hasher(CHEAP, max_concurrent=3), Slow()
    hashed = hasher.hash(GOOD)
    hasher._argon2 = slow
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(hasher.verify, hashed, GOOD) for _ in range(20)]
        while slow.now < 3:
            time.sleep(0.001)
        slow.go_on.set()
        assert all(one.result() for one in waiting)
    assert slow.most == 3


def test_waiting_too_long_for_a_hashing_is_an_error():
    hasher, slow = Hasher(CHEAP, max_concurrent=1, timeout_s=0.02), Slow()
    hashed = hasher.hash(GOOD)
    hasher._argon2 = slow
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(hasher.verify, hashed, GOOD)
        while not slow.now:
            time.sleep(0.001)
        with pytest.raises(TooBusyError, match="Try again in a minute"):
            hasher.verify(hashed, GOOD)
        slow.go_on.set()
        assert first.result()
    assert hasher.verify(hashed, GOOD), "the slot was released"


@pytest.mark.parametrize("failure", ["Memory allocation error", "Threading failure"])
def test_too_little_memory_is_not_an_incorrect_password(failure: str):
    class Starved:
        def hash(self, *_: str) -> str:
            raise HashingError(failure)

        def verify(self, *_: str) -> bool:
            raise VerificationError(failure)

    hasher = Hasher()
    hasher._argon2 = Starved()
    with pytest.raises(NotEnoughMemoryError, match="takes 67 MB of memory"):
        hasher.hash(GOOD)
    with pytest.raises(NotEnoughMemoryError, match="Unload a model"):
        hasher.verify(None, GOOD)


def test_damaged_hash_is_not_too_little_memory():
    class Damaged:
        def verify(self, *_: str) -> bool:
            raise VerificationError("Memory cost is too large")

    hasher = Hasher(CHEAP)
    hashed = hasher.hash(GOOD)
    hasher._argon2 = Damaged()
    assert not hasher.verify(hashed, GOOD)
