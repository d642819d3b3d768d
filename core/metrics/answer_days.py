"""Answers given in the app, grouped by day and conditions.

Charts of a hundred thousand answers are drawn without reading all of them again.
"""

from __future__ import annotations

import gc
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from core.metrics.figures import percentile
from core.metrics.rows import Point, Range, Subject, subject_of_run

if TYPE_CHECKING:
    from core.db import RunRow, RunStore

PERCENTILES_FROM = 20
"""From this many answers on, the spread is the 10th to the 90th percentile instead of the extremes:
prompts and machine load vary between answers, so the extremes of many answers say little."""


@dataclass(frozen=True, eq=False)
class AnswerDay:
    """All answers of one day (UTC) under the same conditions.

    Compared by identity: a day that is read again is another object.
    """

    subject: Subject
    day: date
    newest: datetime
    n: int
    figures: Mapping[str, list[float]]
    """The known values of each of :data:`_FIGURES`, so the lengths differ."""


class AnswerDays:
    """All answers of a run table by day; only changed days are read again.

    Changes are detected by the ids. A finished answer never changes, but it may finish long after
    answers that started later, or be deleted, also by another process whose clock may be wrong.
    Times in the rows therefore do not show which rows are new.
    """

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._days: dict[date, tuple[AnswerDay, ...]] = {}
        self._ids: dict[date, str] = {}

    def read(self) -> tuple[AnswerDay, ...]:
        """Return the current days, in no particular order.

        Raises:
            RecordsError: The database cannot be read.
        """
        with self._lock:
            ids = self._runs.done_by_day()  # before the rows: later changes are seen next time
            gc.disable()  # repeated passes took a third of the time of the first read
            try:
                self._days = {
                    day: self._days[day] if self._ids.get(day) == ids[day] else self._read(day)
                    for day in ids
                }
            finally:
                gc.enable()
            self._ids = ids
            return tuple(chain.from_iterable(self._days.values()))

    def _read(self, day: date) -> tuple[AnswerDay, ...]:
        begin = datetime.combine(day, time(), UTC)
        rows = self._runs.chart_rows(since=begin, until=begin + timedelta(days=1))
        # An unchanged group stays the same object, so that points cached for it stay valid.
        known = {each.subject: each for each in self._days.get(day, ())}
        return tuple(
            old if (old := known.get(each.subject)) and vars(old) == vars(each) else each
            for each in days_of(rows)
        )


_CONDITIONS = attrgetter(
    "model",
    "title",
    "random_weights",
    "precision",
    "weights",
    "devices_used",
    "device",
    "runtime",
    "host_name",
    "host_cpu",
    "contended",
)
"""The columns that :func:`subject_of_run` reads, as a tuple, because creating and hashing a hundred
thousand subjects would take a second."""
_FIGURES = (
    "decode_tokens_per_s",
    "charted_ttft_ms",
    "prompt_tokens",
    "memory_private_bytes",
    "memory_file_backed_bytes",
    "load_s",
)
"""Figures of a row."""
_READ_FIGURES = attrgetter(*_FIGURES)


def days_of(rows: Iterable[RunRow]) -> tuple[AnswerDay, ...]:
    """Group answers by day and conditions; the order is undefined."""
    groups: defaultdict[tuple[date, tuple[object, ...]], list[RunRow]] = defaultdict(list)
    for row in rows:
        groups[row.started_at.date(), (_CONDITIONS(row), row.draft_tokens is None)].append(row)
    return tuple(_day_of(day, group) for (day, _), group in groups.items())


def _day_of(day: date, rows: Sequence[RunRow]) -> AnswerDay:
    figures = {
        name: [value for value in column if value is not None]
        for name, column in zip(_FIGURES, zip(*map(_READ_FIGURES, rows), strict=True), strict=True)
    }
    newest = max(row.started_at for row in rows)
    return AnswerDay(subject_of_run(rows[0]), day, newest, len(rows), figures)


def points_of_days(days: Iterable[AnswerDay], *, by_day: bool = False) -> list[Point]:
    """Return one point for all answers under the same conditions, or one for each of their days."""
    groups: dict[tuple[Subject, date | None], list[AnswerDay]] = {}
    for day in days:
        groups.setdefault((day.subject, day.day if by_day else None), []).append(day)
    return [_point_of_group(subject, tuple(group)) for (subject, _), group in groups.items()]


@lru_cache(maxsize=4096)
def _point_of_group(subject: Subject, days: tuple[AnswerDay, ...]) -> Point:
    """Return the point of a group. Cached, because a new answer changes only one group."""

    values = {
        name: sorted(chain.from_iterable(day.figures[name] for day in days)) for name in _FIGURES
    }

    def whole(name: str) -> int | None:
        return round(percentile(values[name], 50)) if values[name] else None

    return Point(
        subject=subject,
        when=max(day.newest for day in days),
        n=sum(day.n for day in days),
        prompt_tokens=whole("prompt_tokens"),
        decode=_range_of(values["decode_tokens_per_s"]),
        ttft_ms=_range_of(values["charted_ttft_ms"]),
        memory_private=whole("memory_private_bytes"),
        memory_file_backed=whole("memory_file_backed_bytes"),
        load_s=percentile(values["load_s"], 50) if values["load_s"] else None,
    )


def _range_of(values: Sequence[float]) -> Range | None:
    """Return median and spread of sorted values; see :data:`PERCENTILES_FROM`."""
    if not values:
        return None
    edge = 10 if len(values) >= PERCENTILES_FROM else 0
    return Range(percentile(values, 50), percentile(values, edge), percentile(values, 100 - edge))
