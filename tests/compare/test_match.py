"""Running a comparison: order, independence, stop, regenerate."""

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
from core.compare.match import Match, SideState, running_matches
from core.compare.setup import Mode, Setup
from core.compare.timed_answers import Cores
from core.errors import BadRequestError, GenerationError, ModelBusyError, NotEnoughMemoryError
from core.inference.answer import StopReason
from core.inference.job import JobObserver, Phase
from core.inference.request import GenerationRequest
from core.runtimes.base import InterruptedGeneration
from core.runtimes.spec import ModelSpec, SamplingSettings
from tests.compare.conftest import GREEDY, PATIENCE_S, USER, Held, OutOfOrder, Stable, spec
from tests.fakes import APART_NS, NEAR_NS, FakeCores
from tests.waiting import eventually


def setup(*names: str, mode: Mode = Mode.FAIR, sampling: SamplingSettings = GREEDY) -> Setup:
    return Setup(tuple(map(spec, names)), GenerationRequest("Why?", sampling=sampling), mode)


def tokens(match: Match, side: int) -> int:
    job = match.jobs[side]
    return 0 if job is None else job.snapshot().new_tokens


# Fair


def test_fair_mode_runs_sides_in_order(stable: Stable):
    first, second = stable.hold("one"), stable.hold("two")
    match = Match(setup("one", "two"), stable, USER)
    first.let(3)
    eventually(lambda: tokens(match, 0) == 3)
    assert match.running and stable.started == ["one"] and match.jobs[1] is None
    assert [match.state(side) for side in (0, 1)] == [SideState.RUNNING, SideState.WAITING]
    assert match.message(1) == "Waiting for its turn."
    first.open()
    assert second.begun.wait(PATIENCE_S)
    eventually(lambda: match.state(1) is SideState.RUNNING)  # shortly after its job started
    assert match.state(0) is SideState.DONE
    second.open()
    assert match.wait(PATIENCE_S) and match.done and not match.running
    assert stable.started == ["one", "two"]
    assert [answer.contended for answer in match.answers] == [False, False]


