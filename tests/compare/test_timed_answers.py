"""Short answers are repeated for their timings, without being shown or recorded."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from core.compare import match as match_module
from core.compare import timed_answers
from core.compare.figures import side_figures
from core.compare.match import Match, SideState
from core.compare.setup import Mode, Setup
from core.compare.timed_answers import (
    MOST_ANSWERS,
    TimedAnswer,
    Timing,
    timed_long_enough,
    timing_of,
)
from core.errors import TooManyAnswersError
from core.inference.answer import Answer, StopReason
from core.inference.request import GenerationRequest
from tests.compare.answers import answer
from tests.compare.conftest import GREEDY, PATIENCE_S, USER, Held, Repeats, Stable, spec
from tests.fakes import APART_NS, NEAR_NS, FakeCores


@pytest.fixture
def repeats(stable: Stable, monkeypatch: pytest.MonkeyPatch) -> Repeats:
    """Two models whose answers count as short, however busy the machine is."""
    monkeypatch.setattr(timed_answers, "SHORTEST_S", PATIENCE_S)
    monkeypatch.setattr(match_module, "MAX_PREPARATION_S", PATIENCE_S)
    stable.add("one", "It is quiet."), stable.add("two", "It is loud.")
    return stable.repeats


def played(stable: Stable, repeats: Repeats, *, mode: Mode = Mode.FAIR, **request: Any) -> Match:
    wanted = GenerationRequest("Why?", sampling=replace(GREEDY, **request))
    match = Match(Setup((spec("one"), spec("two")), wanted, mode), stable, USER, repeat=True)
    assert match.wait(PATIENCE_S) and match.done
    return match


def given(distance_ns: float | None = NEAR_NS, **fields: Any) -> TimedAnswer:
    return TimedAnswer(answer(**fields), distance_ns)


# Repetitions


def test_short_answers_are_repeated_in_turn_without_being_shown(stable: Stable, repeats: Repeats):
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


def test_long_answer_is_not_repeated(
    stable: Stable, repeats: Repeats, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(timed_answers, "SHORTEST_S", 0.0)
    match = played(stable, repeats)
    assert repeats.started == []
    assert side_figures(match.answers[0], timing=match.timing(0)).timed_answers == 1


def test_slow_side_waits_while_the_fast_one_is_repeated(
    stable: Stable, repeats: Repeats, monkeypatch: pytest.MonkeyPatch
):
    slow = (41, 84, 0)
    stable.add("two", lambda request: slow)
    seconds = property(lambda timed: PATIENCE_S if timed.answer.token_ids == slow else 0.0)
    monkeypatch.setattr(TimedAnswer, "seconds", seconds)
    match = played(stable, repeats)
    assert repeats.started == ["one"] * (MOST_ANSWERS - 1)
    assert len(match.timing(1).answers) == 1


def test_race_answers_are_not_repeated(stable: Stable, repeats: Repeats):
    played(stable, repeats, mode=Mode.RACE)
    assert repeats.started == []


def test_only_the_regenerated_side_is_repeated(stable: Stable, repeats: Repeats):
    match = played(stable, repeats)
    repeats.started.clear()
    again = match.regenerate(1)
    assert again.wait(PATIENCE_S) and repeats.started == ["two"] * (MOST_ANSWERS - 1)
    assert again.timing(0) == match.timing(0), "kept with its answer"


# End of the repetitions


def begun(stable: Stable, repeats: Repeats) -> tuple[Match, Held]:
    """Return a comparison that is paused while its first side repeats its answer."""
    calls = 0
    held = Held([41, 84, 0])

    def script(request: object):
        nonlocal calls
        calls += 1
        return held(request) if calls > 1 else (41, 84, 0)

    stable.add("one", script)
    wanted = GenerationRequest("Why?", sampling=GREEDY)
    match = Match(Setup((spec("one"), spec("two")), wanted, Mode.FAIR), stable, USER, repeat=True)
    assert held.begun.wait(PATIENCE_S)
    return match, held


def test_stop_ends_the_repetitions_and_keeps_the_answers(stable: Stable, repeats: Repeats):
    match, held = begun(stable, repeats)
    assert match.answered and match.running and not match.wait(0.05)
    match.stop()
    assert match.done
    held.let(1)
    assert match.wait(PATIENCE_S) and repeats.started == ["one"]
    assert [match.state(side) for side in (0, 1)] == [SideState.DONE] * 2
    assert [found.stop_reason for found in match.answers] == [StopReason.END_OF_TEXT] * 2
    assert [len(match.timing(side).answers) for side in (0, 1)] == [1, 1]


def test_stopping_a_side_prevents_repetitions(stable: Stable, repeats: Repeats):
    held = stable.hold("two")
    wanted = GenerationRequest("Why?", sampling=GREEDY)
    match = Match(Setup((spec("one"), spec("two")), wanted, Mode.FAIR), stable, USER, repeat=True)
    assert held.begun.wait(PATIENCE_S)
    match.stop(1)
    held.open()
    assert match.wait(PATIENCE_S) and repeats.started == []


def test_failed_repetition_does_not_affect_the_answers(stable: Stable, repeats: Repeats):
    repeats.failure = TooManyAnswersError("You have too many answers; wait for one.")
    match = played(stable, repeats)
    assert repeats.started == ["one"]
    assert [match.error(side) for side in (0, 1)] == [None, None]
    assert [len(match.timing(side).answers) for side in (0, 1)] == [1, 1]


def test_models_that_do_not_fit_together_are_not_reloaded_for_repetitions(
    stable: Stable, repeats: Repeats, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module, "MAX_PREPARATION_S", 0.0)
    match = played(stable, repeats)
    assert repeats.started == ["one"], "it was late, as one is that has to be loaded first"
    assert [len(match.timing(side).answers) for side in (0, 1)] == [2, 1]


def test_incomplete_repetition_does_not_count(stable: Stable, repeats: Repeats):
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


# Which answers count


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
def test_no_more_are_generated_after_these(ended: list[TimedAnswer]):
    assert timed_long_enough(ended)


def test_more_repetitions_if_the_cores_were_apart(cores: FakeCores):
    cores.note(NEAR_NS)
    apart, near = given(APART_NS, ttft_s=0.01), given(ttft_s=0.01)
    assert not timed_long_enough([apart] * MOST_ANSWERS) and not timed_long_enough(
        [apart, *[near] * 14]
    )
    assert timed_long_enough([apart, *[near] * MOST_ANSWERS]) and timed_long_enough(
        [apart] * 3 * MOST_ANSWERS
    )
    slow = given(APART_NS, gap_s=0.25)
    assert not timed_long_enough([slow]) and timed_long_enough([slow] * 4)


def test_short_ones_are_repeated():
    fast = given(ttft_s=0.01)
    assert not timed_long_enough([fast]) and not timed_long_enough([fast] * (MOST_ANSWERS - 1))


def test_disturbed_answers_are_left_out(cores: FakeCores):
    cores.note(NEAR_NS)
    near, busy, apart = given(), given(contended=True), given(APART_NS)
    assert timing_of([apart, near, busy]) == Timing((near.answer,), cores_apart=False)
    unknown = given(None)
    assert timing_of([unknown]) == Timing((unknown.answer,), cores_apart=False)


def test_shown_answer_counts_if_all_were_contended(cores: FakeCores):
    cores.note(NEAR_NS)
    busy = given(contended=True)
    found = timing_of([busy, given(contended=True)])
    assert found == Timing((busy.answer,), cores_apart=False)
    assert side_figures(busy.answer, timing=found).contended


def test_answers_with_the_cores_apart_count_if_there_are_no_others(cores: FakeCores):
    cores.note(NEAR_NS)
    apart, again, busy = given(APART_NS), given(APART_NS, gap_s=0.02), given(contended=True)
    found = timing_of([apart, again, busy])
    assert found == Timing((apart.answer, again.answer), cores_apart=True)
    figures = side_figures(apart.answer, timing=found)
    assert figures.disturbed and not figures.contended and figures.timed_answers == 2


def test_medians_replace_the_timings_of_the_shown_answer():
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


def test_typical_answer_has_the_median_duration():
    slow, middle, fast = (answer(gap_s=gap) for gap in (0.05, 0.02, 0.01))
    timing = Timing((slow, fast, middle), cores_apart=False)
    assert timing.typical is middle
    assert Timing((slow, fast), cores_apart=False).typical is fast
    only = Answer("", (), (), StopReason.CANCELLED, None)
    assert Timing((only,), cores_apart=False).typical is only
