"""Tests of the queue of one model."""

from __future__ import annotations

import threading
import time

import pytest

from core.errors import ModelBusyError
from core.runtimes.queue import TurnQueue


class Waiter:
    """Waits in the queue in its own thread, and keeps its turn until ``leave`` is set."""

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


def test_one_at_a_time_in_order_with_positions_reported():
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


def test_users_take_turns_regardless_of_their_number_of_requests():
    queue, order = TurnQueue(20), []
    waiters = [Waiter(queue, order, f"a{number}", "ada") for number in range(5)]
    until(lambda: waiters[0].got_turn is True)
    waiters += [Waiter(queue, order, f"b{number}", "bo") for number in range(3)]
    waiters += [Waiter(queue, order, "c0", "cleo")]
    until(lambda: waiters[-1].places[-1:] == [2])
    assert waiters[4].places[0] == 4, "it was behind its lane's other four"
    until(lambda: waiters[4].places[-1] == 8)
    by_name = {waiter._name: waiter for waiter in waiters}
    while len(order) < len(waiters) or by_name[order[-1]].thread.is_alive():
        now = by_name[order[-1]]
        now.leave.set()
        now.done()
        until(lambda name=now._name: len(queue) == 0 or order[-1] != name)
    assert order == ["a0", "b0", "c0", "a1", "b1", "a2", "b2", "a3", "a4"]


def test_cancelling_a_waiting_answer_moves_the_others_up():
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


def test_queue_limit_does_not_count_the_running_answer():
    queue, order = TurnQueue(2), []
    waiters = [Waiter(queue, order, name) for name in "abc"]
    with (
        pytest.raises(ModelBusyError, match="2 answers are already waiting"),
        queue.turn(threading.Event()),
    ):
        pytest.fail("the queue is full")
    for waiter in waiters:
        waiter.leave.set()
        waiter.done()
    with queue.turn(threading.Event()) as mine:
        assert mine


def test_exception_during_a_turn_releases_it():
    queue = TurnQueue(2)
    with pytest.raises(ZeroDivisionError), queue.turn(threading.Event()):
        raise ZeroDivisionError
    assert len(queue) == 0


def test_cancelled_before_waiting():
    queue, cancelled = TurnQueue(2), threading.Event()
    cancelled.set()
    with queue.turn(cancelled) as mine:
        assert mine is False


def test_several_answers_run_at_once():
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
