"""Figures of the running server for Prometheus: counted as things happen, or read when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
"""From a small model's short prompt to a long one of a 12 B model on two cores."""
TPOT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""From 2 000 tokens/s to one."""


@dataclass(frozen=True)
class Standing:
    """How the server stands at one moment."""

    waiting: int
    """Answers that wait: for their person's others, a model to be loaded, or their turn."""
    under_way: int
    """Answers that are being given."""
    loaded: tuple[ModelSpec, ...]
    """Models in memory."""


class Meters:
    """All figures of one engine; threads share it."""

    def __init__(self, standing: Callable[[], Standing]) -> None:
        """
        Args:
            standing: asked whenever the figures are.
        """
        self.registry = CollectorRegistry()
        self.registry.register(_Now(standing))
        self._requests = Counter(
            "paddock_api_requests",
            "Requests below /v1 and to /metrics; status 499 is a client that hung up.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._answers = Counter(
            "paddock_answers",
            "Answers that have ended, from anywhere.",
            (*_MODEL, "origin", "stop_reason"),
            registry=self.registry,
        )
        self._prompt_tokens = Counter(
            "paddock_prompt_tokens", "Tokens read.", _MODEL, registry=self.registry
        )
        self._new_tokens = Counter(
            "paddock_new_tokens", "Tokens made.", _MODEL, registry=self.registry
        )
        self._ttft = Histogram(
            "paddock_time_to_first_token_seconds",
            "Start of work to first token; waiting in line not included.",
            _MODEL,
            buckets=TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._tpot = Histogram(
            "paddock_time_per_output_token_seconds",
            "(Last - first token time) / (tokens - 1), once for each answer.",
            _MODEL,
            buckets=TPOT_BUCKETS_S,
            registry=self.registry,
        )

    def count_request(self, route: str, method: str, status: int) -> None:
        """One request of a program was answered."""
        self._requests.labels(route, method, str(status)).inc()

    def count_answer(self, spec: ModelSpec, origin: Origin, answer: Answer) -> None:
        """One answer has ended."""
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
        """All figures as text, and its content type, in the form that the asker prefers."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind


class Metered(JobObserver):
    """Counts an answer, and passes on what another observer is to know."""

    def __init__(self, meters: Meters, origin: Origin, inner: JobObserver) -> None:
        self._meters = meters
        self._origin = origin
        self._inner = inner

    @property
    def run_id(self) -> str | None:  # type: ignore[override]
        """See :class:`core.inference.job.JobObserver`."""
        return self._inner.run_id

    def started(self, job: Job) -> None:
        """See :class:`core.inference.job.JobObserver`."""
        self._inner.started(job)

    def ended(self, job: Job, answer: Answer) -> None:
        """See :class:`core.inference.job.JobObserver`."""
        self._meters.count_answer(job.spec, self._origin, answer)
        self._inner.ended(job, answer)


class _Now(Collector):
    """What is read when the figures are asked for."""

    def __init__(self, standing: Callable[[], Standing]) -> None:
        self._standing = standing

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: asking for it once, when it is registered, would open the engine."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See ``prometheus_client``."""
        now, memory = self._standing(), app_memory()
        yield _gauge("paddock_answers_waiting", "Answers that wait.", now.waiting)
        yield _gauge("paddock_answers_under_way", "Answers that are being given.", now.under_way)
        yield _gauge("paddock_models_loaded", "Models in memory.", len(now.loaded))
        each = GaugeMetricFamily(
            "paddock_model_loaded", "1 for each model in memory.", labels=_MODEL
        )
        for spec in now.loaded:
            each.add_metric((spec.model, spec.precision_name, spec.device, spec.runtime.value), 1)
        yield each
        used = GaugeMetricFamily(
            "paddock_process_memory_bytes",
            "Resident memory of the server and the processes of its models: private, and backed "
            "by files such as weights.",
            labels=("kind",),
        )
        used.add_metric(("private",), memory.private_bytes)
        used.add_metric(("file_backed",), memory.file_backed_bytes)
        yield used


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)
