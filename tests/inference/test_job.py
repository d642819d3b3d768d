"""Tests of answers with a fake runtime: stop reasons, results, messages."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable

import pytest
from transformers import AutoTokenizer

from core.errors import BadRequestError, GenerationError, ModelBusyError, PromptTooLongError
from core.inference.answer import Answer, StopReason
from core.inference.job import Job, JobObserver, Phase
from core.inference.request import GenerationRequest
from core.runtimes.spec import SamplingSettings
from tests.builders import tiny_tokenizer
from tests.fakes import FakeHandle, FakeModel, Script
from tests.waiting import PATIENCE_S, eventually

GREEDY = SamplingSettings(greedy=True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    """A tokenizer with Dolly's special tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory):
    """A tokenizer without them, so that Dolly's stop marker is several ordinary tokens."""
    folder = tmp_path_factory.mktemp("bare")
    tiny_tokenizer(folder, special_tokens=())
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def saying(tokenizer) -> Callable[..., FakeHandle]:
    """Return a function that makes the handle of a model with a given answer (text or ids)."""

    def make(said: str | list[int], *, of=tokenizer, **options: object) -> FakeHandle:
        ids = of(said, add_special_tokens=False)["input_ids"] if isinstance(said, str) else said
        return FakeHandle(FakeModel(of, lambda request: ids, **options))

    return make


def scripted(tokenizer, script: Script, **options: object) -> FakeHandle:
    return FakeHandle(FakeModel(tokenizer, script), **options)


def start(handle: FakeHandle, *, timeout_s: float = PATIENCE_S, observer=None, **request) -> Job:
    asked = {"instruction": "Why?", "sampling": GREEDY} | request
    wanted = GenerationRequest(**asked)
    observers = [] if observer is None else [observer]
    return Job(handle, wanted, handle.scheduler, timeout_s=timeout_s, observers=observers).start()


def queued(handle: FakeHandle) -> int:
    """Number of answers in the queue, running ones included."""
    return sum(map(len, handle.scheduler._queues.values()))


def ended(job: Job) -> Answer:
    assert job.wait(PATIENCE_S)
    assert job.answer is not None
    return job.answer


class Watcher(JobObserver):
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def started(self, job: Job) -> None:
        assert job.lease is not None and job.prompt_format == "dolly"
        self.calls.append("started")

    def ended(self, job: Job, answer: Answer) -> None:
        self.calls.append(answer)


# Stop reasons


def test_end_of_text(saying, tokenizer):
    ids = tokenizer("It is quiet.", add_special_tokens=False)["input_ids"]
    answer = ended(start(saying([*ids, 0, *ids])))
    assert answer.stop_reason is StopReason.END_OF_TEXT
    assert answer.text == "It is quiet."
    assert answer.token_ids == (*ids, 0)  # the end-of-text token was generated and counts
    assert answer.timings.new_tokens == len(ids) + 1 == len(answer.token_times_ms)


def test_end_of_text_at_any_id_of_the_generation_configuration(saying, tokenizer):
    ids = tokenizer("It is", add_special_tokens=False)["input_ids"]
    answer = ended(start(saying([*ids, 77, *ids], end_ids=(0, 77))))
    assert answer.stop_reason is StopReason.END_OF_TEXT
    assert answer.text == "It is"


@pytest.mark.parametrize("ends", [(0,), "with the marker"])
def test_stop_marker_token_is_not_shown(ends, saying, tokenizer):
    marker = tokenizer.convert_tokens_to_ids("### End")
    ids = tokenizer("It is quiet.\n\n", add_special_tokens=False)["input_ids"]
    end_ids = (0, marker) if isinstance(ends, str) else ends
    answer = ended(start(saying([*ids, marker, *ids], end_ids=end_ids)))
    assert answer.stop_reason is StopReason.STOP_MARKER
    assert answer.text == "It is quiet."
    assert answer.token_ids[-1] == marker


def test_stop_marker_text_without_a_token_for_it(saying, bare):
    handle = saying("It is # quiet.\n\n### End and so on", of=bare)
    job = start(handle)
    answer = ended(job)
    assert answer.stop_reason is StopReason.STOP_MARKER
    assert answer.text == "It is # quiet."
    assert "###" not in "".join(job.read(0)[0])
    marker = bare("### End", add_special_tokens=False)["input_ids"]
    assert answer.token_ids[-1] == marker[-1]  # it ended with the marker's last token


