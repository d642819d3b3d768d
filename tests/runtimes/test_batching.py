"""Tests of the batching thread with a scripted pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from core.runtimes.batching import BatchedAnswer, Lane, Stepper
from core.runtimes.spec import SamplingSettings, TokenRequest
from tests.waiting import PATIENCE_S


class Output:
    def __init__(self, ids: list[int]) -> None:
        self.generated_ids = ids


class ScriptedHandle:
    """Generates one token per step until it is cancelled."""

    def __init__(self) -> None:
        self.running, self.cancelled, self.ready = True, False, [0][:0]

    def can_read(self) -> bool:
        return bool(self.ready)

    def read(self) -> dict[int, Output]:
        ids, self.ready = self.ready, []
        return {0: Output(ids)}

    def get_status(self) -> bool:
        return self.running

    def cancel(self) -> None:
        self.cancelled, self.running = True, False


class ScriptedPipeline:
    def __init__(self) -> None:
        self.handles: list[ScriptedHandle] = []
        self.steps = 0
        self.most_together = 0
        self.before_step: Callable[[], None] = lambda: None

    def admit(self, request: TokenRequest) -> ScriptedHandle:
        if not request.prompt_ids:
            raise RuntimeError("empty")
        self.handles.append(ScriptedHandle())
        return self.handles[-1]

    def step(self) -> None:
        self.before_step()
        self.steps += 1
        running = [handle for handle in self.handles if handle.running]
        self.most_together = max(self.most_together, len(running))
        for handle in running:
            handle.ready.append(self.steps)

    def has_non_finished_requests(self) -> bool:
        return any(handle.cancelled for handle in self.handles)


def answer(count: int, on_token: Callable[[int], bool] = lambda token: True) -> BatchedAnswer:
    return BatchedAnswer(TokenRequest((1,), SamplingSettings(max_new_tokens=count)), on_token)


@pytest.fixture
def pipeline() -> ScriptedPipeline:
    return ScriptedPipeline()


@pytest.fixture
def stepper(pipeline: ScriptedPipeline):
    made = Stepper(Lane(pipeline, pipeline.admit), lambda handle: handle.running)
    yield made
    made.close()


def test_answers_share_steps_and_end_independently(stepper, pipeline):
    gate = threading.Event()
    pipeline.before_step = lambda: gate.wait(PATIENCE_S)
    answers = [answer(count) for count in (3, 5, 8)]
    for one in answers:
        stepper.add(one)
    gate.set()
    assert all(one.ended.wait(PATIENCE_S) for one in answers)
    assert [one.tokens for one in answers] == [3, 5, 8]
    assert pipeline.most_together >= 2
    assert pipeline.steps <= 8 + 3, "one pass over the weights for all of them"


def test_idle_stepper_does_not_step(stepper, pipeline):
    one = answer(2)
    stepper.add(one)
    assert one.ended.wait(PATIENCE_S)

    def still() -> bool:
        steps = pipeline.steps
        threading.Event().wait(0.1)
        return pipeline.steps == steps

    assert any(still() for _ in range(20)) and pipeline.steps <= 3


def test_rejected_request_does_not_affect_other_answers(stepper, pipeline):
    rejected = BatchedAnswer(TokenRequest((), SamplingSettings()), lambda token: True)
    other = answer(4)
    stepper.add(rejected)
    stepper.add(other)
    assert rejected.ended.wait(PATIENCE_S) and other.ended.wait(PATIENCE_S)
    assert str(rejected.error) == "empty" and other.error is None and other.tokens == 4


def test_failing_step_fails_current_answers_only(stepper, pipeline):
    def fail() -> None:
        pipeline.before_step = lambda: None
        raise RuntimeError("no memory")

    pipeline.before_step = fail
    one = answer(4)
    stepper.add(one)
    assert one.ended.wait(PATIENCE_S)
    assert str(one.error) == "no memory" and pipeline.handles[0].cancelled
    later = answer(4)
    stepper.add(later)
    assert later.ended.wait(PATIENCE_S)
    assert later.error is None and later.tokens == 4


def test_exception_in_on_token_ends_only_its_answer(stepper, pipeline):
    def fail(token: int) -> bool:
        raise KeyError(token)

    failing, other = answer(4, fail), answer(4)
    stepper.add(failing)
    stepper.add(other)
    assert failing.ended.wait(PATIENCE_S) and other.ended.wait(PATIENCE_S)
    assert isinstance(failing.error, KeyError) and failing.tokens == 1
    assert other.error is None and other.tokens == 4


def test_interrupt_after_the_first_token_has_no_effect(stepper, pipeline):
    ready = threading.Event()
    one = answer(4, lambda token: ready.set() or one.interrupt() or True)
    stepper.add(one)
    assert one.ended.wait(PATIENCE_S)
    assert not one.interrupted and one.tokens == 4


def test_interrupt_before_the_first_token_ends_the_answer(stepper, pipeline):
    one = answer(4)
    one.interrupt()
    stepper.add(one)
    assert one.ended.wait(PATIENCE_S)
    assert one.interrupted and one.tokens == 0 and pipeline.handles[0].cancelled
