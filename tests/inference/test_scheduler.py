"""Tests of the scheduler: limits of users, queues of models, turns of users."""

from __future__ import annotations

import threading
import time

import pytest

from core.errors import ModelBusyError, TooManyAnswersError
from core.inference.scheduler import Scheduler, Ticket
from core.settings import Settings
from tests.waiting import PATIENCE_S, eventually

NEVER = threading.Event()


def scheduler(**limits: int) -> Scheduler:
    return Scheduler(Settings(**limits))


class Runner:
    """Waits for its turn in its own thread, and keeps it until :meth:`end`."""

    def __init__(
        self, scheduler: Scheduler, ticket: Ticket, name: str = "", order: list[str] | None = None
    ) -> None:
        self.name = name
        self.places: list[int] = []
        self.cancelled, self.go = threading.Event(), threading.Event()
        self.begun: bool | None = None
        self._scheduler, self._ticket = scheduler, ticket
        self._order = [] if order is None else order
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        turn = self._scheduler.turn(self._ticket, self.cancelled, self.places.append)
        with turn as self.begun:
            if self.begun:
                self._order.append(self.name)
                assert self.go.wait(PATIENCE_S)

    def end(self) -> None:
        self.go.set()
        self.ended()

    def ended(self) -> None:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


class Line:
    """Runners in the queue of one model."""

    def __init__(self, scheduler: Scheduler, at_once: int = 1) -> None:
        self.order: list[str] = []
        self._scheduler, self._at_once = scheduler, at_once

    def enter(self, user: str = "") -> Ticket:
        return self._scheduler.enter_model("model", self._at_once, user)

    def add(self, name: str, user: str = "") -> Runner:
        return Runner(self._scheduler, self.enter(user), name, self.order)


# The queue of a model


def test_one_at_a_time_in_order_with_positions_reported():
    turns = scheduler()
    line = Line(turns)
    runners = [line.add(name) for name in "abcd"]
    eventually(lambda: [runner.places[-1:] for runner in runners] == [[0], [1], [2], [3]])
    eventually(lambda: line.order == ["a"])
    for runner in runners:
        eventually(lambda runner=runner: runner.begun is True)
        runner.end()
    assert line.order == ["a", "b", "c", "d"]
    assert runners[3].places[0] == 3 and runners[3].places[-1] == 0
    assert runners[3].places == sorted(runners[3].places, reverse=True)
    assert not turns._queues


def test_users_take_turns_regardless_of_their_number_of_requests():
    line = Line(scheduler())
    runners = [line.add(f"a{number}", "ada") for number in range(5)]
    eventually(lambda: runners[0].begun is True and runners[4].places == [4])
    runners += [line.add(f"b{number}", "bo") for number in range(3)]
    runners += [line.add("c0", "cleo")]
    eventually(lambda: runners[-1].places[-1:] == [2])
    eventually(lambda: runners[4].places[-1] == 8)
    by_name = {runner.name: runner for runner in runners}
    for number in range(len(runners)):
        eventually(lambda number=number: len(line.order) == number + 1)
        by_name[line.order[-1]].end()
    assert line.order == ["a0", "b0", "c0", "a1", "b1", "a2", "b2", "a3", "a4"]


def test_cancelling_a_waiting_answer_moves_the_others_up():
    line = Line(scheduler())
    first, second, third = (line.add(name) for name in "abc")
    second.cancelled.set()
    second.ended()
    assert second.begun is False
    eventually(lambda: third.places[-1:] == [1])
    first.end()
    eventually(lambda: third.begun is True)
    third.end()
    assert line.order == ["a", "c"]


def test_queue_limit_does_not_count_the_running_answer():
    turns = scheduler(max_queue=2)
    line = Line(turns)
    runners = [line.add(name) for name in "abc"]
    with pytest.raises(ModelBusyError, match="2 answers are already waiting"):
        line.enter()
    for runner in runners:
        runner.end()
    with turns.turn(line.enter(), NEVER) as mine:
        assert mine