def test_running_comparisons_are_counted(stable: Stable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(match_module, "_running", set())  # without those of other tests
    stable.add("two", "It is quiet.")
    first = stable.hold("one")
    match = Match(setup("one", "two"), stable, USER)
    assert first.begun.wait(PATIENCE_S)  # the other one waits behind it
    other = Match(setup("one", "two"), stable, USER)
    eventually(lambda: running_matches() == 2)
    other.stop()
    assert other.wait(PATIENCE_S) and running_matches() == 1
    first.open()
    assert match.wait(PATIENCE_S) and running_matches() == 0


@pytest.mark.parametrize("mode", Mode)
def test_deferred_comparison_starts_on_begin(
    stable: Stable, mode: Mode, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module, "BEGIN_TIMEOUT_S", 10 * PATIENCE_S)
    monkeypatch.setattr(match_module, "IDLE_WAIT_S", 0.05)
    stable.add("one", "It is quiet."), stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", mode=mode), stable, USER, deferred=True)
    assert not match.wait(0.3) and stable.started == []
    match.begin()
    assert match.wait(PATIENCE_S) and sorted(stable.started) == ["one", "two"]
    again = match.regenerate()
    assert not again.wait(0.3) and len(stable.started) == 2  # held like the first one
    again.begin()
    assert again.wait(PATIENCE_S) and len(stable.started) == 4


def test_deferred_comparison_starts_after_the_timeout(
    stable: Stable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module, "BEGIN_TIMEOUT_S", 0.05)
    stable.add("one", "It is quiet."), stable.add("two", "It is quiet.")
    assert Match(setup("one", "two"), stable, USER, deferred=True).wait(PATIENCE_S)
    assert stable.started == ["one", "two"]


def test_deferred_comparison_can_be_stopped(stable: Stable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(match_module, "BEGIN_TIMEOUT_S", 10 * PATIENCE_S)
    match = Match(setup("one", "two"), stable, USER, deferred=True)
    match.stop()
    assert match.done and match.wait(PATIENCE_S)
    assert stable.started == []


def test_all_sides_get_the_same_request_and_seed(stable: Stable):
    models = [stable.add(name, "It is quiet.") for name in ("one", "two", "three")]
    sampling = SamplingSettings(max_new_tokens=50)
    match = Match(setup("one", "two", "three", sampling=sampling), stable, USER)
    assert match.wait(PATIENCE_S)
    seeds = {model.requests[0].sampling.seed for model in models}
    assert seeds == {match.setup.request.sampling.seed} and None not in seeds
    assert {answer.seed for answer in match.answers} == seeds
    assert [answer.text for answer in match.answers] == ["It is quiet."] * 3


def test_request_above_a_limit_starts_nothing(stable: Stable):
    stable.most_characters = 3
    with pytest.raises(BadRequestError):
        Match(setup("one", "two"), stable, USER)
    assert stable.started == []


# Race


def test_race_answers_overlap_and_are_marked(stable: Stable):
    first, second = stable.hold("one"), stable.hold("two")
    match = Match(setup("one", "two", mode=Mode.RACE), stable, USER)
    first.let(2)
    second.let(2)
    eventually(lambda: tokens(match, 0) == tokens(match, 1) == 2)
    first.let(3)
    second.let(1)
    eventually(lambda: (tokens(match, 0), tokens(match, 1)) == (5, 3))
    first.open()
    second.open()
    assert match.wait(PATIENCE_S)
    assert [answer.contended for answer in match.answers] == [True, True]


class Paddock:
    """Loads models when released by the test; see :meth:`core.inference.engine.Engine.lease`."""

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
def paddock(stable: Stable, monkeypatch: pytest.MonkeyPatch) -> Paddock:
    monkeypatch.setattr(match_module, "START_LINE_TIMEOUT_S", 10 * PATIENCE_S)
    made = Paddock()
    stable.lease = made.lease
    made.add("one", "two", "three")
    return made


def test_race_starts_when_all_models_are_loaded(stable: Stable, paddock: Paddock):
    first, second = stable.hold("one"), stable.hold("two")
    match = Match(setup("one", "two", mode=Mode.RACE), stable, USER)
    eventually(lambda: match.message(0) == "Loading one." and match.fraction(0) == 0.5)
    paddock.loaded["one"].set()
    eventually(lambda: match.message(0) == "Loaded. Waiting for the other models to load.")
    time.sleep(0.1)
    assert stable.started == [] and match.state(0) is SideState.WAITING
    paddock.loaded["two"].set()
    assert first.begun.wait(PATIENCE_S) and second.begun.wait(PATIENCE_S)
    assert sorted(paddock.held) == ["one", "two"]
    first.open()
    second.open()
    assert match.wait(PATIENCE_S)
    eventually(lambda: paddock.held == [])


def test_race_does_not_wait_for_a_model_that_fails_to_load(stable: Stable, paddock: Paddock):
    paddock.failures["one"] = NotEnoughMemoryError("Too large; take a smaller one.")
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", mode=Mode.RACE), stable, USER)
    paddock.loaded["two"].set()
    paddock.loaded["one"].set()
    assert match.wait(PATIENCE_S)
    assert match.state(0) is SideState.FAILED and stable.started == ["two"]
    assert match.error(0) == match.message(0) == "Too large; take a smaller one."
    assert match.answers[1].text == "It is quiet."


def test_race_stops_waiting_after_the_timeout(
    stable: Stable, paddock: Paddock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module, "START_LINE_TIMEOUT_S", 0.1)
    stable.add("one", "It is quiet.")
    stable.add("two", "It is loud.")
    match = Match(setup("one", "two", mode=Mode.RACE), stable, USER)
    paddock.loaded["one"].set()
    eventually(lambda: match.state(0) is SideState.DONE)
    assert match.state(1) is SideState.WAITING and match.running
    paddock.loaded["two"].set()
    assert match.wait(PATIENCE_S) and match.answers[1].text == "It is loud."


def test_side_stopped_while_loading_is_skipped(stable: Stable, paddock: Paddock):
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", mode=Mode.RACE), stable, USER)
    paddock.loaded["two"].set()
    eventually(lambda: match.message(1).startswith("Loaded"))
    match.stop(0)
    assert match.state(0) is SideState.SKIPPED
    assert match.wait(PATIENCE_S)
    assert match.message(0) == "Not started." and match.jobs[0] is None
    assert match.answers[1].text == "It is quiet."


def test_side_stopped_at_the_start_line_is_skipped_at_once(stable: Stable, paddock: Paddock):
    match = Match(setup("one", "two", mode=Mode.RACE), stable, USER)
    paddock.loaded["one"].set()
    eventually(lambda: match.message(0).startswith("Loaded"))
    match.stop()
    assert match.wait(PATIENCE_S)
    assert stable.started == [] and [match.state(0), match.state(1)] == [SideState.SKIPPED] * 2


# Stopping


@pytest.mark.parametrize("mode", list(Mode))
def test_stopping_one_side_does_not_stop_the_other(stable: Stable, mode: Mode):
    first, second = stable.hold("one"), stable.hold("two")
    match = Match(setup("one", "two", mode=mode), stable, USER)
    first.let(3)
    eventually(lambda: tokens(match, 0) == 3)
    match.stop(0)
    first.open()  # the next token is the last
    eventually(lambda: match.state(0) is SideState.DONE)
    assert match.answers[0].stop_reason is StopReason.CANCELLED and match.answers[0].text
    second.let(4)
    eventually(lambda: tokens(match, 1) == 4)
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
    match = Match(setup("one", "two"), stable, USER)
    assert entered.wait(PATIENCE_S)
    eventually(lambda: match.jobs[0] is not None)
    assert match.jobs[0].snapshot().phase is Phase.PREFILL
    match.stop(0)
    eventually(lambda: match.state(0) is SideState.DONE)
    assert match.wait(PATIENCE_S)
    assert match.answers[0].stop_reason is StopReason.CANCELLED
    assert match.answers[1].text == "It is quiet."


def test_waiting_side_is_skipped_on_stop(stable: Stable):
    first = stable.hold("one")
    stable.add("two", "It is quiet.")
    stable.add("three", "It is loud.")
    match = Match(setup("one", "two", "three"), stable, USER)
    assert first.begun.wait(PATIENCE_S)
    match.stop(1)
    assert match.state(1) is SideState.SKIPPED
    eventually(lambda: match.state(0) is SideState.RUNNING)  # shortly after its job started
    first.open()
    assert match.wait(PATIENCE_S)
    assert stable.started == ["one", "three"]
    assert match.answers[1] is None and match.answers[2].text == "It is loud."


def test_stop_without_a_side_stops_all(stable: Stable):
    first = stable.hold("one")
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two"), stable, USER)
    first.let(1)
    eventually(lambda: tokens(match, 0) == 1)
    match.stop()
    first.open()
    assert match.wait(PATIENCE_S) and match.done
    assert [match.state(0), match.state(1)] == [SideState.DONE, SideState.SKIPPED]
    assert stable.started == ["one"]


def test_side_stopped_while_its_job_is_created_is_cancelled(stable: Stable):
    entered, leave = threading.Event(), threading.Event()
    first = stable.hold("one")
    stable.add("two", "It is quiet.")

    def slow_answer(name: str, *args: object, **kwargs: object):
        if name == "one":
            entered.set()
            assert leave.wait(PATIENCE_S)
        return answer(name, *args, **kwargs)

    answer, stable.answer = stable.answer, slow_answer
    match = Match(setup("one", "two"), stable, USER)
    assert entered.wait(PATIENCE_S)
    match.stop(0)  # must not wait for the job
    assert match.running and match.state(0) is SideState.WAITING
    leave.set()
    eventually(lambda: (job := match.jobs[0]) is not None and (job._cancelled.is_set() or job.done))
    first.open()  # not earlier: no token may pass before the cancellation
    assert match.wait(PATIENCE_S)
    assert match.answers[0].stop_reason is StopReason.CANCELLED
    assert match.answers[1].text == "It is quiet."


# Failures


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("failure", [OutOfOrder("It is closed; open it."), ZeroDivisionError("x")])
def test_a_side_that_cannot_start_fails_alone(stable: Stable, mode: Mode, failure: Exception):
    stable.failures["one"] = failure
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", mode=mode), stable, USER)
    assert match.wait(PATIENCE_S) and match.done
    assert match.state(0) is SideState.FAILED and match.state(1) is SideState.DONE
    sentence = match.error(0)
    assert match.message(0) == sentence and match.error(1) is None
    if isinstance(failure, OutOfOrder):
        assert sentence == "It is closed; open it."
    else:
        assert "ZeroDivisionError" in sentence and sentence.endswith("Try again.")


@pytest.mark.parametrize("mode", list(Mode))
def test_a_runtime_that_raises_fails_its_side_alone(stable: Stable, mode: Mode):
    def script(request: object) -> Iterator[int]:
        yield 40
        raise GenerationError("It broke; wait.")

    stable.add("one", script)
    second = stable.hold("two")
    match = Match(setup("one", "two", mode=mode), stable, USER)
    eventually(lambda: match.state(0) is SideState.FAILED)
    assert match.error(0) == "It broke; wait." and match.answers[0].token_ids == (40,)
    second.let(2)
    eventually(lambda: tokens(match, 1) == 2)
    second.open()
    assert match.wait(PATIENCE_S)
    assert match.state(1) is SideState.DONE


# Without references


class Recorder(JobObserver):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def ended(self, job, answer) -> None:
        self.texts.append(answer.text)


def test_comparison_without_references_completes_and_is_freed(stable: Stable):
    first, recorder = stable.hold("one"), Recorder()
    stable.add("two", "It is quiet.")
    stable.observers["two"] = recorder
    match = Match(setup("one", "two"), stable, USER)
    assert first.begun.wait(PATIENCE_S)
    trace = weakref.ref(match)
    del match
    gc.collect()
    first.open()
    eventually(lambda: recorder.texts == ["It is quiet."])

    def forgotten() -> bool:
        gc.collect()
        return trace() is None

    eventually(forgotten)


def test_twenty_concurrent_comparisons_do_not_mix_answers(stable: Stable):
    for name in ("one", "two"):

        def script(request, name=name) -> list[int]:
            # Answers with the last tokens of its own prompt, so that a mix-up is detected.
            return list(request.prompt_ids[-12:])

        stable.add(name, script)
    matches = []
    for number in range(20):
        request = GenerationRequest(f"Say {number} and {number * 7919}.", sampling=GREEDY)
        sides = (spec("one"), spec("two"))
        mode = Mode.RACE if number % 2 else Mode.FAIR
        matches.append(Match(Setup(sides, request, mode), stable, USER))
    for match in matches:
        assert match.wait(PATIENCE_S)
        assert [match.state(side) for side in (0, 1)] == [SideState.DONE] * 2
    texts = [tuple(answer.token_ids for answer in match.answers) for match in matches]
    assert all(first == second for first, second in texts)
    prompts = {tuple(r.prompt_ids[-12:]) for r in stable.handles["one"].model.requests}
    assert {first for first, _ in texts} == prompts


# Regenerate


def sampled(stable: Stable) -> Match:
    for name in ("one", "two"):
        # The answer contains the seed.
        stable.add(name, lambda request: [40 + request.sampling.seed % 7] * 3)
    sampling = SamplingSettings(max_new_tokens=3, seed=1)
    match = Match(setup("one", "two", sampling=sampling), stable, USER)
    assert match.wait(PATIENCE_S)
    return match


def test_regenerate_all_sides_with_a_new_seed(stable: Stable):
    match = sampled(stable)
    seeds = set()
    for _ in range(3):
        again = match.regenerate()
        assert again.wait(PATIENCE_S) and again.id != match.id
        assert again.answers[0].seed == again.answers[1].seed
        seeds.add(again.answers[0].seed)
    assert len(seeds) == 3
    assert [answer.seed for answer in match.answers] == [1, 1]


def test_regenerate_one_side_keeps_the_other_answer(stable: Stable):
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


def test_regenerate_after_failed_and_skipped_sides(stable: Stable):
    stable.failures["one"] = OutOfOrder("It is closed; open it.")
    held = stable.hold("two")
    stable.add("three", "It is quiet.")
    match = Match(setup("one", "two", "three"), stable, USER)
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
    assert match.state(0) is SideState.FAILED  # unchanged


def test_regenerate_requires_a_finished_comparison_and_a_valid_seed(stable: Stable):
    held = stable.hold("one")
    stable.add("two", "It is quiet.")
    match = Match(setup("one", "two", sampling=replace(GREEDY, greedy=False)), stable, USER)
    with pytest.raises(ModelBusyError):
        match.regenerate()
    held.open()
    assert match.wait(PATIENCE_S)
    with pytest.raises(BadRequestError):
        match.regenerate(seed=-1)


def test_one_side_goes_on_from_another_beginning(stable: Stable):
    match = sampled(stable)
    again = match.regenerate(1, beginning="It is")
    assert again.wait(PATIENCE_S)
    assert again.jobs[0] is match.jobs[0] and stable.started == ["one", "two", "two"]
    asked = stable.handles["two"].model.requests
    prompts = [stable.tokenizer.decode(each.prompt_ids) for each in asked]
    assert prompts[1] == prompts[0] + "It is"
    assert again.text(1) == f"It is{again.answers[1].text}" and again.text(0) == match.text(0)
    assert [again.request(side).continues for side in (0, 1)] == ["", "It is"]
    kept = again.regenerate(0)
    assert kept.wait(PATIENCE_S) and kept.request(1).continues == "It is"
    whole = again.regenerate(1)
    assert whole.wait(PATIENCE_S) and whole.request(1).continues == ""


def test_a_remote_side_does_not_go_on_from_a_beginning(stable: Stable):
    stable.add("one", "It is quiet.")
    sides = (spec("one"), ModelSpec.of_remote("remote:office/tiny"))
    match = Match(Setup(sides, GenerationRequest("Why?", sampling=GREEDY), Mode.FAIR), stable, USER)
    assert match.wait(PATIENCE_S)
    with pytest.raises(BadRequestError, match="B runs on a remote server"):
        match.regenerate(1, beginning="It is")


def test_model_can_race_against_itself(stable: Stable):
    held: Held = stable.hold("one", 5)
    match = Match(setup("one", "one", mode=Mode.RACE), stable, USER)
    assert held.begun.wait(PATIENCE_S)
    held.open()
    assert match.wait(PATIENCE_S)
    assert [answer.contended for answer in match.answers] == [False, False]


# The cores


def test_side_with_the_cores_apart_is_marked(stable: Stable, cores: FakeCores):
    stable.add("one", "It is quiet."), stable.add("two", "It is quiet.")
    cores.to_come = [NEAR_NS, NEAR_NS, NEAR_NS, APART_NS]  # before and after each side
    match = Match(setup("one", "two"), stable, USER)
    assert match.wait(PATIENCE_S)
    assert [match.timing(side).cores_apart for side in (0, 1)] == [False, True]
    again = match.regenerate(0)
    assert again.wait(PATIENCE_S)
    assert [again.timing(side).cores_apart for side in (0, 1)] == [False, True], (
        "kept with its answer"
    )


def test_first_comparison_is_judged_by_later_latencies(stable: Stable, cores: FakeCores):
    stable.add("one", "It is quiet.")
    cores.to_come = [APART_NS] * 4
    match = Match(setup("one", "one"), stable, USER)
    assert match.wait(PATIENCE_S)
    assert not match.timing(0).cores_apart, "nothing shorter was seen yet"
    cores.note(NEAR_NS)
    assert match.timing(0).cores_apart and match.timing(1).cores_apart


def test_cores_are_not_reported_if_irrelevant_or_unknown(
    stable: Stable, cores: FakeCores, monkeypatch: pytest.MonkeyPatch
):
    cores.note(NEAR_NS)
    stable.add("one", "It is quiet.")
    on_gpu = stable.add("two", "It is quiet.")
    on_gpu.conditions = replace(on_gpu.conditions, devices_used=("GPU",))
    cores.to_come = [APART_NS, None, APART_NS, APART_NS]
    match = Match(setup("one", "two"), stable, USER)
    assert match.wait(PATIENCE_S)
    assert [match.timing(side).cores_apart for side in (0, 1)] == [False, False]
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "LONGEST_JUDGED_S", 0.0)  # they may move during a long answer
        cores.to_come = [APART_NS] * 4
        long = Match(setup("one", "one"), stable, USER)
        assert long.wait(PATIENCE_S) and not long.timing(0).cores_apart
    cores.to_come = [APART_NS] * 4
    race = Match(setup("one", "one", mode=Mode.RACE), stable, USER)
    assert race.wait(PATIENCE_S) and not race.timing(0).cores_apart
    assert len(cores.to_come) == 4, "a race is contended as it is"


def test_deferred_comparison_waits_for_near_cores(
    stable: Stable, cores: FakeCores, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(match_module.psutil, "cpu_percent", lambda interval: 0.0)
    monkeypatch.setattr(match_module, "IDLE_WAIT_S", PATIENCE_S)
    cores.note(NEAR_NS)
    stable.add("one", "It is quiet.")
    cores.to_come = [APART_NS, APART_NS, NEAR_NS]
    match = Match(setup("one", "one"), stable, USER, deferred=True)
    match.begin()
    assert match.wait(PATIENCE_S) and not match.timing(0).cores_apart
    monkeypatch.setattr(match_module, "IDLE_WAIT_S", 0.05)
    cores.to_come = [APART_NS] * 1_000_000
    impatient = Match(setup("one", "one"), stable, USER, deferred=True)
    impatient.begin()
    assert impatient.wait(PATIENCE_S) and impatient.timing(0).cores_apart


def test_real_core_latency_leaves_no_process_behind():
    found = Cores()
    with found.watched() as look:
        seen = look()
        assert seen is None or seen > 0
    assert not found.apart(seen) and not found.apart(None)
    assert seen is None or found.apart(10 * seen)
