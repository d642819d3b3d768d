"""What charts are drawn of: benchmark measurements and the answers of the pages in one form.

A :class:`Point` is one configuration: a measurement, or all answers that were given under the same
conditions (:mod:`core.metrics.answer_days`).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from core.catalogue import Precision
from core.db.measurement_values import Measurement, MeasurementState, Quality
from core.db.run_values import utc_now
from core.remotes import is_remote
from core.store.resolver import recorded_name, recorded_title, unique_title
from core.units import int4_text

if TYPE_CHECKING:
    from core.db.run_columns import FigureRow, RunRow

PROCESS_ALONE = "a process that does nothing else"

_PRECISIONS = [precision.value for precision in Precision]


def precision_label(name: str) -> str:
    """A precision as people write it."""
    return Precision(name).label if name in set(Precision) else name


class PointSource(StrEnum):
    """Where figures come from; the value is what stands in links."""

    BENCHMARK = "benchmark"
    IMPORTED = "imported"
    ANSWERS = "answers"

    @property
    def label(self) -> str:
        """Words for people."""
        return {
            PointSource.BENCHMARK: "Benchmark",
            PointSource.IMPORTED: "Imported benchmark",
            PointSource.ANSWERS: "Answers on the pages",
        }[self]


_NOISE = re.compile(r"\((R|TM|C)\)|\b(Processor|CPU)\b", re.IGNORECASE)
"""What says nothing in the name of a processor."""


@dataclass(frozen=True)
class Subject:
    """What gave the figures, and where: all that a filter looks at but the time."""

    source: PointSource
    model: str
    """The model's key for programs, as :func:`core.store.resolver.recorded_name` gives it."""
    title: str
    random: bool
    """Whether the weights are random: speed and size without knowledge."""
    precision: str
    weights: str
    """What the weights are, for people: ``INT8``, or ``INT8 from Q4_1``."""
    device: str
    """Device used; the one asked for where it is not known."""
    device_asked: str
    """Of a measurement, ``AUTO`` where OpenVINO chose; answers are gathered by the device used."""
    runtime: str
    host: str
    """Name of the machine; with its processor where another has the same, see
    :func:`machines_told_apart`."""
    host_cpu: str
    contended: bool
    """Whether anything else of note ran meanwhile."""

    @property
    def name(self) -> str:
        """The model for people; random weights are marked."""
        marked = "random weights" in self.title
        return f"{self.title} · random weights" if self.random and not marked else self.title

    @property
    def machine(self) -> str:
        """The host with its processor in short, as :func:`machines_told_apart` names it."""
        cpu = " ".join(_NOISE.sub(" ", self.host_cpu).split())
        return f"{self.host} ({cpu})" if cpu else self.host

    @property
    def marked_name(self) -> str:
        """The name with the model's key, as :func:`models_told_apart` names it."""
        return unique_title(self.name, self.model)

    @property
    def ran_on(self) -> str:
        """The device for people: ``AUTO → CPU`` where another one was asked for."""
        same = self.device == self.device_asked
        return self.device if same else f"{self.device_asked} → {self.device}"

    @property
    def order(self) -> tuple[str, str, str, str, int, str, str]:
        """Sorts subjects as charts and lists show them: the highest precision first."""
        known = self.precision in _PRECISIONS
        place = _PRECISIONS.index(self.precision) if known else len(_PRECISIONS)
        return (
            self.name,
            self.host,
            self.ran_on,
            self.runtime,
            place,
            self.precision,
            self.weights,
        )


@dataclass(frozen=True)
class Range:
    """A figure with its spread."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One thing to draw. Figures are None where they are not known; bytes, seconds and tokens."""

    id: str
    """Of the measurement; of a group of answers, words made of its configuration."""
    subject: Subject
    when: datetime
    """UTC; of a group of answers, the newest."""
    n: int
    """Timed answers behind the figures; of a measurement that is not complete, those asked for."""
    complete: bool = True
    """Whether all answers that were asked for are behind the figures."""
    prompt_tokens: int | None
    """Of answers, the median."""
    decode: Range | None
    """Tokens/s."""
    ttft_ms: Range | None
    memory_private: int | None
    memory_file_backed: int | None
    memory_private_peak: int | None = None
    memory_file_backed_peak: int | None = None
    memory_scope: str
    load_s: float | None
    mbu: float | None = None
    """Share of the measured read bandwidth, 0 to 1."""
    bytes_per_token: int | None = None
    bandwidth: float | None = None
    """Bytes/s."""
    disk_bytes: int | None = None
    quality: Quality | None = None
    conditions: str = ""
    """Execution and KV cache precision, threads and new tokens, for hover details."""

    @property
    def measured(self) -> bool:
        """Whether a benchmark gave it, here or on another machine."""
        return self.subject.source is not PointSource.ANSWERS

    @property
    def answers(self) -> str:
        """How many timed answers are behind the figures, in words."""
        counted = f"{self.n:,} timed {'answer' if self.n == 1 else 'answers'}"
        return counted if self.complete else f"fewer than {counted}"

    @property
    def memory(self) -> int | None:
        """Private and file-backed memory together."""
        if self.memory_private is None or self.memory_file_backed is None:
            return None
        return self.memory_private + self.memory_file_backed

    @property
    def ceiling(self) -> float | None:
        """Tokens/s at which the memory's read bandwidth would be used up; None where MBU is."""
        if self.mbu is None or not self.bandwidth or not self.bytes_per_token:
            return None
        return self.bandwidth / self.bytes_per_token


