"""Data of the Metrics page, cached for all sessions until it changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import streamlit as st

from core.db.measurement_values import Measurement
from core.inference.engine import Engine
from core.metrics.answer_days import AnswerDay, AnswerDays, points_of_days
from core.metrics.rows import (
    Point,
    PointFilter,
    Subject,
    distinct_hosts,
    distinct_titles,
    latest,
    point_of,
    subject_of,
    subject_of_run,
    time_of,
)

if TYPE_CHECKING:
    from core.db.run_columns import RunRow

MAX_TABLE_ANSWERS = 1000
"""Maximum number of answers in the table; the CSV download has all."""


@dataclass(frozen=True)
class MetricsData:
    """All measurements and answers, without instructions and answer texts."""

    days: Mapping[Subject, Sequence[AnswerDay]]
    newest: tuple[RunRow, ...]
    """The most recent answers, newest first."""
    measurements: tuple[Measurement, ...]
    """Newest first; without the rounds, which have the time of every token."""
    _points: dict[str, Point] = field(default_factory=dict, repr=False)
    """Points of the measurements with figures, by id."""

    @property
    def empty(self) -> bool:
        """Whether there are no measurements and no answers."""
        return not self.days and not self.measurements

    @property
    def without_figures(self) -> bool:
        """Whether there is nothing to chart; there may be waiting or failed measurements."""
        return not self.days and not self._points

    def subjects(self) -> set[Subject]:
        """Return the subjects of all figures."""
        return {*self.days, *(point.subject for point in self._points.values())}

    def chosen(self, which: PointFilter) -> Chosen:
        """Return the data that matches the filter."""
        days = list(self._days(which))
        measurements = [
            each for each in self.measurements if which.matches(subject_of(each), time_of(each))
        ]
        measured = [self._points[each.id] for each in measurements if each.id in self._points]
        return Chosen(
            points=latest(chain(measured, points_of_days(days))),
            measured=measured,
            days=days,
            measurements=measurements,
            answers=[
                row for row in self.newest if which.matches(subject_of_run(row), row.started_at)
            ],
            answers_in_all=sum(day.n for day in days),
            contended=self._contended(which),
        )

    def _days(self, which: PointFilter) -> Iterator[AnswerDay]:
        for subject, days in self.days.items():
            if which.matches(subject):
                yield from (day for day in days if which.since is None or day.day >= which.since)

    def _contended(self, which: PointFilter) -> int:
        """Count measurements and answers excluded only because they were measured while busy."""
        if which.contended:
            return 0
        all_ = replace(which, contended=True)
        return sum(day.n for day in self._days(all_) if day.subject.contended) + sum(
            point.subject.contended and all_.matches(point.subject, point.when)
            for point in self._points.values()
        )


@dataclass(frozen=True)
class Chosen:
    """Data that matches a filter."""

    points: list[Point]
    """The newest point of each configuration, sorted."""
    measured: list[Point]
    """Points of all matching measurements."""
    days: list[AnswerDay]
    measurements: list[Measurement]
    answers: list[RunRow]
    """Matching answers among the most recent ones."""
    answers_in_all: int
    contended: int
    """Number of measurements and answers excluded because they were measured while busy."""

    def history(self, of: Callable[[Subject], bool]) -> list[Point]:
        """Return all points of the subjects for which ``of`` is true, with answers by day."""
        wanted = {subject for subject in {day.subject for day in self.days} if of(subject)}
        return [
            *(point for point in self.measured if of(point.subject)),
            *points_of_days((day for day in self.days if day.subject in wanted), by_day=True),
        ]


def read_data(engine: Engine) -> MetricsData:
    """Return all recorded measurements and answers.

    Raises:
        RecordsError: The database cannot be read.
    """
    place = engine.runs.database.place
    answers = _read_answers(engine, (place, *engine.runs.version()))
    measured = _read_measurements(engine, (place, *engine.measurements.version()))
    days, points = _with_distinct_names(answers.days, measured.points)
    return MetricsData(days, answers.newest, measured.rows, points)


def _with_distinct_names(
    days: Mapping[Subject, Sequence[AnswerDay]], points: dict[str, Point]
) -> tuple[Mapping[Subject, Sequence[AnswerDay]], dict[str, Point]]:
    """Add the processor to ambiguous host names and the key to ambiguous model titles."""
    subjects = {*days, *(point.subject for point in points.values())}
    machines = distinct_hosts(subjects)
    models = distinct_titles(machines.get(subject, subject) for subject in subjects)
    other = {
        subject: models.get(machine, machine)
        for subject in subjects
        if (machine := machines.get(subject, subject)) in models or subject in machines
    }
    if not other:
        return days, points
    return (
        {
            other.get(subject, subject): [
                _of_subject(day, other[subject]) if subject in other else day for day in found
            ]
            for subject, found in days.items()
        },
        {
            id_: replace(point, subject=other.get(point.subject, point.subject))
            for id_, point in points.items()
        },
    )


@lru_cache(maxsize=4096)
def _of_subject(day: AnswerDay, subject: Subject) -> AnswerDay:
    """Return the day with another subject. Cached, because points are cached by day identity."""
    return replace(day, subject=subject)


def read_ahead(engine: Engine) -> None:
    """Fill the caches at start-up, so that the first visit of the page is fast.

    Raises:
        RecordsError: The database cannot be read.
    """
    read_data(engine).chosen(PointFilter())


@dataclass(frozen=True)
class _Answers:
    days: Mapping[Subject, Sequence[AnswerDay]]
    newest: tuple[RunRow, ...]


@dataclass(frozen=True)
class _Measurements:
    rows: tuple[Measurement, ...]
    points: dict[str, Point]


@st.cache_resource(max_entries=1, show_spinner=False)
def _read_answers(_engine: Engine, version: tuple[object, ...]) -> _Answers:
    """Return the answers; read-only and shared by all sessions. ``version`` is the cache key."""
    days: defaultdict[Subject, list[AnswerDay]] = defaultdict(list)
    for day in _answer_days(_engine, _engine.runs.database.place).read():
        days[day.subject].append(day)
    return _Answers(dict(days), tuple(_engine.runs.chart_rows(limit=MAX_TABLE_ANSWERS)))


@st.cache_resource(max_entries=1, show_spinner=False)
def _answer_days(_engine: Engine, place: str) -> AnswerDays:
    """Return the cached answers of the database at this location."""
    return AnswerDays(_engine.runs)


@st.cache_resource(max_entries=1, show_spinner=False)
def _read_measurements(_engine: Engine, version: tuple[object, ...]) -> _Measurements:
    rows = tuple(_engine.measurements.all(with_rounds=False))
    return _Measurements(rows, dict(_with_points(rows)))


def _with_points(rows: tuple[Measurement, ...]) -> Iterator[tuple[str, Point]]:
    for row in rows:
        if (point := point_of(row)) is not None:
            yield row.id, point
