"""Tests of the limits of one user, and of several users at once."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from core.errors import TooManyAnswersError
from core.inference.user_limits import Slot, UserLimits

NEVER = threading.Event()


def nothing(place: int) -> None:
    """Ignore the position."""


class Runner:
    """Takes a turn in a thread and keeps it until ``go`` is set."""

    def __init__(self, slot: Slot) -> None:
        self.cancelled, self.go = threading.Event(), threading.Event()
        self.running = threading.Event()
        self.places: list[int] = []
        self.begun: bool | None = None
        self._slot = slot
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with self._slot.turn(self.cancelled, self.places.append) as begun:
            self.begun = begun
            if begun:
                self.running.set()
                self.go.wait(20)

    def end(self) -> None:
        self.go.set()
        self.thread.join(20)


def test_a_limited_number_runs_and_others_wait_in_order():
    limits = UserLimits(at_once=2, waiting=2)
    first, second, third, fourth = (Runner(limits.reserve("ada")) for _ in range(4))
    assert first.running.wait(20) and second.running.wait(20)
    with pytest.raises(TooManyAnswersError, match="4 running or waiting answers"):
        limits.reserve("ada")
    time.sleep(0.15)
    assert not third.running.is_set() and not fourth.running.is_set()
    assert third.places == [1] and fourth.places == [2]
    first.end()
    assert third.running.wait(20) and not fourth.running.is_set()
    fifth = Runner(limits.reserve("ada"))
    second.end()
    assert fourth.running.wait(20) and not fifth.running.is_set()
    for runner in (third, fourth, fifth):
        runner.end()
    assert fifth.begun and not limits._lanes, "the lane is deleted after its last answer"


def test_limits_of_users_are_independent():
    limits = UserLimits(at_once=1, waiting=0)
    greedy = Runner(limits.reserve("ada"))
    other = Runner(limits.reserve("bo"))
    assert greedy.running.wait(20) and other.running.wait(20)
    greedy.end()
    other.end()


def test_cancelled_answer_releases_its_slot():
    limits = UserLimits(at_once=1, waiting=1)
    first, second = Runner(limits.reserve("ada")), Runner(limits.reserve("ada"))
    assert first.running.wait(20)
    second.cancelled.set()
    second.thread.join(5)
    assert second.begun is False
    third = Runner(limits.reserve("ada"))
    first.end()
    assert third.running.wait(20)
    third.end()


def test_slot_of_an_unstarted_answer_can_be_released():
    limits = UserLimits(at_once=1, waiting=0)
    limits.reserve("ada").release()
    with limits.reserve("ada").turn(NEVER, nothing) as begun:
        assert begun


def test_limit_holds_for_fifty_concurrent_requests():
    limits, rejected, reserved = UserLimits(at_once=3, waiting=4), [], []
    start = threading.Barrier(50)

    def reserve() -> None:
        start.wait(10)
        try:
            reserved.append(limits.reserve("ada"))
        except TooManyAnswersError:
            rejected.append(True)

    threads = [threading.Thread(target=reserve) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (len(reserved), len(rejected)) == (7, 43)


def test_exception_during_a_turn_releases_the_slot():
    limits = UserLimits(at_once=1, waiting=0)
    with pytest.raises(ZeroDivisionError), ExitStack() as stack:
        stack.enter_context(limits.reserve("ada").turn(NEVER, nothing))
        raise ZeroDivisionError
    assert not limits._lanes
