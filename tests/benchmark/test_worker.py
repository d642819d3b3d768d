"""The worker's work inside its process, with a scripted model."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.benchmark import stopping, worker
from core.benchmark.worker import measure
from core.catalogue import Precision
from core.errors import (
    CorruptModelError,
    GenerationError,
    NotEnoughMemoryError,
)
from core.runtimes.base import Conditions
from core.runtimes.spec import (
    AUTO_SPECULATION,
    ExecutionHints,
    GenAIOptions,
    ModelSpec,
    SamplingSettings,
    Structure,
    TokenRequest,
)
from core.workers.child import Channel, from_json, to_line
from tests.waiting import PATIENCE_S

SPEC = ModelSpec("mine", Precision.INT8, "CPU")


class Model:
    """Answers with as many tokens as it is told, or fewer."""

    positions = 100
    end_ids = frozenset({0})
    conditions = Conditions("f32", "u8", ("CPU",), 2, {"INFERENCE_PRECISION_HINT": "f32"})

    def __init__(self, most: int = 1000) -> None:
        self.asked: list[TokenRequest] = []
        self._most = most

    @staticmethod
    def tokenizer(text: str, **_options) -> dict[str, list[int]]:
        return {"input_ids": [len(word) for word in text.split()]}

    def generate(self, request: TokenRequest, on_token) -> None:
        self.asked.append(request)
        for _ in range(min(request.sampling.max_new_tokens, self._most)):
            on_token(0)


class Runtime:
    def __init__(self, model: Model) -> None:
        self._model = model

    def prepare(self, folder: Path | None = None) -> None:
        pass

    def load(self, folder: Path, spec: ModelSpec) -> Model:
        return self._model


@pytest.fixture(autouse=True)
def _as_many_answers_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted model answers in no time, except on a busy machine."""
    monkeypatch.setattr(stopping, "SHORTEST_S", 0.0)
    monkeypatch.setattr(stopping, "LONGEST_JUDGED_S", PATIENCE_S)


def events(
    model: Model, prompts: list[tuple[int, int]], new_tokens: int = 8, **known: Any
) -> list[dict]:
    heard = io.StringIO()
    measure(
        Runtime(model),
        Path(),
        SPEC,
        prompts=prompts,
        new_tokens=new_tokens,
        channel=Channel(heard),
        **known,
    )
    return [json.loads(line) for line in heard.getvalue().splitlines()]


def test_answers_are_greedy_forced_and_each_length_is_warmed_up():
    model = Model()
    said = events(model, [(32, 2), (8, 1)])
    lengths = [(len(one.prompt_ids), one.sampling.max_new_tokens) for one in model.asked]
    # The shortest first, whatever the order, so that load times compare.
    assert lengths == [(8, 4), (32, 4), (32, 8), (32, 8), (8, 8)]
    assert all(one.sampling.greedy and not one.stop_ids for one in model.asked)
    told = [event["event"] for event in said if event["event"] != "progress"]
    assert told == ["loaded", "begin", "sample", "sample", "end", "begin", "sample", "end"]


def test_short_answers_are_timed_more_often(monkeypatch):
    monkeypatch.setattr(stopping, "SHORTEST_S", 60.0)
    monkeypatch.setattr(stopping, "MOST_ANSWERS", 7)
    said = events(Model(), [(8, 2), (32, 9)])
    assert [event["prompt_tokens"] for event in said if event["event"] == "sample"] == [
        *[8] * 7,
        *[32] * 9,
    ]


def test_each_answer_records_core_latency():
    distances = iter([110.0, 112.0, 300.0, 111.0, 109.0, None, 108.0, 107.0])
    said = events(
        Model(), [(8, 2), (32, 2)], core_latency=lambda: next(distances), nearest_ns=100.0
    )
    told = [(e["prompt_tokens"], e["core_distance_ns"]) for e in said if e["event"] == "sample"]
    # Answers with the cores apart do not count among those that were asked for.
    assert told == [(8, 112.0), (8, 300.0), (8, 300.0), (8, 111.0), (32, None), (32, 108.0)]


