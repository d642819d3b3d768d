"""Data of the Metrics page, cached for all sessions until it changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    latest,
    point_of,
    subject_of,
    subject_of_run,
    time_of,
)

if TYPE_CHECKING:
    from core.db.run_values import RunRow

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
    points: Mapping[str, Point]
    """Points of the measurements with figures, by id."""

    @property
    def empty(self) -> bool:
        """Whether there are no measurements and no answers."""
        return not self.days and not self.measurements

    @property
    def without_figures(self) -> bool:
        """Whether there is nothing to chart; there may be waiting or failed measurements."""
        return not self.days and not self.points

    def subjects(self) -> set[Subject]:
        """Return the subjects of all figures."""
        return {*self.days, *(point.subject for point in self.points.values())}

    def chosen(self, which: PointFilter, hidden: Collection[str] = ()) -> Chosen:
        """Return the data that matches the filter, without these answers in the list."""
        days = list(self._days(which))
        measurements = [
            each for each in self.measurements if which.matches(subject_of(each), time_of(each))
        ]
        measured = [self.points[each.id] for each in measurements if each.id in self.points]
        return Chosen(
            points=latest(chain(measured, points_of_days(days))),
            measured=measured,
            days=days,
            measurements=measurements,
            answers=[
                row
                for row in self.newest
                if row.id not in hidden and which.matches(subject_of_run(row), row.started_at)
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
            for point in self.points.values()
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

    def history(self, subjects: Collection[Subject]) -> list[Point]:
        """Return all points of these subjects, with answers by day."""
        return [
            *(point for point in self.measured if point.subject in subjects),
            *points_of_days((day for day in self.days if day.subject in subjects), by_day=True),
        ]


def read_data(engine: Engine) -> MetricsData:
    """Return all recorded measurements and answers."""
    place = engine.runs.database.place
    days, newest = _read_answers(engine, (place, *engine.runs.version()))
    rows = _read_measurements(engine, (place, *engine.measurements.version()))
    return MetricsData(days, newest, *rows)


def read_ahead(engine: Engine) -> None:
    """Fill the caches at start-up, so that the first visit of the page is fast."""
    read_data(engine).chosen(PointFilter())


@st.cache_resource(max_entries=1, show_spinner=False)
def _read_answers(
    _engine: Engine, version: tuple[object, ...]
) -> tuple[Mapping[Subject, Sequence[AnswerDay]], tuple[RunRow, ...]]:
    """Return the answers; read-only and shared by all sessions. ``version`` is the cache key."""
    days: defaultdict[Subject, list[AnswerDay]] = defaultdict(list)
    for day in _answer_days(_engine, _engine.runs.database.place).read():
        days[day.subject].append(day)
    return dict(days), tuple(_engine.runs.chart_rows(limit=MAX_TABLE_ANSWERS))


@st.cache_resource(max_entries=1, show_spinner=False)
def _answer_days(_engine: Engine, place: str) -> AnswerDays:
    """Return the cached answers of the database at this location."""
    return AnswerDays(_engine.runs)


@st.cache_resource(max_entries=1, show_spinner=False)
def _read_measurements(
    _engine: Engine, version: tuple[object, ...]
) -> tuple[tuple[Measurement, ...], dict[str, Point]]:
    rows = tuple(_engine.measurements.all(with_rounds=False))
    points = ((row.id, point_of(row)) for row in rows)
    return rows, {id_: point for id_, point in points if point is not None}
