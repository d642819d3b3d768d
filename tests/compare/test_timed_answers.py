"""Fast answers are given again for their timings, and nobody sees or keeps them."""

from __future__ import annotations

import threading
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from core.compare import match as match_module
from core.compare import timed_answers
from core.compare.figures import side_figures
from core.compare.match import Match, SideState
from core.compare.setup import Mode, Setup
from core.compare.timed_answers import MOST_ANSWERS, TimedAnswer, Timing, suffice, timing_of
from core.errors import TooManyAnswersError
from core.inference.answer import Answer, StopReason
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec
from tests.compare.answers import answer
from tests.compare.conftest import GREEDY, PATIENCE_S, Held, Stable, spec
from tests.fakes import APART_NS, NEAR_NS, FakeCores


class Repeats:
    """Starts what is given again, and knows in which order."""

    def __init__(self, stable: Stable) -> None:
        self.started: list[str] = []
        self.requests: list[GenerationRequest] = []
        self.failure: Exception | None = None
        self._stable = stable

    def __call__(self, spec: ModelSpec, request: GenerationRequest) -> Job:
        self.started.append(spec.model)
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        return Job(self._stable.handles[spec.model], request, timeout_s=PATIENCE_S).start()


@pytest.fixture
def repeats(stable: Stable) -> Repeats:
    stable.add("one", "It is quiet."), stable.add("two", "It is loud.")
    return Repeats(stable)


def played(stable: Stable, repeats: Repeats, *, mode: Mode = Mode.FAIR, **request: Any) -> Match:
    wanted = GenerationRequest("Why?", sampling=replace(GREEDY, **request))
    match = Match(Setup((spec("one"), spec("two")), wanted, mode), stable.start, again=repeats)
    assert match.wait(PATIENCE_S) and match.done
    return match


def given(distance_ns: float | None = NEAR_NS, **fields: Any) -> TimedAnswer:
    return TimedAnswer(answer(**fields), distance_ns)


# What is given again


def test_fast_sides_answer_again_by_turns_and_unseen(stable: Stable, repeats: Repeats):
    match = played(stable, repeats, greedy=False, seed=5)
    assert stable.started == ["one", "two"], "what is seen and recorded"
    assert repeats.started == ["one", "two"] * (MOST_ANSWERS - 1)
    assert {request.sampling.seed for request in repeats.requests} == {5}
    for side, found in enumerate(match.answers):
        timing = match.timing(side)
        assert timing.answers[0] is found and len(timing.answers) == MOST_ANSWERS
        rates = [each.timings.decode_tokens_per_s for each in timing.answers]
        figures = side_figures(found, timing=timing)
        assert figures.decode_tokens_per_s == median(rates)
        assert figures.timed_answers == MOST_ANSWERS and figures.new_tokens == len(found.token_ids)