@dataclass(frozen=True, kw_only=True)
class PointFilter:
    """What a person asked for; an empty choice takes everything."""

    models: tuple[str, ...] = ()
    """As :attr:`Subject.name` or :attr:`Subject.marked_name` has them."""
    precisions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """Devices used."""
    runtimes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """As :attr:`Subject.host` or :attr:`Subject.machine` has them."""
    since: date | None = None
    """The first day (UTC) that counts."""
    contended: bool = False
    """Whether figures taken while anything else ran are shown, marked."""

    def takes(self, subject: Subject, when: datetime | date | None = None) -> bool:
        """Whether figures of this subject and time are shown; without a time, those of any."""
        if subject.contended and not self.contended:
            return False
        day = when.astimezone(UTC).date() if isinstance(when, datetime) else when
        if self.since is not None and day is not None and day < self.since:
            return False
        if self.hosts and subject.host not in self.hosts and subject.machine not in self.hosts:
            return False
        names = {subject.name, subject.marked_name}
        if self.models and names.isdisjoint(self.models):
            return False
        return all(
            value in asked
            for asked, value in (
                (self.precisions, subject.precision),
                (self.devices, subject.device),
                (self.runtimes, subject.runtime),
                (self.sources, subject.source.value),
            )
            if asked
        )


def last_days(count: int) -> date:
    """The first of the last ``count`` days (UTC), today included."""
    return utc_now().date() - timedelta(days=count - 1)


# Measurements


def subject_of(measurement: Measurement) -> Subject:
    """What a measurement measured, whatever became of it."""
    what, figures = measurement.configuration, measurement.figures
    imported = measurement.imported_at is not None
    device = ", ".join(measurement.devices_used) or what.device
    spelled_out = device.startswith(f"{what.device}.")  # OpenVINO's name of GPU is GPU.0
    model = what.model if what.random_weights else recorded_name(what.model, what.source)
    return Subject(
        source=PointSource.IMPORTED if imported else PointSource.BENCHMARK,
        model=model,
        title=what.title if what.random_weights else recorded_title(model, what.title),
        random=what.random_weights,
        precision=what.precision,
        weights=measurement.weights or precision_label(what.precision),
        device=device,
        device_asked=device if spelled_out else what.device,
        runtime=what.runtime,
        host=measurement.host.name,
        host_cpu=measurement.host.cpu,
        contended=figures is not None and figures.contended,
    )


def time_of(measurement: Measurement) -> datetime:
    """When it was measured; when it was planned, before that."""
    return measurement.ended_at or measurement.started_at or measurement.created_at


def point_of(measurement: Measurement) -> Point | None:
    """The point of a measurement; None as long as it has no figures."""
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
        memory_scope=PROCESS_ALONE,
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


def subject_of_run(row: RunRow | FigureRow) -> Subject:
    """What an answer of the pages, the API or the command line was given by.

    Answers asked on AUTO and on the device that it took are of the same conditions.
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
        device_asked=device,
        runtime=row.runtime,
        host=row.host_name,
        host_cpu=row.host_cpu,
        contended=bool(row.contended),
    )


# Choosing among points


def machines_told_apart(subjects: Iterable[Subject]) -> dict[Subject, Subject]:
    """Those whose machine is one of several of the same name, with its processor in the name.

    Machines of a cloud are often all called the same, and their figures are not to be mixed.
    """
    found = set(subjects)
    processors: defaultdict[str, set[str]] = defaultdict(set)
    for subject in found:
        processors[subject.host].add(subject.host_cpu)
    return {
        subject: replace(subject, host=subject.machine)
        for subject in found
        if len(processors[subject.host]) > 1
    }


def models_told_apart(subjects: Iterable[Subject]) -> dict[Subject, Subject]:
    """Those whose model is one of several of the same name on a machine, with its key in the title.

    Folders are often called alike. Random weights are what their name says, and of servers
    elsewhere each is a device of its own.
    """
    found = {each for each in subjects if not each.random and not is_remote(each.model)}
    models: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for subject in found:
        models[subject.name, subject.host].add(subject.model)
    return {
        subject: replace(subject, title=subject.marked_name)
        for subject in found
        if len(models[subject.name, subject.host]) > 1
    }


def latest(points: Iterable[Point]) -> list[Point]:
    """Of each configuration the newest point only, as lists and charts show them.

    Quality is the weights', not the run's: a measurement without it has that of an earlier one.
    """
    newest: dict[tuple[object, ...], Point] = {}
    judged: dict[Subject, Point] = {}
    for point in points:
        key = (point.subject, point.prompt_tokens if point.measured else None)
        if key not in newest or point.when > newest[key].when:
            newest[key] = point
        if point.quality is not None:
            calm = replace(point.subject, contended=False)
            if calm not in judged or point.when > judged[calm].when:
                judged[calm] = point
    return sorted(
        (_with_quality(point, judged) for point in newest.values()),
        key=lambda point: (*point.subject.order, point.prompt_tokens or 0),
    )


def _with_quality(point: Point, judged: Mapping[Subject, Point]) -> Point:
    found = judged.get(replace(point.subject, contended=False))
    if point.quality is not None or not point.measured or found is None:
        return point
    return replace(point, quality=found.quality)


def pareto(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in both memory and decode rate, by rising memory.

    Points without one of the two are left out; of equals, the first stays.
    """
    known = [point for point in points if point.memory is not None and point.decode is not None]
    front: list[Point] = []
    best = -math.inf
    for point in sorted(known, key=lambda point: (_memory(point), -_rate(point))):
        if _rate(point) > best:
            front.append(point)
            best = _rate(point)
    return front


def _memory(point: Point) -> int:
    return point.memory or 0


def _rate(point: Point) -> float:
    return point.decode.median if point.decode else 0.0
