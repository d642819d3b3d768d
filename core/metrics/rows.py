"""Data points for charts: benchmark measurements and answers given in the app in one form.

A :class:`Point` is one configuration: a measurement, or all answers given under the same conditions
(:mod:`core.metrics.answer_days`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from core.catalogue import Precision
from core.db.measurement_values import Measurement, MeasurementState, Quality
from core.db.run_values import utc_now
from core.runtimes.spec import NO_SPECULATION
from core.store.resolver import recorded_name, recorded_title, unique_title
from core.units import int4_text

if TYPE_CHECKING:
    from core.db.run_values import RunRow

PROCESS_ALONE = "a separate process"
GROWTH_IN_APP = "growth of the app's process during loading and warm-up"

LOOKUP = "+lookup"
"""Marks the runtime of figures with guessed tokens."""

_PRECISIONS = [precision.value for precision in Precision]


def precision_label(name: str) -> str:
    """Return the display name of a precision."""
    return Precision(name).label if name in set(Precision) else name


class PointSource(StrEnum):
    """Source of figures; the values are used in links."""

    BENCHMARK = "benchmark"
    IMPORTED = "imported"
    ANSWERS = "answers"


SOURCE_LABELS = {
    PointSource.BENCHMARK: "Benchmark",
    PointSource.IMPORTED: "Imported benchmark",
    PointSource.ANSWERS: "Answers in the app",
}

_CPU_NAME_NOISE = re.compile(r"\((R|TM|C)\)|\b(Processor|CPU)\b", re.IGNORECASE)
"""Parts of a processor's name that carry no information."""


@dataclass(frozen=True)
class Subject:
    """What was measured, and where: everything that a filter uses, except the time."""

    source: PointSource
    model: str
    """The model's key for programs, as :func:`core.store.resolver.recorded_name` gives it."""
    title: str
    random: bool
    """Whether the weights are random: only speed and size are meaningful."""
    precision: str
    weights: str
    """Display name of the weights: ``INT8``, or ``INT8 from Q4_1``."""
    device: str
    """Device used; the requested one if unknown."""
    device_requested: str
    """For measurements, ``AUTO`` if OpenVINO chose; answers are grouped by the device used."""
    runtime: str
    """See :func:`with_speculation`."""
    host: str
    host_cpu: str
    contended: bool
    """Whether other work ran during the measurement."""

    @property
    def name(self) -> str:
        """Display name of the model; random weights are marked."""
        marked = "random weights" in self.title
        return f"{self.title} · random weights" if self.random and not marked else self.title

    @property
    def machine(self) -> str:
        """Host with its shortened processor name: cloud machines often have the same name."""
        cpu = " ".join(_CPU_NAME_NOISE.sub(" ", self.host_cpu).split())
        return f"{self.host} ({cpu})" if cpu else self.host

    @property
    def name_with_key(self) -> str:
        """Display name with the model's key: folders often have the same name."""
        return unique_title(self.name, self.model)

    @property
    def device_label(self) -> str:
        """Display name of the device: ``AUTO → CPU`` if another one was requested."""
        same = self.device == self.device_requested
        return self.device if same else f"{self.device_requested} → {self.device}"

    @property
    def order(self) -> tuple[str, str, str, str, int, str, str]:
        """Sort key for charts and lists: the highest precision first."""
        known = self.precision in _PRECISIONS
        place = _PRECISIONS.index(self.precision) if known else len(_PRECISIONS)
        what = (place, self.precision, self.weights)
        return (self.name, self.machine, self.device_label, self.runtime, *what)


