"""Progress and remaining time, estimated from finished steps."""

from __future__ import annotations

import pytest

from core.benchmark.sweep import Step, StepKind, Steps


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def planned(tracker: Steps) -> list[Step]:
    found = [Step(StepKind.MEASURE, subject, number) for number in (0, 1) for subject in "ab"]
    for step in found:
        tracker.add(step, 10.0)
    return found


def do(tracker: Steps, clock: Clock, step: Step, seconds: float) -> None:
    with tracker.doing(step):
        clock.now += seconds


def test_no_estimate_before_the_first_step_has_finished(clock: Clock):
    tracker = Steps(clock)
    planned(tracker)
    found = tracker.progress()
    assert (found.done, found.total, found.seconds_left) == (0, 4, None)
    assert found.fraction == 0.0


def test_remaining_time_follows_the_pace(clock: Clock):
    tracker = Steps(clock)
    first, *_ = planned(tracker)
    do(tracker, clock, first, 30.0)
    assert tracker.progress().seconds_left == pytest.approx(90.0)
    assert tracker.progress().fraction == pytest.approx(0.25)


def test_remaining_time_falls_during_a_step(clock: Clock):
    tracker = Steps(clock)
    first, second, *_ = planned(tracker)
    do(tracker, clock, first, 10.0)
    with tracker.doing(second):
        clock.now += 4.0
        assert tracker.progress().seconds_left == pytest.approx(26.0)
        clock.now += 100.0
        assert tracker.progress().seconds_left == pytest.approx(20.0)  # it will end any moment
    assert tracker.progress().done == 2


def test_failed_steps_do_not_change_the_estimate(clock: Clock):
    tracker = Steps(clock)
    first, *_ = planned(tracker)
    with pytest.raises(OSError, match="broken"), tracker.doing(first):
        clock.now += 0.1
        raise OSError("broken")
    tracker.drop(StepKind.MEASURE, "a")
    found = tracker.progress()
    assert (found.done, found.total) == (1, 3)
    assert found.seconds_left == pytest.approx(20.0)


def test_all_steps_done(clock: Clock):
    tracker = Steps(clock)
    for step in planned(tracker):
        do(tracker, clock, step, 1.0)
    found = tracker.progress()
    assert (found.fraction, found.seconds_left) == (1.0, 0.0)