def test_full_queue_of_one_model_does_not_affect_another():
    turns = scheduler(max_queue=1)
    line = Line(turns)
    line.enter(), line.enter()
    with pytest.raises(ModelBusyError):
        line.enter()
    with turns.turn(turns.enter_model("another", 1, ""), NEVER) as mine:
        assert mine


def test_exception_during_a_turn_releases_it():
    turns = scheduler()
    for ticket in (Line(turns).enter(), turns.enter_user("ada")):
        with pytest.raises(ZeroDivisionError), turns.turn(ticket, NEVER):
            raise ZeroDivisionError
    assert not turns._queues


def test_cancelled_before_waiting():
    turns, cancelled = scheduler(), threading.Event()
    cancelled.set()
    with turns.turn(Line(turns).enter(), cancelled) as mine:
        assert mine is False


def test_several_answers_run_at_once():
    turns = scheduler(max_queue=2)
    line = Line(turns, at_once=3)
    runners = [line.add(name) for name in "abcde"]
    eventually(lambda: [runner.places[-1:] for runner in runners] == [[0], [0], [0], [1], [2]])
    eventually(lambda: sorted(line.order) == ["a", "b", "c"])
    with pytest.raises(ModelBusyError, match="2 answers are already waiting"):
        line.enter()
    runners[1].end()  # not the first of those that run
    eventually(lambda: runners[3].begun is True)
    eventually(lambda: runners[4].places[-1] == 1)
    for runner in runners:
        runner.end()
    assert line.order[3:] == ["d", "e"]


# The limits of a user


def test_a_limited_number_runs_and_others_wait_in_order():
    turns = scheduler(answers_at_once=2, answers_waiting=2)

    def add() -> Runner:
        return Runner(turns, turns.enter_user("ada"))

    first, second, third, fourth = (add() for _ in range(4))
    eventually(lambda: first.begun is second.begun is True)
    with pytest.raises(TooManyAnswersError, match="4 running or waiting answers"):
        turns.enter_user("ada")
    eventually(lambda: third.places == [1] and fourth.places == [2])
    time.sleep(0.15)
    assert third.begun is fourth.begun is None
    assert third.places == [1] and fourth.places == [2]
    first.end()
    eventually(lambda: third.begun is True)
    assert fourth.begun is None
    fifth = add()
    second.end()
    eventually(lambda: fourth.begun is True)
    assert fifth.begun is None
    for runner in (third, fourth, fifth):
        runner.end()
    assert fifth.begun and not turns._queues, "the queue is deleted after its last answer"


def test_limits_of_users_are_independent():
    turns = scheduler(answers_at_once=1, answers_waiting=0)
    greedy, other = (Runner(turns, turns.enter_user(user)) for user in ("ada", "bo"))
    eventually(lambda: greedy.begun is other.begun is True)
    greedy.end()
    other.end()


def test_cancelled_answer_leaves_its_place():
    turns = scheduler(answers_at_once=1, answers_waiting=1)
    first, second = (Runner(turns, turns.enter_user("ada")) for _ in range(2))
    eventually(lambda: first.begun is True)
    second.cancelled.set()
    second.ended()
    assert second.begun is False
    third = Runner(turns, turns.enter_user("ada"))
    first.end()
    eventually(lambda: third.begun is True)
    third.end()


def test_limit_holds_for_fifty_concurrent_requests():
    turns, rejected, entered = scheduler(answers_at_once=3, answers_waiting=4), [], []
    start = threading.Barrier(50)

    def enter() -> None:
        start.wait(PATIENCE_S)
        try:
            entered.append(turns.enter_user("ada"))
        except TooManyAnswersError:
            rejected.append(True)

    threads = [threading.Thread(target=enter) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert (len(entered), len(rejected)) == (7, 43)
