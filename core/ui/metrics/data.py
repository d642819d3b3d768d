"""What the Metrics page shows, read once for all sessions and again only when it has changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import streamlit as st

from core.db.measurement_values import Measurement
from core.engine import Engine
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

NEWEST = 1000
"""Answers that the table shows; the download has them all."""


@dataclass(frozen=True)
class MetricsData:
    """Everything measured and answered, without any text of anybody."""

    days: Mapping[Subject, Sequence[AnswerDay]]
    newest: tuple[RunRow, ...]
    """The newest answers, the newest first."""
    measurements: tuple[Measurement, ...]
    """The newest first; without their rounds, which hold the time of every token."""
    _points: dict[str, Point] = field(default_factory=dict, repr=False)
    """Of the measurements that have figures, by id."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.days and not self.measurements

    @property
    def without_figures(self) -> bool:
        """Whether there is nothing to chart, though rows may wait or have failed."""
        return not self.days and not self._points

    def subjects(self) -> set[Subject]:
        """All that figures are of."""
        return {*self.days, *(point.subject for point in self._points.values())}

    def chosen(self, which: PointFilter) -> Chosen:
        """What the filter leaves of it."""
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
        """Measurements and answers that the filter leaves out for nothing but being contended."""
        if which.contended:
            return 0
        with_them = replace(which, contended=True)
        return sum(day.n for day in self._days(with_them) if day.subject.contended) + sum(
            point.subject.contended and with_them.matches(point.subject, point.when)
            for point in self._points.values()
        )


@dataclass(frozen=True)
class Chosen:
    """What a filter leaves, ready to draw."""

    points: list[Point]
    """The newest of each configuration, sorted."""
    measured: list[Point]
    """Of the measurements, of all times."""
    days: list[AnswerDay]
    measurements: list[Measurement]
    answers: list[RunRow]
    """Of the newest that were kept."""
    answers_in_all: int
    contended: int
    """Measurements and answers that are left out for being contended."""

    def history(self, of: Callable[[Subject], bool]) -> list[Point]:
        """Points of all times, answers by day, of the subjects for which ``of`` is true."""
        wanted = {subject for subject in {day.subject for day in self.days} if of(subject)}
        return [
            *(point for point in self.measured if of(point.subject)),
            *points_of_days((day for day in self.days if day.subject in wanted), by_day=True),
        ]


def read_data(engine: Engine) -> MetricsData:
    """All that is recorded.

    Raises:
        RecordsError: the database cannot be read.
    """
    place = engine.runs.database.place
    answers = _read_answers(engine, (place, *engine.runs.version()))
    measured = _read_measurements(engine, (place, *engine.measurements.version()))
    days, points = _told_apart(answers.days, measured.points)
    return MetricsData(days, answers.newest, measured.rows, points)


def _told_apart(
    days: Mapping[Subject, Sequence[AnswerDay]], points: dict[str, Point]
) -> tuple[Mapping[Subject, Sequence[AnswerDay]], dict[str, Point]]:
    """The same; where two machines have one name, each with its processor in its name, and where
    two models of a machine have one title, each with its key in its title."""
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
    """Kept, since figures are remembered by the identity of their day."""
    return replace(day, subject=subject)


def read_ahead(engine: Engine) -> None:
    """Read what the page will begin with, so that its first visitor finds it done.

    Raises:
        RecordsError: the database cannot be read.
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
    """Read-only, shared by all sessions; ``version`` is what tells that they have changed."""
    days: defaultdict[Subject, list[AnswerDay]] = defaultdict(list)
    for day in _answer_days(_engine, _engine.runs.database.place).read():
        days[day.subject].append(day)
    return _Answers(dict(days), tuple(_engine.runs.chart_rows(limit=NEWEST)))


@st.cache_resource(max_entries=1, show_spinner=False)
def _answer_days(_engine: Engine, place: str) -> AnswerDays:
    """Of the database at that place."""
    return AnswerDays(_engine.runs)


@st.cache_resource(max_entries=1, show_spinner=False)
def _read_measurements(_engine: Engine, version: tuple[object, ...]) -> _Measurements:
    rows = tuple(_engine.measurements.all(with_rounds=False))
    return _Measurements(rows, dict(_with_points(rows)))


def _with_points(rows: tuple[Measurement, ...]) -> Iterator[tuple[str, Point]]:
    for row in rows:
        if (point := point_of(row)) is not None:
            yield row.id, point
