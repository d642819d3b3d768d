"""Tests of the Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.catalogue import Precision
from core.db import Origin
from core.inference.answer import Answer, StopReason
from core.inference.prometheus import MetricsObserver, ServerMetrics, ServerState
from core.inference.timing import measure
from core.runtimes.spec import ModelSpec

SPEC = ModelSpec("paddock-neox", Precision.INT8, "CPU")
MODEL = {"model": "paddock-neox", "precision": "int8", "device": "CPU", "runtime": "genai"}

Read = Callable[..., float | None]


def answer(reason: StopReason = StopReason.END_OF_TEXT, tokens: int = 5) -> Answer:
    """Return an answer of ``tokens`` tokens, 20 ms to the first and 2 ms for each further one."""
    stamps_s = [0.020 + 0.002 * count for count in range(tokens)]
    timings = measure(0.0, 0.0, stamps_s[-1], 7, stamps_s)
    return Answer("text", tuple(range(tokens)), (), reason, None, timings=timings)


@pytest.fixture
def states() -> list[ServerState]:
    """States of the server; the last one is current."""
    return [ServerState(waiting=0, running=0, loaded=())]


@pytest.fixture
def metrics(states: list[ServerState]) -> ServerMetrics:
    return ServerMetrics(lambda: states[-1])


@pytest.fixture
def read(metrics: ServerMetrics) -> Read:
    """Return a function that scrapes the value of one sample; None if there is none."""

    def sample(name: str, **labels: str) -> float | None:
        text, kind = metrics.exposition("text/plain")
        assert kind.startswith("text/plain")
        for family in text_string_to_metric_families(text.decode()):
            for each in family.samples:
                if each.name == name and labels.items() <= each.labels.items():
                    return each.value
        return None

    return sample


def test_answers_are_counted_with_tokens_and_times(metrics: ServerMetrics, read: Read) -> None:
    metrics.count_answer(SPEC, Origin.API, answer())
    metrics.count_answer(SPEC, Origin.API, answer(tokens=3))
    assert read("paddock_answers_total", **MODEL, origin="api", stop_reason="end of text") == 2
    assert read("paddock_prompt_tokens_total", **MODEL) == 14
    assert read("paddock_new_tokens_total", **MODEL) == 8
    assert read("paddock_time_to_first_token_seconds_sum") == pytest.approx(0.040)
    assert read("paddock_time_to_first_token_seconds_bucket", le="0.01") == 0
    assert read("paddock_time_to_first_token_seconds_bucket", le="0.025") == 2
    assert read("paddock_time_per_output_token_seconds_sum") == pytest.approx(0.004)


def test_answer_of_one_token_has_no_time_per_token(metrics: ServerMetrics, read: Read) -> None:
    metrics.count_answer(SPEC, Origin.INSTRUCT, answer(tokens=1))
    assert read("paddock_time_to_first_token_seconds_count") == 1
    assert read("paddock_time_per_output_token_seconds_count") in (None, 0)


def test_failed_answer_is_counted_without_times(metrics: ServerMetrics, read: Read) -> None:
    failed = Answer("", (), (), StopReason.ERROR, None)
    metrics.count_answer(SPEC, Origin.COMPARE, failed)
    assert read("paddock_answers_total", origin="compare", stop_reason="error") == 1
    assert read("paddock_time_to_first_token_seconds_count") is None


def test_requests_are_counted_by_route_and_status(metrics: ServerMetrics, read: Read) -> None:
    for status in (200, 200, 499):
        metrics.count_request("/v1/models", "GET", status)
    assert read("paddock_api_requests_total", route="/v1/models", status="200") == 2
    assert read("paddock_api_requests_total", route="/v1/models", status="499") == 1


def test_current_state_is_read_at_each_scrape(
    metrics: ServerMetrics, read: Read, states: list[ServerState]
) -> None:
    assert read("paddock_models_loaded") == 0
    assert read("paddock_model_loaded") is None
    states.append(ServerState(waiting=3, running=2, loaded=(SPEC,)))
    assert read("paddock_answers_waiting") == 3
    assert read("paddock_answers_under_way") == 2
    assert read("paddock_models_loaded") == 1
    assert read("paddock_model_loaded", **MODEL) == 1
    private = read("paddock_process_memory_bytes", kind="private")
    assert private is not None and private > 10**7


def test_state_is_not_read_before_a_scrape() -> None:
    def never() -> ServerState:
        raise AssertionError("read")

    ServerMetrics(never)


def test_the_observer_counts_an_answer(metrics: ServerMetrics, read: Read) -> None:
    class SomeJob:
        spec = SPEC

    MetricsObserver(metrics, Origin.API).ended(SomeJob(), answer())  # type: ignore[arg-type]
    assert read("paddock_answers_total") == 1