def test_stop_marker_at_a_stop_line(saying):
    handle = saying("The FAQ: is short.\nQ: What else?\nA: Nothing.")
    answer = ended(start(handle, prompt_format="red-pajama"))
    assert answer.stop_reason is StopReason.STOP_MARKER
    assert answer.text == "The FAQ: is short."


def test_length(saying, tokenizer):
    handle = saying("The cat is playing in the garden. " * 9)
    answer = ended(start(handle, sampling=SamplingSettings(max_new_tokens=7, greedy=True)))
    assert answer.stop_reason is StopReason.LENGTH
    assert len(answer.token_ids) == 7
    assert answer.text == tokenizer.decode(answer.token_ids).strip()


def test_cancelled_between_two_tokens_ends_with_the_next_token(tokenizer):
    jobs: list[Job] = []

    def script(request):
        for number in range(1, 99):
            if number == 6:
                jobs[0].cancel()
            yield 40

    handle, request = scripted(tokenizer, script), GenerationRequest("Why?", sampling=GREEDY)
    job = Job(handle, request, handle.scheduler, timeout_s=PATIENCE_S)
    jobs.append(job)
    answer = ended(job.start())
    assert answer.stop_reason is StopReason.CANCELLED
    assert len(answer.token_ids) == 6
    assert answer.text and answer.error is None


def test_cancelled_in_prefill(tokenizer):
    handle = scripted(tokenizer, lambda request: iter([]))
    entered = threading.Event()

    def script(request):
        entered.set()
        handle.model.prefill_until_interrupted()
        yield 1

    handle.model._script = script
    job = start(handle)
    assert entered.wait(PATIENCE_S)
    eventually(lambda: job.snapshot().phase is Phase.PREFILL)
    job.cancel()
    answer = ended(job)
    assert answer.stop_reason is StopReason.CANCELLED
    assert answer.token_ids == () and answer.timings.ttft_ms is None


def test_timeout_in_prefill_and_during_generation(tokenizer):
    handle = scripted(tokenizer, lambda request: iter([]))

    def endless_prefill(request):
        handle.model.prefill_until_interrupted()
        yield 1

    handle.model._script = endless_prefill
    assert ended(start(handle, timeout_s=0.05)).stop_reason is StopReason.TIMEOUT

    def endless(request):
        yield 40
        assert handle.model.interrupted.wait(PATIENCE_S)
        yield 40

    handle.model._script = endless
    answer = ended(start(handle, timeout_s=0.1))
    assert answer.stop_reason is StopReason.TIMEOUT and answer.text


@pytest.mark.parametrize(
    "failure", [RuntimeError("line 1\nline 2"), ValueError("x"), GenerationError("It broke; wait.")]
)
def test_text_is_kept_when_the_runtime_fails(failure, tokenizer):
    ids = tokenizer("It is", add_special_tokens=False)["input_ids"]

    def script(request):
        yield from ids
        raise failure

    watcher = Watcher()
    job = start(scripted(tokenizer, script), observer=watcher)
    answer = ended(job)
    assert answer.stop_reason is StopReason.ERROR
    assert answer.text == "It is" and answer.token_ids == tuple(ids)
    assert answer.timings.new_tokens == len(ids) and answer.timings.ttft_ms is not None
    assert isinstance(answer.error, GenerationError)
    assert "\n" not in answer.error_sentence and answer.error_sentence.endswith(".")
    assert watcher.calls == ["started", answer]
    assert job.snapshot().message == answer.error_sentence
    assert queued(job._handle) == 0


def test_failure_before_the_first_token(tokenizer):
    def script(request):
        raise MemoryError
        yield

    answer = ended(start(scripted(tokenizer, script)))
    assert answer.stop_reason is StopReason.ERROR and answer.text == ""
    assert "MemoryError" in answer.error_sentence


def test_full_queue(tokenizer):
    release = threading.Event()

    def script(request):
        assert release.wait(PATIENCE_S)
        yield 40

    handle = scripted(tokenizer, script, limit=1)
    jobs = [start(handle, sampling=SamplingSettings(max_new_tokens=1)) for _ in range(2)]
    eventually(lambda: queued(handle) == 2)
    watcher = Watcher()
    answer = ended(start(handle, observer=watcher))
    assert isinstance(answer.error, ModelBusyError)
    assert watcher.calls == ["started", answer]
    release.set()
    assert [ended(job).stop_reason for job in jobs] == [StopReason.LENGTH] * 2


