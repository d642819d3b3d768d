"""How long the rest takes, told from what was seen so far."""

from __future__ import annotations

import pytest

from core.benchmark.progress import Agenda, Step, StepKind


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def steps(agenda: Agenda) -> list[Step]:
    found = [Step(StepKind.MEASURE, subject, number) for number in (0, 1) for subject in "ab"]
    for step in found:
        agenda.add(step, 10.0)
    return found


def do(agenda: Agenda, clock: Clock, step: Step, seconds: float) -> None:
    with agenda.doing(step):
        clock.now += seconds


def test_nothing_is_told_before_the_first_step_is_over(clock: Clock):
    agenda = Agenda(clock)
    steps(agenda)
    assert (agenda.done, agenda.total, agenda.seconds_left) == (0, 4, None)
    assert agenda.fraction == 0.0


def test_the_rest_runs_at_the_pace_so_far(clock: Clock):
    agenda = Agenda(clock)
    first, *_ = steps(agenda)
    do(agenda, clock, first, 30.0)
    assert agenda.seconds_left == pytest.approx(90.0)
    assert agenda.fraction == pytest.approx(0.25)


def test_a_step_takes_what_its_like_took(clock: Clock):
    agenda = Agenda(clock)
    first, second, *_ = steps(agenda)
    do(agenda, clock, first, 5.0)
    do(agenda, clock, second, 40.0)
    assert agenda.seconds_left == pytest.approx(45.0)


def test_time_runs_while_a_step_does(clock: Clock):
    agenda = Agenda(clock)
    first, second, *_ = steps(agenda)
    do(agenda, clock, first, 10.0)
    with agenda.doing(second):
        clock.now += 4.0
        assert agenda.seconds_left == pytest.approx(26.0)
        clock.now += 100.0
        assert agenda.seconds_left == pytest.approx(20.0)  # it will end any moment
    assert agenda.done == 2


def test_what_fails_says_nothing_about_the_rest(clock: Clock):
    agenda = Agenda(clock)
    first, *_ = steps(agenda)
    with pytest.raises(OSError, match="broken"), agenda.doing(first):
        clock.now += 0.1
        raise OSError("broken")
    agenda.drop(StepKind.MEASURE, "a")
    assert (agenda.done, agenda.total) == (1, 3)
    assert agenda.seconds_left == pytest.approx(20.0)


def test_all_is_done_where_nothing_is_left(clock: Clock):
    agenda = Agenda(clock)
    for step in steps(agenda):
        do(agenda, clock, step, 1.0)
    assert (agenda.fraction, agenda.seconds_left) == (1.0, 0.0)
