"""What the Metrics page shows, read once for all sessions and again only when it has changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import streamlit as st

from core.benchmark.points import (
    AnswerDay,
    Point,
    PointFilter,
    Subject,
    days_of,
    latest,
    point_of,
    points_of_days,
    subject_of,
    subject_of_run,
    time_of,
)
from core.engine import Engine
from core.records.measurement_values import Measurement

if TYPE_CHECKING:
    from core.records.fast_runs import RunRow

NEWEST = 1000
"""Answers that the table shows; the download has them all."""


@dataclass(frozen=True)
class MetricsData:
    """Everything measured and answered, without any text of anybody."""

    days: tuple[AnswerDay, ...]
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
        return {
            *(day.subject for day in self.days),
            *(point.subject for point in self._points.values()),
        }

    def chosen(self, which: PointFilter) -> Chosen:
        """What the filter leaves of it."""
        days = [day for day in self.days if which.takes(day.subject, day.day)]
        measurements = [
            each for each in self.measurements if which.takes(subject_of(each), time_of(each))
        ]
        measured = [self._points[each.id] for each in measurements if each.id in self._points]
        return Chosen(
            points=latest(chain(measured, points_of_days(days))),
            history=[*measured, *points_of_days(days, by_day=True)],
            measurements=measurements,
            answers=[
                row for row in self.newest if which.takes(subject_of_run(row), row.started_at)
            ],
            answers_in_all=sum(day.n for day in days),
            contended=self._contended(which),
        )

    def _contended(self, which: PointFilter) -> int:
        """Measurements and answers that the filter leaves out for nothing but being contended."""
        if which.contended:
            return 0
        with_them = replace(which, contended=True)
        return sum(
            day.n
            for day in self.days
            if day.subject.contended and with_them.takes(day.subject, day.day)
        ) + sum(
            point.subject.contended and with_them.takes(point.subject, point.when)
            for point in self._points.values()
        )


@dataclass(frozen=True)
class Chosen:
    """What a filter leaves, ready to draw."""

    points: list[Point]
    """The newest of each configuration, sorted."""
    history: list[Point]
    """Of all times; answers by day."""
    measurements: list[Measurement]
    answers: list[RunRow]
    """Of the newest that were kept."""
    answers_in_all: int
    contended: int
    """Measurements and answers that are left out for being contended."""


def read_data(engine: Engine) -> MetricsData:
    """All that is recorded.

    Raises:
        RecordsError: the database cannot be read.
    """
    place = engine.runs.database.place
    answers = _read_answers(engine, (place, *engine.runs.version()))
    measured = _read_measurements(engine, (place, *engine.measurements.version()))
    return MetricsData(answers.days, answers.newest, measured.rows, measured.points)


@dataclass(frozen=True)
class _Answers:
    days: tuple[AnswerDay, ...]
    newest: tuple[RunRow, ...]


@dataclass(frozen=True)
class _Measurements:
    rows: tuple[Measurement, ...]
    points: dict[str, Point]


@st.cache_resource(max_entries=1, show_spinner=False)
def _read_answers(_engine: Engine, version: tuple[object, ...]) -> _Answers:
    """Read-only, shared by all sessions; ``version`` is what tells that they have changed."""
    rows = _engine.runs.chart_rows()
    return _Answers(days_of(rows), tuple(rows[:NEWEST]))


@st.cache_resource(max_entries=1, show_spinner=False)
def _read_measurements(_engine: Engine, version: tuple[object, ...]) -> _Measurements:
    rows = tuple(_engine.measurements.all(with_rounds=False))
    return _Measurements(rows, dict(_with_points(rows)))


def _with_points(rows: tuple[Measurement, ...]) -> Iterator[tuple[str, Point]]:
    for row in rows:
        if (point := point_of(row)) is not None:
            yield row.id, point