def test_answer_cancelled_in_the_queue_is_recorded(tokenizer):
    release = threading.Event()

    def script(request):
        assert release.wait(PATIENCE_S)
        yield 40

    handle, watcher = scripted(tokenizer, script), Watcher()
    first = start(handle, sampling=SamplingSettings(max_new_tokens=1))
    eventually(lambda: first.snapshot().phase is Phase.PREFILL)
    second = start(handle, observer=watcher)
    eventually(lambda: second.snapshot().place == 1)
    snapshot = second.snapshot()
    assert snapshot.phase is Phase.QUEUED and snapshot.elapsed_s == 0
    assert snapshot.message == "Waiting in queue: 1 answer ahead."
    second.cancel()
    answer = ended(second)
    assert answer.stop_reason is StopReason.CANCELLED
    assert watcher.calls == ["started", answer]
    assert answer.timings.queue_ms > 0 and answer.timings.new_tokens == 0
    assert not first.done
    release.set()
    ended(first)
    assert len(handle.model.requests) == 1


def test_answers_run_in_queue_order(tokenizer):
    order, gates, held_s = [], [threading.Event() for _ in range(4)], 0.05

    def script(request):
        number = len(order)
        order.append(request.sampling.seed)
        assert gates[number].wait(PATIENCE_S)
        yield 40

    handle = scripted(tokenizer, script)
    jobs = []
    for seed in range(4):
        jobs.append(start(handle, sampling=SamplingSettings(max_new_tokens=1, seed=seed)))
        eventually(lambda: queued(handle) == len(jobs))
    eventually(lambda: [job.snapshot().place for job in jobs] == [0, 1, 2, 3])
    time.sleep(held_s)
    for gate in gates:
        gate.set()
    for job in jobs:
        ended(job)
    assert order == [0, 1, 2, 3]
    assert all(job.answer.timings.queue_ms >= 0 for job in jobs)
    assert jobs[3].answer.timings.queue_ms >= 1000 * held_s


# Rejected requests


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest(""),
        GenerationRequest(" \n "),
        GenerationRequest("a\x00b"),
        GenerationRequest("a\udc80"),
        GenerationRequest("Why?", sampling=SamplingSettings(temperature=math.nan)),
        GenerationRequest("Why?", sampling=SamplingSettings(max_new_tokens=0)),
    ],
)
def test_invalid_request_starts_nothing(request_, saying):
    handle = saying("no")
    with pytest.raises(BadRequestError):
        Job(handle, request_, handle.scheduler, timeout_s=PATIENCE_S, user="ada")
    assert handle.model.requests == [] and queued(handle) == 0


def test_error_for_a_prompt_that_is_too_long_has_the_numbers(saying, tokenizer):
    handle, watcher = saying("no", positions=300), Watcher()
    answer = ended(start(handle, instruction="word " * 20_000, observer=watcher))
    assert isinstance(answer.error, PromptTooLongError)
    sentence = answer.error_sentence
    found = re.match(
        r"The prompt has ([\d,]+) tokens, but the context length of Dolly 2\.0 3B is 300, ",
        sentence,
    )
    assert int(found[1].replace(",", "")) > 20_000
    assert "Shorten the text" in sentence and "\n" not in sentence
    assert handle.model.requests == [] and watcher.calls == []


def test_new_tokens_are_limited_to_the_rest_of_the_context_length(saying):
    handle = saying("no " * 400, positions=300)
    answer = ended(start(handle, sampling=SamplingSettings(max_new_tokens=1000, greedy=True)))
    assert answer.stop_reason is StopReason.LENGTH
    assert answer.timings.prompt_tokens + answer.timings.new_tokens == 300


def test_model_with_unlimited_context_accepts_any_length(saying):
    assert ended(start(saying("It is", positions=None))).error is None


def test_prompt_follows_the_prompt_format(saying, tokenizer):
    handle = saying("It is")
    answer = ended(start(handle, context="It rains."))
    text = tokenizer.decode(handle.model.requests[0].prompt_ids)
    assert text.endswith("### Instruction:\nWhy?\n\nInput:\nIt rains.\n\n### Response:\n")
    assert answer.prompt_format == "dolly"
    assert answer.timings.prompt_tokens == len(handle.model.requests[0].prompt_ids)


# Progress and results


def test_text_equals_the_tokenizers_for_any_characters(saying, tokenizer):
    said = "Grüße, 世界! 👩‍👩‍👧‍👦 naïve 🇩🇪 ≥ 3 — “ok”"
    job = start(saying(said))
    answer = ended(job)
    assert answer.text == said == "".join(job.read(0)[0])
    assert answer.text == tokenizer.decode(answer.token_ids, skip_special_tokens=True)