@pytest.mark.parametrize("devices", [("GPU.0",), ("CPU", "(GPU.0)"), ()])
def test_core_latency_is_not_measured_on_other_devices(devices):
    model = Model()
    model.conditions = replace(Model.conditions, devices_used=devices)
    said = events(model, [(8, 2)], core_latency=lambda: pytest.fail("asked"))
    told = [event["core_distance_ns"] for event in said if event["event"] == "sample"]
    assert told == [None, None]


def test_an_answer_of_one_token_has_no_rate_and_short_warm_up():
    model = Model()
    said = events(model, [(8, 1)], new_tokens=1)
    assert [one.sampling.max_new_tokens for one in model.asked] == [1, 1]
    sample = next(event for event in said if event["event"] == "sample")
    assert sample["tpot_ms"] is None and len(sample["token_times_ms"]) == 1


def test_truncated_answer_is_an_error():
    with pytest.raises(GenerationError, match="after 5 of 8 tokens"):
        events(Model(most=5), [(8, 1)])


@pytest.mark.parametrize(("every_s", "told"), [(0.0, 9), (PATIENCE_S, 1)])
def test_long_answers_report_progress(monkeypatch, every_s: float, told: int):
    monkeypatch.setattr(worker, "PROGRESS_EVERY_S", every_s)
    said = [event.get("message") for event in events(Model(), [(8, 1)])]
    assert said.count("Answering prompts of 8 tokens.") == told


@pytest.mark.parametrize(
    ("others_s", "wall_s", "contended"),
    [(0.0, 10.0, False), (2.0, 10.0, False), (3.0, 10.0, True), (0.05, 0.1, False)],
)
def test_contention_ignores_the_accounting_error(
    others_s: float, wall_s: float, contended: bool, monkeypatch
):
    clock = {"wall": 0.0, "own": 0.0, "busy": 0.0}
    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(worker.time, "process_time", lambda: clock["own"])
    monkeypatch.setattr(worker, "_machine_busy_s", lambda: clock["busy"])
    work = worker._ProcessorUse()
    clock.update(wall=wall_s, own=wall_s, busy=wall_s + others_s)
    figures = work.figures()
    assert figures["cpu_cores"] == pytest.approx(1)
    assert figures["other_cpu_cores"] == pytest.approx(others_s / wall_s)
    assert figures["contended"] is contended


def test_busy_time_is_at_most_that_of_all_cores():
    first = worker._machine_busy_s()
    assert 0 < first <= worker._machine_busy_s()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("Exception from src/x.cpp:1:\nstd::bad_alloc"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4 bytes"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_errors_are_recognised(error: Exception):
    wrapped = CorruptModelError("The files cannot be loaded.")
    wrapped.__cause__ = error
    assert isinstance(worker._describe(wrapped, {}), NotEnoughMemoryError)
    damaged = CorruptModelError("The files cannot be loaded.")
    assert worker._describe(damaged, {}) is damaged


@pytest.mark.parametrize("hints", [None, ExecutionHints("f32", "u8", 2)])
def test_spec_serialization_round_trip(hints: ExecutionHints | None):
    spec = ModelSpec("mine", Precision.INT4, "GPU.1", hints=hints)
    assert from_json(ModelSpec, json.loads(to_line(spec))) == spec


def test_conditions_serialization_round_trip():
    assert from_json(Conditions, json.loads(to_line(Model.conditions))) == Model.conditions


def test_request_serialization_round_trip():
    structure = Structure("regex", "a|b", "guided_regex")
    options = GenAIOptions(min_p=0.1, stop_token_ids=(7, 8), structure=structure)
    request = TokenRequest(
        (5, 6), SamplingSettings(seed=3), frozenset({0, 2}), options, speculation=AUTO_SPECULATION
    )
    assert from_json(TokenRequest, json.loads(to_line(request))) == request
