"""The line of answers in front of one model."""

from __future__ import annotations

import threading
import time

import pytest

from core.errors import ModelBusyError
from core.runtimes.queue import TurnQueue


class Waiter:
    """Stands in line in a thread of its own until it is told to leave."""

    def __init__(self, queue: TurnQueue, order: list[str], name: str, lane: str = "") -> None:
        self._lane = lane
        self.places: list[int] = []
        self.cancelled, self.leave = threading.Event(), threading.Event()
        self.got_turn: bool | None = None
        self._queue, self._order, self._name = queue, order, name
        before = len(queue)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        until(lambda: len(queue) == before + 1)

    def _run(self) -> None:
        with self._queue.turn(self.cancelled, self.places.append, lane=self._lane) as self.got_turn:
            if self.got_turn:
                self._order.append(self._name)
                self.leave.wait(20)

    def done(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive()


def until(condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


def test_one_at_a_time_in_order_and_everyone_sees_their_place():
    queue, order = TurnQueue(8), []
    waiters = [Waiter(queue, order, name) for name in "abcd"]
    until(lambda: [w.places[-1:] for w in waiters] == [[0], [1], [2], [3]])
    assert order == ["a"]
    for waiter in waiters:
        until(lambda w=waiter: w.got_turn is True)
        waiter.leave.set()
        waiter.done()
    assert order == ["a", "b", "c", "d"]
    assert waiters[3].places[0] == 3 and waiters[3].places[-1] == 0
    assert waiters[3].places == sorted(waiters[3].places, reverse=True)
    assert len(queue) == 0


def test_people_take_turns_however_much_one_of_them_asks_for():
    queue, order = TurnQueue(20), []
    waiters = [Waiter(queue, order, f"a{number}", "ada") for number in range(5)]
    until(lambda: waiters[0].got_turn is True)
    waiters += [Waiter(queue, order, f"b{number}", "bo") for number in range(3)]
    waiters += [Waiter(queue, order, "c0", "cleo")]
    until(lambda: waiters[-1].places[-1:] == [2])
    assert waiters[4].places[0] == 4, "it stood behind its own four"
    until(lambda: waiters[4].places[-1] == 8)
    by_name = {waiter._name: waiter for waiter in waiters}
    while len(order) < len(waiters) or by_name[order[-1]].thread.is_alive():
        now = by_name[order[-1]]
        now.leave.set()
        now.done()
        until(lambda name=now._name: len(queue) == 0 or order[-1] != name)
    assert order == ["a0", "b0", "c0", "a1", "b1", "a2", "b2", "a3", "a4"]


def test_leaving_the_line_moves_the_others_up():
    queue, order = TurnQueue(8), []
    first, second, third = (Waiter(queue, order, name) for name in "abc")
    second.cancelled.set()
    second.done()
    assert second.got_turn is False
    until(lambda: third.places[-1] == 1)
    first.leave.set()
    until(lambda: third.got_turn is True)
    third.leave.set()
    third.done()
    assert order == ["a", "c"]


def test_the_line_is_bounded_and_the_running_one_does_not_count():
    queue, order = TurnQueue(2), []
    waiters = [Waiter(queue, order, name) for name in "abc"]
    with (
        pytest.raises(ModelBusyError, match="2 answers are already waiting"),
        queue.turn(threading.Event()),
    ):
        pytest.fail("nobody may enter")
    for waiter in waiters:
        waiter.leave.set()
        waiter.done()
    with queue.turn(threading.Event()) as mine:
        assert mine


def test_a_failure_within_the_turn_gives_it_up():
    queue = TurnQueue(2)
    with pytest.raises(ZeroDivisionError), queue.turn(threading.Event()):
        raise ZeroDivisionError
    assert len(queue) == 0


def test_cancelled_before_it_came():
    queue, cancelled = TurnQueue(2), threading.Event()
    cancelled.set()
    with queue.turn(cancelled) as mine:
        assert mine is False


def test_so_many_have_their_turn_together_as_are_let_in():
    queue, order = TurnQueue(2, at_once=3), []
    waiters = [Waiter(queue, order, name) for name in "abcde"]
    until(lambda: [w.places[-1:] for w in waiters] == [[0], [0], [0], [1], [2]])
    assert sorted(order) == ["a", "b", "c"]
    with (
        pytest.raises(ModelBusyError, match="2 answers are already waiting"),
        queue.turn(threading.Event()),
    ):
        pass
    waiters[1].leave.set()  # not the first of those that run
    waiters[1].done()
    until(lambda: waiters[3].got_turn is True)
    until(lambda: waiters[4].places[-1] == 1)
    assert len(queue) == 4
    for waiter in waiters:
        waiter.leave.set()
        waiter.done()
    assert order[3:] == ["d", "e"]