def test_an_answer_that_is_long_enough_is_given_once(
    stable: Stable, repeats: Repeats, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(timed_answers, "SHORTEST_S", 0.0)
    match = played(stable, repeats)
    assert repeats.started == []
    assert side_figures(match.answers[0], timing=match.timing(0)).timed_answers == 1


def test_a_slow_side_waits_while_the_fast_one_is_timed(stable: Stable, repeats: Repeats):
    pause = threading.Event()

    def slowly(request: object):
        for token in (41, 84, 0):
            pause.wait(0.4)
            yield token

    stable.add("two", slowly)
    match = played(stable, repeats)
    assert repeats.started == ["one"] * (MOST_ANSWERS - 1)
    assert len(match.timing(1).answers) == 1


def test_a_race_is_not_timed_again(stable: Stable, repeats: Repeats):
    played(stable, repeats, mode=Mode.RACE)
    assert repeats.started == []


def test_one_side_asked_again_is_timed_alone(stable: Stable, repeats: Repeats):
    match = played(stable, repeats)
    repeats.started.clear()
    again = match.regenerate(1)
    assert again.wait(PATIENCE_S) and repeats.started == ["two"] * (MOST_ANSWERS - 1)
    assert again.timing(0) == match.timing(0), "kept with its answer"


# What ends it


def begun(stable: Stable, repeats: Repeats) -> tuple[Match, Held]:
    """A match that is held while its first side answers for the second time."""
    calls = 0
    held = Held([41, 84, 0])

    def script(request: object):
        nonlocal calls
        calls += 1
        return held(request) if calls > 1 else (41, 84, 0)

    stable.add("one", script)
    wanted = GenerationRequest("Why?", sampling=GREEDY)
    match = Match(Setup((spec("one"), spec("two")), wanted, Mode.FAIR), stable.start, again=repeats)
    assert held.begun.wait(PATIENCE_S)
    return match, held


def test_stop_ends_it_and_the_answers_stand(stable: Stable, repeats: Repeats):
    match, held = begun(stable, repeats)
    assert match.answered and match.running and not match.wait(0.05)
    match.stop()
    assert match.done
    held.let(1)
    assert match.wait(PATIENCE_S) and repeats.started == ["one"]
    assert [match.state(side) for side in (0, 1)] == [SideState.DONE] * 2
    assert [found.stop_reason for found in match.answers] == [StopReason.END_OF_TEXT] * 2
    assert [len(match.timing(side).answers) for side in (0, 1)] == [1, 1]


def test_who_stopped_a_side_is_not_kept_waiting(stable: Stable, repeats: Repeats):
    held = stable.hold("two")
    wanted = GenerationRequest("Why?", sampling=GREEDY)
    match = Match(Setup((spec("one"), spec("two")), wanted, Mode.FAIR), stable.start, again=repeats)
    assert held.begun.wait(PATIENCE_S)
    match.stop(1)
    held.open()
    assert match.wait(PATIENCE_S) and repeats.started == []


def test_what_fails_meanwhile_touches_no_answer(stable: Stable, repeats: Repeats):
    repeats.failure = TooManyAnswersError("You have too many answers; wait for one.")
    match = played(stable, repeats)
    assert repeats.started == ["one"]
    assert [match.error(side) for side in (0, 1)] == [None, None]
    assert [len(match.timing(side).answers) for side in (0, 1)] == [1, 1]


def test_models_that_take_turns_in_memory_are_not_loaded_again_and_again(
    stable: Stable, repeats: Repeats, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module, "LATE_S", 0.0)
    match = played(stable, repeats)
    assert repeats.started == ["one"], "it was late, as one is that has to be loaded first"
    assert [len(match.timing(side).answers) for side in (0, 1)] == [2, 1]


def test_an_answer_that_breaks_off_is_not_counted(stable: Stable, repeats: Repeats):
    calls = 0

    def script(request: object):
        nonlocal calls
        calls += 1
        yield 41
        yield 84
        if calls > 2:
            raise RuntimeError("it broke")
        yield 0

    stable.add("one", script)
    match = played(stable, repeats)
    assert match.state(0) is SideState.DONE and len(match.timing(0).answers) == 2


# What counts


@pytest.mark.parametrize(
    "ended",
    [
        [],
        [given(reason=StopReason.CANCELLED)],
        [given(ids=(0,))],
        [given(contended=True)],
        [given()] * MOST_ANSWERS,
        [given(gap_s=0.5)],
    ],
    ids=["none", "stopped", "one token", "contended", "many", "long"],
)
def test_these_suffice(ended: list[TimedAnswer]):
    assert suffice(ended)


def test_more_are_given_where_the_cores_were_apart(cores: FakeCores):
    cores.note(NEAR_NS)
    apart, near = given(APART_NS, ttft_s=0.01), given(ttft_s=0.01)
    assert not suffice([apart] * MOST_ANSWERS) and not suffice([apart, *[near] * 14])
    assert suffice([apart, *[near] * MOST_ANSWERS]) and suffice([apart] * 3 * MOST_ANSWERS)
    slow = given(APART_NS, gap_s=0.25)
    assert not suffice([slow]) and suffice([slow] * 4)


def test_short_ones_do_not_suffice():
    fast = given(ttft_s=0.01)
    assert not suffice([fast]) and not suffice([fast] * (MOST_ANSWERS - 1))


def test_disturbed_answers_are_left_out(cores: FakeCores):
    cores.note(NEAR_NS)
    near, busy, apart = given(), given(contended=True), given(APART_NS)
    assert timing_of([apart, near, busy]) == Timing((near.answer,), cores_apart=False)
    unknown = given(None)
    assert timing_of([unknown]) == Timing((unknown.answer,), cores_apart=False)


def test_where_something_else_went_on_all_the_time_the_one_that_is_shown_counts(cores: FakeCores):
    cores.note(NEAR_NS)
    busy = given(contended=True)
    found = timing_of([busy, given(contended=True)])
    assert found == Timing((busy.answer,), cores_apart=False)
    assert side_figures(busy.answer, timing=found).contended


def test_where_the_cores_were_apart_all_the_time_those_answers_count(cores: FakeCores):
    cores.note(NEAR_NS)
    apart, again, busy = given(APART_NS), given(APART_NS, gap_s=0.02), given(contended=True)
    found = timing_of([apart, again, busy])
    assert found == Timing((apart.answer, again.answer), cores_apart=True)
    figures = side_figures(apart.answer, timing=found)
    assert figures.disturbed and not figures.contended and figures.timed_answers == 2


def test_medians_take_the_place_of_the_shown_answers_timings():
    shown, slow, fast = (answer(gap_s=gap, ttft_s=5 * gap) for gap in (0.02, 0.05, 0.01))
    found = Timing((slow, fast), cores_apart=False).applied_to(shown)
    assert found.timings.tpot_ms == pytest.approx(30) and found.text == shown.text
    assert found.timings.ttft_ms == pytest.approx(150)
    assert found.timings.decode_tokens_per_s == pytest.approx(1000 / 30)
    assert found.timings.new_tokens == shown.timings.new_tokens
    alone = Timing((shown,), cores_apart=False).applied_to(shown)
    assert alone == shown
    none = Answer("", (), (), StopReason.CANCELLED, None)
    assert Timing((none,), cores_apart=False).applied_to(none) is none


def test_the_typical_one_took_the_middle_time():
    slow, middle, fast = (answer(gap_s=gap) for gap in (0.05, 0.02, 0.01))
    timing = Timing((slow, fast, middle), cores_apart=False)
    assert timing.typical is middle
    assert Timing((slow, fast), cores_apart=False).typical is fast
    only = Answer("", (), (), StopReason.CANCELLED, None)
    assert Timing((only,), cores_apart=False).typical is only
