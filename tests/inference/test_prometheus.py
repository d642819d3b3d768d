"""The figures for Prometheus: what is counted, and what is read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.catalogue import Precision
from core.db import Origin
from core.inference.answer import Answer, StopReason
from core.inference.job import Job, JobObserver
from core.inference.prometheus import Metered, Meters, Standing
from core.inference.timing import measure
from core.runtimes.spec import ModelSpec

SPEC = ModelSpec("paddock-neox", Precision.INT8, "CPU")
MODEL = {"model": "paddock-neox", "precision": "int8", "device": "CPU", "runtime": "genai"}

Read = Callable[..., float | None]


def answer(reason: StopReason = StopReason.END_OF_TEXT, tokens: int = 5) -> Answer:
    """An answer of so many tokens, 20 ms to the first and 2 ms for each of the others."""
    stamps_s = [0.020 + 0.002 * count for count in range(tokens)]
    timings = measure(0.0, 0.0, stamps_s[-1], 7, stamps_s)
    return Answer("text", tuple(range(tokens)), (), reason, None, timings=timings)


@pytest.fixture
def standing() -> list[Standing]:
    """How the server stands; a test puts another in."""
    return [Standing(waiting=0, under_way=0, loaded=())]


@pytest.fixture
def meters(standing: list[Standing]) -> Meters:
    return Meters(lambda: standing[-1])


@pytest.fixture
def read(meters: Meters) -> Read:
    """The value of one sample as a scraper gets it; None where there is none."""

    def sample(name: str, **labels: str) -> float | None:
        text, kind = meters.exposition("text/plain")
        assert kind.startswith("text/plain")
        for family in text_string_to_metric_families(text.decode()):
            for each in family.samples:
                if each.name == name and labels.items() <= each.labels.items():
                    return each.value
        return None

    return sample


def test_an_answer_is_counted_with_its_tokens_and_times(meters: Meters, read: Read) -> None:
    meters.count_answer(SPEC, Origin.API, answer())
    meters.count_answer(SPEC, Origin.API, answer(tokens=3))
    assert read("paddock_answers_total", **MODEL, origin="api", stop_reason="end of text") == 2
    assert read("paddock_prompt_tokens_total", **MODEL) == 14
    assert read("paddock_new_tokens_total", **MODEL) == 8
    assert read("paddock_time_to_first_token_seconds_sum") == pytest.approx(0.040)
    assert read("paddock_time_to_first_token_seconds_bucket", le="0.01") == 0
    assert read("paddock_time_to_first_token_seconds_bucket", le="0.025") == 2
    assert read("paddock_time_per_output_token_seconds_sum") == pytest.approx(0.004)


def test_an_answer_of_one_token_has_no_time_per_token(meters: Meters, read: Read) -> None:
    meters.count_answer(SPEC, Origin.INSTRUCT, answer(tokens=1))
    assert read("paddock_time_to_first_token_seconds_count") == 1
    assert read("paddock_time_per_output_token_seconds_count") in (None, 0)


def test_an_answer_that_failed_is_counted_and_timed_nowhere(meters: Meters, read: Read) -> None:
    failed = Answer("", (), (), StopReason.ERROR, None)
    meters.count_answer(SPEC, Origin.COMPARE, failed)
    assert read("paddock_answers_total", origin="compare", stop_reason="error") == 1
    assert read("paddock_time_to_first_token_seconds_count") is None


def test_requests_are_counted_by_route_and_status(meters: Meters, read: Read) -> None:
    for status in (200, 200, 499):
        meters.count_request("/v1/models", "GET", status)
    assert read("paddock_api_requests_total", route="/v1/models", status="200") == 2
    assert read("paddock_api_requests_total", route="/v1/models", status="499") == 1


def test_what_is_true_now_is_read_when_it_is_asked_for(
    meters: Meters, read: Read, standing: list[Standing]
) -> None:
    assert read("paddock_models_loaded") == 0
    assert read("paddock_model_loaded") is None
    standing.append(Standing(waiting=3, under_way=2, loaded=(SPEC,)))
    assert read("paddock_answers_waiting") == 3
    assert read("paddock_answers_under_way") == 2
    assert read("paddock_models_loaded") == 1
    assert read("paddock_model_loaded", **MODEL) == 1
    private = read("paddock_process_memory_bytes", kind="private")
    assert private is not None and private > 10**7


def test_nothing_is_asked_before_a_scraper_comes() -> None:
    def never() -> Standing:
        raise AssertionError("asked")

    Meters(never)


def test_an_observer_of_a_job_is_told_all_the_same(meters: Meters, read: Read) -> None:
    told: list[str] = []

    class Inner(JobObserver):
        run_id = "a run"

        def started(self, job: Job) -> None:
            told.append("started")

        def ended(self, job: Job, answer: Answer) -> None:
            told.append("ended")

    class SomeJob:
        spec = SPEC

    metered = Metered(meters, Origin.API, Inner())
    metered.started(SomeJob())  # type: ignore[arg-type]
    metered.ended(SomeJob(), answer())  # type: ignore[arg-type]
    assert metered.run_id == "a run"
    assert told == ["started", "ended"]
    assert read("paddock_answers_total") == 1