@dataclass(frozen=True)
class Range:
    """A figure and its spread."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One configuration to draw. Unknown figures are None. Units: bytes, seconds and tokens."""

    id: str = ""
    """Id of the measurement; empty for a group of answers."""
    subject: Subject
    when: datetime
    """UTC; for a group of answers, the newest."""
    n: int
    """Number of timed answers; for an incomplete measurement, the requested number."""
    complete: bool = True
    """Whether the figures include all requested answers."""
    prompt_tokens: int | None
    """For answers, the median."""
    decode: Range | None
    """Tokens/s."""
    ttft_ms: Range | None
    memory_private: int | None
    memory_file_backed: int | None
    memory_private_peak: int | None = None
    memory_file_backed_peak: int | None = None
    load_s: float | None
    mbu: float | None = None
    """Share of the measured read bandwidth, 0 to 1."""
    bytes_per_token: int | None = None
    bandwidth: float | None = None
    """Bytes/s."""
    disk_bytes: int | None = None
    quality: Quality | None = None
    conditions: str = ""
    """Execution and KV cache precision, threads and new tokens, for the hover text."""

    @property
    def measured(self) -> bool:
        """Whether this is a benchmark measurement, of this or another machine."""
        return self.subject.source is not PointSource.ANSWERS

    @property
    def answers(self) -> str:
        """Number of timed answers, as text."""
        counted = f"{self.n:,} timed {'answer' if self.n == 1 else 'answers'}"
        return counted if self.complete else f"fewer than {counted}"

    @property
    def memory_scope(self) -> str:
        """What the memory is that of."""
        return PROCESS_ALONE if self.measured else GROWTH_IN_APP

    @property
    def memory(self) -> int | None:
        """Private plus file-backed memory."""
        if self.memory_private is None or self.memory_file_backed is None:
            return None
        return self.memory_private + self.memory_file_backed

    @property
    def ceiling(self) -> float | None:
        """Tokens/s that would use the whole read bandwidth of the memory; None if MBU is None."""
        if self.mbu is None or not self.bandwidth or not self.bytes_per_token:
            return None
        return self.bandwidth / self.bytes_per_token


