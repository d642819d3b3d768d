"""Prometheus metrics of the running server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from core.db import Origin
from core.hardware.devices import app_memory
from core.inference.answer import Answer
from core.inference.job import Job, JobObserver
from core.runtimes.spec import ModelSpec

_MODEL = ("model", "precision", "device", "runtime")

TTFT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""From a short prompt of a small model to a long one of a 12 B model on two cores."""
TPOT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""From 2,000 tokens/s to 1 token/s."""


@dataclass(frozen=True)
class ServerState:
    """State of the server at one moment."""

    waiting: int
    """Answers that wait for other answers of their user, for a model to load, or in its queue."""
    running: int
    """Answers in prefill or being generated."""
    loaded: tuple[ModelSpec, ...]
    """Models in memory."""


class ServerMetrics:
    """All metrics of one engine; thread-safe."""

    def __init__(self, state: Callable[[], ServerState]) -> None:
        """``state`` is called at each scrape."""
        self.registry = CollectorRegistry()
        self.registry.register(_StateCollector(state))
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, labelnames=_MODEL, registry=self.registry)
        self._requests = counter(
            "paddock_api_requests",
            "Requests to /v1 and /metrics; status 499: the client closed the connection.",
            ("route", "method", "status"),
        )
        self._answers = counter(
            "paddock_answers",
            "Answers that have ended, of pages, API and command line.",
            (*_MODEL, "origin", "stop_reason"),
        )
        self._prompt_tokens = counter("paddock_prompt_tokens", "Prompt tokens.", _MODEL)
        self._new_tokens = counter("paddock_new_tokens", "Generated tokens.", _MODEL)
        self._ttft = histogram(
            "paddock_time_to_first_token_seconds",
            "Start of work to first token; time in the queue is not included.",
            buckets=TTFT_BUCKETS_S,
        )
        self._tpot = histogram(
            "paddock_time_per_output_token_seconds",
            "(Last - first token time) / (tokens - 1), one sample per answer.",
            buckets=TPOT_BUCKETS_S,
        )

    def count_request(self, route: str, method: str, status: int) -> None:
        """Count a request to the API."""
        self._requests.labels(route, method, str(status)).inc()

    def count_answer(self, spec: ModelSpec, origin: Origin, answer: Answer) -> None:
        """Count an answer that has ended."""
        model = (spec.model, spec.precision_name, spec.device, spec.runtime.value)
        self._answers.labels(*model, origin.value, answer.stop_reason.value).inc()
        timings = answer.timings
        if timings is None:
            return
        self._prompt_tokens.labels(*model).inc(timings.prompt_tokens or 0)
        self._new_tokens.labels(*model).inc(timings.new_tokens)
        if timings.ttft_ms is not None:
            self._ttft.labels(*model).observe(timings.ttft_ms / 1000)
        if timings.tpot_ms is not None:
            self._tpot.labels(*model).observe(timings.tpot_ms / 1000)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type, in the format requested by ``accept``."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind


@dataclass
class MetricsObserver(JobObserver):
    """Counts an answer."""

    metrics: ServerMetrics
    origin: Origin

    def ended(self, job: Job, answer: Answer) -> None:
        self.metrics.count_answer(job.spec, self.origin, answer)


class _StateCollector(Collector):
    """Metrics that are read at each scrape."""

    def __init__(self, state: Callable[[], ServerState]) -> None:
        self._state = state

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing, so that registration does not call :meth:`collect`."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See ``prometheus_client``."""
        state, memory = self._state(), app_memory()
        yield GaugeMetricFamily("paddock_answers_waiting", "Waiting answers.", state.waiting)
        yield GaugeMetricFamily("paddock_answers_under_way", "Running answers.", state.running)
        yield GaugeMetricFamily("paddock_models_loaded", "Models in memory.", len(state.loaded))
        each = GaugeMetricFamily(
            "paddock_model_loaded", "1 for each model in memory.", labels=_MODEL
        )
        for labels in {  # a model may be loaded both with and without a prefix cache
            (spec.model, spec.precision_name, spec.device, spec.runtime.value): None
            for spec in state.loaded
        }:
            each.add_metric(labels, 1)
        yield each
        used = GaugeMetricFamily(
            "paddock_process_memory_bytes",
            "Resident memory of the server and its models' processes: private, and backed by files "
            "such as weights.",
            labels=("kind",),
        )
        used.add_metric(("private",), memory.private_bytes)
        used.add_metric(("file_backed",), memory.file_backed_bytes)
        yield used
