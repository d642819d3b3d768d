"""What one person may ask for at once, and the order between people."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from core.errors import TooManyAnswersError
from core.inference.user_limits import Share, Shares

NEVER = threading.Event()


def nothing(place: int) -> None:
    """Where a place does not matter."""


class Runner:
    """Takes a turn in a thread and holds it until it is told to go."""

    def __init__(self, share: Share) -> None:
        self.cancelled, self.go = threading.Event(), threading.Event()
        self.running = threading.Event()
        self.places: list[int] = []
        self.begun: bool | None = None
        self._share = share
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with self._share.turn(self.cancelled, self.places.append) as begun:
            self.begun = begun
            if begun:
                self.running.set()
                self.go.wait(20)

    def end(self) -> None:
        self.go.set()
        self.thread.join(20)


def test_so_many_run_and_the_others_wait_for_them_in_order():
    shares = Shares(at_once=2, waiting=2)
    first, second, third, fourth = (Runner(shares.claim("ada")) for _ in range(4))
    assert first.running.wait(20) and second.running.wait(20)
    with pytest.raises(TooManyAnswersError, match="4 answers of yours"):
        shares.claim("ada")
    time.sleep(0.15)
    assert not third.running.is_set() and not fourth.running.is_set()
    assert third.places == [1] and fourth.places == [2]
    first.end()
    assert third.running.wait(20) and not fourth.running.is_set()
    fifth = Runner(shares.claim("ada"))
    second.end()
    assert fourth.running.wait(20) and not fifth.running.is_set()
    for runner in (third, fourth, fifth):
        runner.end()
    assert fifth.begun and not shares._lanes, "nothing is kept of people who are done"


def test_one_person_takes_nothing_from_another():
    shares = Shares(at_once=1, waiting=0)
    greedy = Runner(shares.claim("ada"))
    other = Runner(shares.claim("bo"))
    assert greedy.running.wait(20) and other.running.wait(20)
    greedy.end()
    other.end()


def test_a_cancelled_one_leaves_its_place():
    shares = Shares(at_once=1, waiting=1)
    first, second = Runner(shares.claim("ada")), Runner(shares.claim("ada"))
    assert first.running.wait(20)
    second.cancelled.set()
    second.thread.join(5)
    assert second.begun is False
    third = Runner(shares.claim("ada"))
    first.end()
    assert third.running.wait(20)
    third.end()


def test_what_was_never_started_is_given_back():
    shares = Shares(at_once=1, waiting=0)
    shares.claim("ada").give_back()
    with shares.claim("ada").turn(NEVER, nothing) as begun:
        assert begun


def test_the_bound_holds_under_fifty_at_once():
    shares, refused, claimed = Shares(at_once=3, waiting=4), [], []
    start = threading.Barrier(50)

    def claim() -> None:
        start.wait(10)
        try:
            claimed.append(shares.claim("ada"))
        except TooManyAnswersError:
            refused.append(True)

    threads = [threading.Thread(target=claim) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (len(claimed), len(refused)) == (7, 43)


def test_a_failure_inside_gives_the_place_back():
    shares = Shares(at_once=1, waiting=0)
    with pytest.raises(ZeroDivisionError), ExitStack() as stack:
        stack.enter_context(shares.claim("ada").turn(NEVER, nothing))
        raise ZeroDivisionError
    assert not shares._lanes
