"""Several models answer one instruction: order, independence, stopping, starting again."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from core.benchmark import stopping
from core.compare import match as match_module
from core.compare.core_latency import Cores
from core.compare.match import Match, SideState, matches_under_way
from core.compare.setup import Mode, Setup
from core.errors import BadRequestError, GenerationError, ModelBusyError, NotEnoughMemoryError
from core.inference.answer import StopReason
from core.inference.job import JobObserver, Phase
from core.inference.request import GenerationRequest
from core.runtimes.base import InterruptedGeneration
from core.runtimes.spec import ModelSpec, SamplingSettings
from tests.compare.conftest import GREEDY, PATIENCE_S, Held, OutOfOrder, Stable, spec
from tests.fakes import APART_NS, NEAR_NS, FakeCores

AT_ONCE_S = 0.5
"""How soon a stop must take effect."""


def setup(*names: str, mode: Mode = Mode.FAIR, sampling: SamplingSettings = GREEDY) -> Setup:
    return Setup(tuple(map(spec, names)), GenerationRequest("Why?", sampling=sampling), mode)


def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


def tokens(match: Match, side: int) -> int:
    job = match.jobs[side]
    return 0 if job is None else job.snapshot().new_tokens


# Fair


def test_fair_sides_answer_one_after_the_other_in_order(stable: Stable):
    first, second = stable.hold("one"), stable.hold("two")
    match = Match(setup("one", "two"), stable.start)
    first.let(3)
    until(lambda: tokens(match, 0) == 3)
    assert match.running and stable.started == ["one"] and match.jobs[1] is None
    assert [match.state(side) for side in (0, 1)] == [SideState.RUNNING, SideState.WAITING]
    assert match.message(1) == "Waits for its turn."
    first.open()
    assert second.begun.wait(PATIENCE_S)
    until(lambda: match.state(1) is SideState.RUNNING)  # a moment after its job began
    assert match.state(0) is SideState.DONE
    second.open()
    assert match.wait(PATIENCE_S) and match.done and not match.running
    assert stable.started == ["one", "two"]
    assert [answer.contended for answer in match.answers] == [False, False]


def test_those_under_way_are_counted_until_they_end(stable: Stable):
    before = matches_under_way()
    stable.add("two", "It is quiet.")
    first = stable.hold("one")
    match = Match(setup("one", "two"), stable.start)
    assert first.begun.wait(PATIENCE_S)  # so that the other one waits behind it
    other = Match(setup("one", "two"), stable.start)
    until(lambda: matches_under_way() == before + 2)
    other.stop()
    assert other.wait(PATIENCE_S) and matches_under_way() == before + 1
    first.open()
    assert match.wait(PATIENCE_S) and matches_under_way() == before


@pytest.mark.parametrize("mode", Mode)
def test_a_held_match_begins_when_its_page_says_so(stable: Stable, mode: Mode):
    stable.add("one", "It is quiet."), stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", mode=mode), stable.start, held=True)
    assert not match.wait(0.3) and stable.started == []
    match.begin()
    assert match.wait(PATIENCE_S) and sorted(stable.started) == ["one", "two"]
    again = match.regenerate()
    assert not again.wait(0.3) and len(stable.started) == 2  # as the first, until it is drawn
    again.begin()
    assert again.wait(PATIENCE_S) and len(stable.started) == 4


def test_a_held_match_whose_page_is_gone_begins_all_the_same(
    stable: Stable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module, "HOLD_S", 0.05)
    stable.add("one", "It is quiet."), stable.add("two", "It is quiet.")
    assert Match(setup("one", "two"), stable.start, held=True).wait(PATIENCE_S)
    assert stable.started == ["one", "two"]


def test_a_held_match_can_be_stopped(stable: Stable):
    match = Match(setup("one", "two"), stable.start, held=True)
    match.stop()
    assert match.done and match.wait(AT_ONCE_S)
    assert stable.started == []


def test_one_request_and_one_seed_go_to_all(stable: Stable):
    models = [stable.add(name, "It is quiet.") for name in ("one", "two", "three")]
    sampling = SamplingSettings(max_new_tokens=50)
    match = Match(setup("one", "two", "three", sampling=sampling), stable.start)
    assert match.wait(PATIENCE_S)
    seeds = {model.requests[0].sampling.seed for model in models}
    assert seeds == {match.setup.request.sampling.seed} and None not in seeds
    assert {answer.seed for answer in match.answers} == seeds
    assert [answer.text for answer in match.answers] == ["It is quiet."] * 3


# Race


def test_a_races_answers_overlap_and_are_marked(stable: Stable):
    first, second = stable.hold("one"), stable.hold("two")
    match = Match(setup("one", "two", mode=Mode.RACE), stable.start)
    first.let(2)
    second.let(2)
    until(lambda: tokens(match, 0) == tokens(match, 1) == 2)
    first.let(3)
    second.let(1)
    until(lambda: (tokens(match, 0), tokens(match, 1)) == (5, 3))
    first.open()
    second.open()
    assert match.wait(PATIENCE_S)
    assert [answer.contended for answer in match.answers] == [True, True]


class Paddock:
    """Loads models when the test says so; see :data:`core.compare.match.LineUp`."""

    def __init__(self) -> None:
        self.loaded: dict[str, threading.Event] = {}
        self.failures: dict[str, Exception] = {}
        self.held: list[str] = []

    def add(self, *names: str) -> None:
        self.loaded |= {name: threading.Event() for name in names}

    @contextmanager
    def lease(
        self, spec: ModelSpec, on_progress: Callable, cancelled: threading.Event
    ) -> Iterator[object]:
        on_progress(f"Loading {spec.model}.", 0.5)
        while not self.loaded[spec.model].wait(0.01):
            if cancelled.is_set():
                yield None
                return
        if spec.model in self.failures:
            raise self.failures[spec.model]
        self.held.append(spec.model)
        try:
            yield object()
        finally:
            self.held.remove(spec.model)


@pytest.fixture
def paddock() -> Paddock:
    made = Paddock()
    made.add("one", "two", "three")
    return made


def test_a_race_starts_when_all_are_loaded(stable: Stable, paddock: Paddock):
    first, second = stable.hold("one"), stable.hold("two")
    match = Match(setup("one", "two", mode=Mode.RACE), stable.start, line_up=paddock.lease)
    until(lambda: match.message(0) == "Loading one." and match.fraction(0) == 0.5)
    paddock.loaded["one"].set()
    until(lambda: match.message(0) == "Ready; waits for the others to load.")
    time.sleep(0.1)
    assert stable.started == [] and match.state(0) is SideState.WAITING
    paddock.loaded["two"].set()
    assert first.begun.wait(PATIENCE_S) and second.begun.wait(PATIENCE_S)
    assert sorted(paddock.held) == ["one", "two"]
    first.open()
    second.open()
    assert match.wait(PATIENCE_S)
    until(lambda: paddock.held == [])


def test_who_cannot_be_loaded_is_not_waited_for(stable: Stable, paddock: Paddock):
    paddock.failures["one"] = NotEnoughMemoryError("Too large; take a smaller one.")
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", mode=Mode.RACE), stable.start, line_up=paddock.lease)
    paddock.loaded["two"].set()
    paddock.loaded["one"].set()
    assert match.wait(PATIENCE_S)
    assert match.state(0) is SideState.FAILED and stable.started == ["two"]
    assert match.error(0) == match.message(0) == "Too large; take a smaller one."
    assert match.answers[1].text == "It is quiet."


def test_who_loads_for_long_is_not_waited_for_either(
    stable: Stable, paddock: Paddock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module, "LINE_UP_S", 0.1)
    stable.add("one", "It is quiet.")
    stable.add("two", "It is loud.")
    match = Match(setup("one", "two", mode=Mode.RACE), stable.start, line_up=paddock.lease)
    paddock.loaded["one"].set()
    until(lambda: match.state(0) is SideState.DONE)
    assert match.state(1) is SideState.WAITING and match.running
    paddock.loaded["two"].set()
    assert match.wait(PATIENCE_S) and match.answers[1].text == "It is loud."


def test_stopped_while_it_loads_it_is_skipped_and_the_other_starts(
    stable: Stable, paddock: Paddock
):
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", mode=Mode.RACE), stable.start, line_up=paddock.lease)
    paddock.loaded["two"].set()
    until(lambda: match.message(1).startswith("Ready"))
    match.stop(0)
    assert match.state(0) is SideState.SKIPPED
    assert match.wait(PATIENCE_S)
    assert match.message(0) == "Was not asked." and match.jobs[0] is None
    assert match.answers[1].text == "It is quiet."


def test_stopped_at_the_start_line_it_is_skipped_at_once(stable: Stable, paddock: Paddock):
    match = Match(setup("one", "two", mode=Mode.RACE), stable.start, line_up=paddock.lease)
    paddock.loaded["one"].set()
    until(lambda: match.message(0).startswith("Ready"))
    match.stop()
    assert match.wait(AT_ONCE_S)
    assert stable.started == [] and [match.state(0), match.state(1)] == [SideState.SKIPPED] * 2


# Stopping


@pytest.mark.parametrize("mode", list(Mode))
def test_one_side_stops_and_the_other_goes_on(stable: Stable, mode: Mode):
    first, second = stable.hold("one"), stable.hold("two")
    match = Match(setup("one", "two", mode=mode), stable.start)
    first.let(3)
    until(lambda: tokens(match, 0) == 3)
    match.stop(0)
    first.open()  # the next token is the last
    until(lambda: match.state(0) is SideState.DONE, AT_ONCE_S)
    assert match.answers[0].stop_reason is StopReason.CANCELLED and match.answers[0].text
    second.let(4)
    until(lambda: tokens(match, 1) == 4)
    assert match.state(1) is SideState.RUNNING
    second.open()
    assert match.wait(PATIENCE_S)
    assert match.answers[1].stop_reason is StopReason.END_OF_TEXT or tokens(match, 1) == 20


def test_stop_ends_a_prefill(stable: Stable):
    entered = threading.Event()

    def script(request: object) -> Iterator[int]:
        entered.set()
        if not model.interrupted.wait(PATIENCE_S):
            raise AssertionError("nobody interrupted the prefill")
        raise InterruptedGeneration
        yield

    model = stable.add("one", script)
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two"), stable.start)
    assert entered.wait(PATIENCE_S)
    until(lambda: match.jobs[0] is not None)
    assert match.jobs[0].snapshot().phase is Phase.PREFILL
    match.stop(0)
    until(lambda: match.state(0) is SideState.DONE, AT_ONCE_S)
    assert match.wait(PATIENCE_S)
    assert match.answers[0].stop_reason is StopReason.CANCELLED
    assert match.answers[1].text == "It is quiet."


def test_a_side_whose_turn_has_not_come_is_skipped(stable: Stable):
    first = stable.hold("one")
    stable.add("two", "It is quiet.")
    stable.add("three", "It is loud.")
    match = Match(setup("one", "two", "three"), stable.start)
    assert first.begun.wait(PATIENCE_S)
    match.stop(1)
    assert match.state(1) is SideState.SKIPPED
    until(lambda: match.state(0) is SideState.RUNNING)  # a moment after its job began
    first.open()
    assert match.wait(PATIENCE_S)
    assert stable.started == ["one", "three"]
    assert match.answers[1] is None and match.answers[2].text == "It is loud."


def test_stop_without_a_side_stops_all(stable: Stable):
    first = stable.hold("one")
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two"), stable.start)
    first.let(1)
    until(lambda: tokens(match, 0) == 1)
    match.stop()
    first.open()
    assert match.wait(AT_ONCE_S) and match.done
    assert [match.state(0), match.state(1)] == [SideState.DONE, SideState.SKIPPED]
    assert stable.started == ["one"]


def test_stopped_while_its_job_is_being_made_it_is_cancelled(stable: Stable):
    entered, leave = threading.Event(), threading.Event()
    first = stable.hold("one")
    stable.add("two", "It is quiet.")

    def slow_start(spec: ModelSpec, request: GenerationRequest):
        if spec.model == "one":
            entered.set()
            assert leave.wait(PATIENCE_S)
        return stable.start(spec, request)

    match = Match(setup("one", "two"), slow_start)
    assert entered.wait(PATIENCE_S)
    match.stop(0)  # if it waited for the job, that would not be made in time, and fail
    assert match.running and match.state(0) is SideState.WAITING
    leave.set()
    until(lambda: (job := match.jobs[0]) is not None and (job.cancelling or job.done))
    first.open()  # not before: its first token must not pass while it is not cancelled yet
    assert match.wait(PATIENCE_S)
    assert match.answers[0].stop_reason is StopReason.CANCELLED
    assert match.answers[1].text == "It is quiet."


# Failures


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("failure", [OutOfOrder("It is closed; open it."), ZeroDivisionError("x")])
def test_a_side_that_cannot_start_fails_alone(stable: Stable, mode: Mode, failure: Exception):
    stable.failures["one"] = failure
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", mode=mode), stable.start)
    assert match.wait(PATIENCE_S) and match.done
    assert match.state(0) is SideState.FAILED and match.state(1) is SideState.DONE
    sentence = match.error(0)
    assert match.message(0) == sentence and match.error(1) is None
    if isinstance(failure, OutOfOrder):
        assert sentence == "It is closed; open it."
    else:
        assert "ZeroDivisionError" in sentence and sentence.endswith("try again.")


@pytest.mark.parametrize("mode", list(Mode))
def test_a_runtime_that_raises_fails_its_side_alone(stable: Stable, mode: Mode):
    def script(request: object) -> Iterator[int]:
        yield 40
        raise GenerationError("It broke; wait.")

    stable.add("one", script)
    second = stable.hold("two")
    match = Match(setup("one", "two", mode=mode), stable.start)
    until(lambda: match.state(0) is SideState.FAILED)
    assert match.error(0) == "It broke; wait." and match.answers[0].token_ids == (40,)
    second.let(2)
    until(lambda: tokens(match, 1) == 2)
    second.open()
    assert match.wait(PATIENCE_S)
    assert match.state(1) is SideState.DONE


# Nobody watches


class Recorder(JobObserver):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def ended(self, job, answer) -> None:
        self.texts.append(answer.text)


def test_a_match_that_nobody_holds_runs_to_its_end_and_is_then_forgotten(stable: Stable):
    first, recorder = stable.hold("one"), Recorder()
    stable.add("two", "It is quiet.")
    stable.observers["two"] = recorder
    match = Match(setup("one", "two"), stable.start)
    assert first.begun.wait(PATIENCE_S)
    trace = weakref.ref(match)
    del match
    gc.collect()
    first.open()
    until(lambda: recorder.texts == ["It is quiet."])

    def forgotten() -> bool:
        gc.collect()
        return trace() is None

    until(forgotten)


def test_twenty_matches_at_once_mix_nothing_up(stable: Stable):
    for name in ("one", "two"):

        def script(request, name=name) -> list[int]:
            # Answers with its own prompt's last tokens, so that a mix-up shows.
            return list(request.prompt_ids[-12:])

        stable.add(name, script)
    matches = []
    for number in range(20):
        request = GenerationRequest(f"Say {number} and {number * 7919}.", sampling=GREEDY)
        sides = (spec("one"), spec("two"))
        mode = Mode.RACE if number % 2 else Mode.FAIR
        matches.append(Match(Setup(sides, request, mode), stable.start))
    for match in matches:
        assert match.wait(PATIENCE_S)
        assert [match.state(side) for side in (0, 1)] == [SideState.DONE] * 2
    texts = [tuple(answer.token_ids for answer in match.answers) for match in matches]
    assert all(first == second for first, second in texts)
    prompts = {tuple(r.prompt_ids[-12:]) for r in stable.handles["one"].model.requests}
    assert {first for first, _ in texts} == prompts


# Again


def sampled(stable: Stable) -> Match:
    for name in ("one", "two"):
        # The answer is the seed, so that one shows in the other.
        stable.add(name, lambda request: [40 + request.sampling.seed % 7] * 3)
    sampling = SamplingSettings(max_new_tokens=3, seed=1)
    match = Match(setup("one", "two", sampling=sampling), stable.start)
    assert match.wait(PATIENCE_S)
    return match


def test_again_on_all_sides_with_a_fresh_seed(stable: Stable):
    match = sampled(stable)
    seeds = set()
    for _ in range(3):
        again = match.regenerate()
        assert again.wait(PATIENCE_S) and again.id != match.id
        assert again.answers[0].seed == again.answers[1].seed
        seeds.add(again.answers[0].seed)
    assert len(seeds) == 3
    assert [answer.seed for answer in match.answers] == [1, 1]


def test_again_on_one_side_keeps_the_others_answer(stable: Stable):
    match = sampled(stable)
    again = match.regenerate(1, seed=5)
    assert again.state(0) is SideState.DONE
    assert again.wait(PATIENCE_S)
    assert again.jobs[0] is match.jobs[0] and again.jobs[1] is not match.jobs[1]
    assert [again.answers[0].seed, again.answers[1].seed] == [1, 5]
    assert [again.request(0).sampling.seed, again.request(1).sampling.seed] == [1, 5]
    assert again.answers[0].token_ids != again.answers[1].token_ids
    assert stable.started == ["one", "two", "two"]
    repeated = again.regenerate(1, seed=1)
    assert repeated.wait(PATIENCE_S)
    assert repeated.answers[1].token_ids == match.answers[1].token_ids


def test_again_with_what_failed_or_was_skipped(stable: Stable):
    stable.failures["one"] = OutOfOrder("It is closed; open it.")
    held = stable.hold("two")
    stable.add("three", "It is quiet.")
    match = Match(setup("one", "two", "three"), stable.start)
    assert held.begun.wait(PATIENCE_S)
    match.stop()
    held.open()
    assert match.wait(PATIENCE_S)
    del stable.failures["one"]
    stable.add("one", "It is loud.")
    again = match.regenerate(0)
    assert again.wait(PATIENCE_S)
    assert again.answers[0].text == "It is loud."
    assert [again.state(1), again.state(2)] == [SideState.DONE, SideState.SKIPPED]
    assert match.state(0) is SideState.FAILED  # what was, stays


def test_again_needs_an_end_first_and_a_seed_in_range(stable: Stable):
    held = stable.hold("one")
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", sampling=replace(GREEDY, greedy=False)), stable.start)
    with pytest.raises(ModelBusyError):
        match.regenerate()
    held.open()
    assert match.wait(PATIENCE_S)
    with pytest.raises(BadRequestError):
        match.regenerate(seed=-1)


def test_a_model_races_against_itself_in_its_own_line(stable: Stable):
    held: Held = stable.hold("one", 5)
    match = Match(setup("one", "one", mode=Mode.RACE), stable.start)
    assert held.begun.wait(PATIENCE_S)
    held.open()
    assert match.wait(PATIENCE_S)
    assert [answer.contended for answer in match.answers] == [False, False]


# The cores


def test_a_side_that_answered_with_the_cores_apart_is_told(stable: Stable, cores: FakeCores):
    stable.add("one", "It is quiet."), stable.add("two", "It is quiet.")
    cores.to_come = [NEAR_NS, NEAR_NS, NEAR_NS, APART_NS]  # before and after each side
    match = Match(setup("one", "two"), stable.start)
    assert match.wait(PATIENCE_S)
    assert [match.timing(side).cores_apart for side in (0, 1)] == [False, True]
    again = match.regenerate(0)
    assert again.wait(PATIENCE_S)
    assert [again.timing(side).cores_apart for side in (0, 1)] == [False, True], (
        "kept with its answer"
    )


def test_the_first_match_of_all_is_judged_by_what_is_learned_later(
    stable: Stable, cores: FakeCores
):
    stable.add("one", "It is quiet.")
    cores.to_come = [APART_NS] * 4
    match = Match(setup("one", "one"), stable.start)
    assert match.wait(PATIENCE_S)
    assert not match.timing(0).cores_apart, "nothing shorter was seen yet"
    cores.note(NEAR_NS)
    assert match.timing(0).cores_apart and match.timing(1).cores_apart


def test_where_the_cores_do_not_matter_or_cannot_be_judged_nothing_is_said(
    stable: Stable, cores: FakeCores, monkeypatch: pytest.MonkeyPatch
):
    cores.note(NEAR_NS)
    stable.add("one", "It is quiet.")
    on_gpu = stable.add("two", "It is quiet.")
    on_gpu.conditions = replace(on_gpu.conditions, devices_used=("GPU",))
    cores.to_come = [APART_NS, None, APART_NS, APART_NS]
    match = Match(setup("one", "two"), stable.start)
    assert match.wait(PATIENCE_S)
    assert [match.timing(side).cores_apart for side in (0, 1)] == [False, False]
    monkeypatch.setattr(stopping, "LONGEST_JUDGED_S", 0.0)  # they may move during a long answer
    cores.to_come = [APART_NS] * 4
    long = Match(setup("one", "one"), stable.start)
    assert long.wait(PATIENCE_S) and not long.timing(0).cores_apart
    monkeypatch.undo()
    cores.to_come = [APART_NS] * 4
    race = Match(setup("one", "one", mode=Mode.RACE), stable.start)
    assert race.wait(PATIENCE_S) and not race.timing(0).cores_apart
    assert len(cores.to_come) == 4, "a race is contended as it is"


def test_a_watched_match_waits_a_while_for_near_cores(
    stable: Stable, cores: FakeCores, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module.psutil, "cpu_percent", lambda interval: 0.0)
    cores.note(NEAR_NS)
    stable.add("one", "It is quiet.")
    cores.to_come = [APART_NS, APART_NS, NEAR_NS]
    match = Match(setup("one", "one"), stable.start, held=True)
    match.begin()
    assert match.wait(PATIENCE_S) and not match.timing(0).cores_apart
    monkeypatch.setattr(match_module, "CALM_S", 0.05)
    cores.to_come = [APART_NS] * 1_000_000
    impatient = Match(setup("one", "one"), stable.start, held=True)
    impatient.begin()
    assert impatient.wait(PATIENCE_S) and impatient.timing(0).cores_apart


def test_the_real_cores_are_asked_and_leave_no_process_behind():
    found = Cores()
    with found.watched() as look:
        seen = look()
        assert seen is None or seen > 0
    assert not found.apart(seen) and not found.apart(None)
    assert seen is None or found.apart(10 * seen)