@dataclass(frozen=True, kw_only=True)
class PointFilter:
    """Filter settings; an empty selection matches everything."""

    models: tuple[str, ...] = ()
    """Values of :attr:`Subject.name`."""
    precisions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """Devices used."""
    runtimes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Values of :attr:`Subject.machine`, or of :attr:`Subject.host`."""
    since: date | None = None
    """First day (UTC)."""
    here: frozenset[str] | None = None
    """Keys of the only models that are shown; None for all. Random weights are never left out."""
    contended: bool = False
    """Whether figures measured while busy are shown (marked)."""

    def matches(self, subject: Subject, when: datetime | date | None = None) -> bool:
        """Return whether figures of this subject and time are shown; None means any time."""
        if subject.contended and not self.contended:
            return False
        day = when.astimezone(UTC).date() if isinstance(when, datetime) else when
        if self.since is not None and day is not None and day < self.since:
            return False
        if self.hosts and subject.host not in self.hosts and subject.machine not in self.hosts:
            return False
        if self.here is not None and not subject.random and subject.model not in self.here:
            return False
        return all(
            value in selected
            for selected, value in (
                (self.models, subject.name),
                (self.precisions, subject.precision),
                (self.devices, subject.device),
                (self.runtimes, subject.runtime),
                (self.sources, subject.source.value),
            )
            if selected
        )


def last_days(count: int) -> date:
    """Return the first of the last ``count`` days (UTC), including today."""
    return utc_now().date() - timedelta(days=count - 1)


# Measurements


def with_speculation(runtime: str, guessed: bool) -> str:
    """Return the runtime, marked if tokens were guessed: such rates are compared apart."""
    return f"{runtime}{LOOKUP}" if guessed else runtime


def subject_of(measurement: Measurement) -> Subject:
    """Return the subject of a measurement in any state."""
    what, figures = measurement.configuration, measurement.figures
    imported = measurement.imported_at is not None
    device = ", ".join(measurement.devices_used) or what.device
    same_device = device.startswith(f"{what.device}.")  # OpenVINO reports GPU as GPU.0
    model = what.model if what.random_weights else recorded_name(what.model, what.source)
    return Subject(
        source=PointSource.IMPORTED if imported else PointSource.BENCHMARK,
        model=model,
        title=what.title if what.random_weights else recorded_title(model, what.title),
        random=what.random_weights,
        precision=what.precision,
        weights=measurement.weights or precision_label(what.precision),
        device=device,
        device_requested=device if same_device else what.device,
        runtime=with_speculation(what.runtime, what.speculation != NO_SPECULATION.text),
        host=measurement.host.name,
        host_cpu=measurement.host.cpu,
        contended=figures is not None and figures.contended,
    )


def time_of(measurement: Measurement) -> datetime:
    """Return when it was measured, or planned if it has not started."""
    return measurement.ended_at or measurement.started_at or measurement.created_at


def point_of(measurement: Measurement) -> Point | None:
    """Return the point of a measurement; None if it has no figures yet."""
    figures = measurement.figures
    if figures is None:
        return None
    decode = None
    if figures.decode_tokens_per_s is not None:
        rate = figures.decode_tokens_per_s
        low, high = figures.decode_low, figures.decode_high
        decode = Range(rate, rate if low is None else low, rate if high is None else high)
    ttft = figures.ttft_ms
    return Point(
        id=measurement.id,
        subject=subject_of(measurement),
        when=time_of(measurement),
        n=figures.answers or measurement.configuration.repeats,
        complete=measurement.state is MeasurementState.DONE,
        prompt_tokens=measurement.configuration.prompt_tokens,
        decode=decode,
        ttft_ms=Range(ttft.median, ttft.low, ttft.high),
        memory_private=figures.memory_private_bytes,
        memory_file_backed=figures.memory_file_backed_bytes,
        memory_private_peak=figures.memory_private_peak_bytes,
        memory_file_backed_peak=figures.memory_file_backed_peak_bytes,
        load_s=figures.load_s,
        mbu=figures.mbu,
        bytes_per_token=figures.bytes_per_token,
        bandwidth=measurement.host.bandwidth_bytes_per_s,
        disk_bytes=measurement.disk_bytes,
        quality=measurement.quality,
        conditions=_conditions(measurement),
    )


def _conditions(measurement: Measurement) -> str:
    parts = [f"{measurement.configuration.new_tokens} new tokens"]
    if measurement.int4:
        parts.append(f"weights {int4_text(**asdict(measurement.int4))}")
    if measurement.execution_precision:
        parts.append(f"executed in {measurement.execution_precision}")
    if measurement.kv_precision:
        parts.append(f"KV cache {measurement.kv_precision}")
    if measurement.threads:
        parts.append(f"{measurement.threads} threads")
    return ", ".join(parts)


def subject_of_run(row: RunRow) -> Subject:
    """Return the subject of an answer of the pages, the API or the command line.

    Answers requested on AUTO have the same conditions as those on the device that AUTO selected.
    """
    device = ", ".join(row.devices_used or ()) or row.device
    model = recorded_name(row.model)
    return Subject(
        source=PointSource.ANSWERS,
        model=model,
        title=row.title if row.random_weights else recorded_title(model, row.title),
        random=bool(row.random_weights),
        precision=row.precision,
        weights=row.weights or precision_label(row.precision),
        device=device,
        device_requested=device,
        runtime=with_speculation(row.runtime, row.draft_tokens is not None),
        host=row.host_name,
        host_cpu=row.host_cpu,
        contended=bool(row.contended),
    )


# Selecting points


def latest(points: Iterable[Point]) -> list[Point]:
    """Return the newest point of each configuration, in the order of lists and charts.

    Quality depends on the weights, not on the run: a measurement without quality gets the newest
    known one.
    """
    newest: dict[tuple[object, ...], Point] = {}
    quality: dict[Subject, Quality] = {}
    for point in sorted(points, key=lambda point: point.when):
        newest[point.subject, point.prompt_tokens if point.measured else None] = point
        if point.quality is not None:
            quality[replace(point.subject, contended=False)] = point.quality
    found = [
        replace(point, quality=quality.get(replace(point.subject, contended=False)))
        if point.quality is None and point.measured
        else point
        for point in newest.values()
    ]
    return sorted(found, key=lambda point: (*point.subject.order, point.prompt_tokens or 0))