def test_reading_continues_from_the_returned_index(tokenizer):
    steps = [threading.Event() for _ in range(3)]

    def script(request):
        for step, text in zip(steps, ("The", " cat", " is"), strict=True):
            assert step.wait(PATIENCE_S)
            yield from tokenizer(text, add_special_tokens=False)["input_ids"]

    job = start(scripted(tokenizer, script))
    assert job.read(0) == ([], 0)
    steps[0].set()
    eventually(lambda: "".join(job.read(0)[0]) == "The")
    _, at = job.read(0)
    snapshot = job.snapshot()
    assert snapshot.phase is Phase.ANSWERING and snapshot.new_tokens >= 1
    assert snapshot.elapsed_s > 0 and not job.done and job.answer is None
    steps[1].set()
    steps[2].set()
    ended(job)
    assert "".join(job.read(at)[0]) == " cat is"
    assert job.snapshot().phase is Phase.DONE


def test_timings_match_the_tokens(tokenizer):
    gap_s, prefill_s, after_s = 0.03, 0.1, 0.05
    begun: list[float] = []
    # A token's timestamp lies between the two: nothing here depends on the machine's speed.
    sent: list[float] = []
    taken: list[float] = []

    def script(request):
        begun.append(time.perf_counter())
        time.sleep(prefill_s)
        for _ in range(6):
            time.sleep(gap_s)
            sent.append(time.perf_counter())
            yield 40
            taken.append(time.perf_counter())
        time.sleep(after_s)

    before = time.perf_counter()
    job = start(scripted(tokenizer, script))
    timings = ended(job).timings
    whole_ms = 1000 * (time.perf_counter() - before)
    assert 1000 * (sent[0] - begun[0]) <= timings.ttft_ms <= 1000 * (taken[0] - before)
    assert 1000 * (sent[5] - taken[0]) <= 5 * timings.tpot_ms <= 1000 * (taken[5] - sent[0])
    assert timings.total_ms >= timings.ttft_ms + 5 * timings.tpot_ms + 1000 * after_s - 1
    assert timings.decode_tokens_per_s == pytest.approx(1000 / timings.tpot_ms)
    assert 0 <= timings.queue_ms <= 1000 * (begun[0] - before)
    assert timings.queue_ms + timings.total_ms <= whole_ms
    times = job.answer.token_times_ms
    assert times[0] == pytest.approx(timings.ttft_ms)
    assert (times[-1] - times[0]) / 5 == pytest.approx(timings.tpot_ms)
    assert job.snapshot().elapsed_s == pytest.approx(timings.total_ms / 1000)
    assert job.snapshot().tokens_per_s == pytest.approx(timings.decode_tokens_per_s)


def test_one_token_has_no_rate(saying):
    job = start(saying([40]))
    timings = ended(job).timings
    assert timings.tpot_ms is None and timings.decode_tokens_per_s is None
    assert job.snapshot().tokens_per_s is None


def test_failing_observer_does_not_affect_the_answer(saying):
    class Broken(JobObserver):
        def started(self, job: Job) -> None:
            raise ZeroDivisionError

        def ended(self, job: Job, answer: Answer) -> None:
            raise ZeroDivisionError

    answer = ended(start(saying("It is quiet."), observer=Broken()))
    assert answer.text == "It is quiet." and answer.error is None


def test_finished_job_does_not_keep_the_model(saying):
    job = start(saying("It is quiet."))
    assert ended(job).conditions is not None
    assert job.lease is None


# Contention


def test_concurrent_answers_are_contended_and_a_single_one_is_not(tokenizer):
    assert not ended(start(scripted(tokenizer, lambda request: [40, 41]))).contended
    both = threading.Barrier(2)

    def script(request):
        yield 40
        both.wait(PATIENCE_S)
        yield 41

    jobs = [start(scripted(tokenizer, script)) for _ in range(2)]
    assert [ended(job).contended for job in jobs] == [True, True]
    assert not ended(start(scripted(tokenizer, lambda request: [40, 41]))).contended


def test_waiting_in_the_queue_is_not_contention(tokenizer):
    handle = scripted(tokenizer, lambda request: [40] * 20)
    jobs = [start(handle) for _ in range(5)]
    assert [ended(job).contended for job in jobs] == [False] * 5
