"""The answers of the pages, gathered by day and conditions, so that charts of a hundred thousand of
them are drawn without reading them all again."""

from __future__ import annotations

import gc
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from core.metrics.figures import percentile
from core.metrics.rows import Point, Range, Subject, subject_of_run

if TYPE_CHECKING:
    from core.db import FigureRow, RunRow, RunStore

MANY = 20
"""From so many answers on, their spread is the 10th to the 90th percentile: with the people's own
prompts and whatever else the machine did, the extremes of many say little."""

GROWTH_IN_APP = "growth of the app's process over load and warm-up"

MOST_CHANGED = 1000
"""Answers that came or went, and from which on everything is read anew: a tenth of a second's work
each way."""
MOST_DAYS = 10
"""Days with changes, likewise."""


@dataclass(frozen=True, eq=False)
class AnswerDay:
    """All answers of one day (UTC) under the same conditions; lists are as long as there are
    figures. Told apart by identity: whoever reads a day anew gets another one."""

    subject: Subject
    day: date
    newest: datetime
    n: int
    decode: list[float]
    ttft_ms: list[float]
    prompt_tokens: list[int]
    memory_private: list[int]
    memory_file_backed: list[int]
    load_s: list[float]


class AnswerDays:
    """All answers of a run table by day, read anew only where they have changed.

    What has changed is told by the ids: an answer that ended never changes again, but it may end
    long after others that began later, or be deleted, by this process or another one, whose clock
    may be wrong. So no time that stands in a row says which rows are new.
    """

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._turn = threading.Lock()
        self._days: dict[date, tuple[AnswerDay, ...]] = {}
        self._ids: dict[date, set[str]] = {}
        self._day_of: dict[str, date] = {}
        """Of each answer in them."""

    def read(self) -> tuple[AnswerDay, ...]:
        """The days as they are now, in no particular order.

        Raises:
            RecordsError: the database cannot be read.
        """
        with self._turn:
            there = self._runs.done_ids()
            gone, new = self._day_of.keys() - there, there - self._day_of.keys()
            if len(gone) + len(new) > MOST_CHANGED:
                self._read_all()
            elif gone or new:
                changed = {self._day_of[each] for each in gone}
                changed |= {begun.date() for begun in self._runs.starts(new).values()}
                if len(changed) > MOST_DAYS:
                    self._read_all()
                else:
                    for day in changed:
                        self._read_day(day)
            return tuple(chain.from_iterable(self._days.values()))

    def _read_all(self) -> None:
        self._days, self._ids, self._day_of = {}, {}, {}
        by_day: defaultdict[date, list[FigureRow]] = defaultdict(list)
        with _no_collections():
            for row in self._runs.figure_rows():
                by_day[row.started_at.date()].append(row)
            for day, rows in by_day.items():
                self._put(day, rows)

    def _read_day(self, day: date) -> None:
        begin = datetime.combine(day, time(), UTC)
        self._put(day, self._runs.figure_rows(since=begin, until=begin + timedelta(days=1)))

    def _put(self, day: date, rows: Sequence[FigureRow]) -> None:
        for run_id in self._ids.get(day, ()):
            del self._day_of[run_id]
        before = {each.subject: each for each in self._days.get(day, ())}
        self._ids[day] = {row.id for row in rows}
        self._day_of |= dict.fromkeys(self._ids[day], day)
        self._days[day] = tuple(_as_before(each, before) for each in days_of(rows))


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector from looking at very many new objects, none of which is garbage,
    again and again: a third of the time that they take to read."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _as_before(day: AnswerDay, before: Mapping[Subject, AnswerDay]) -> AnswerDay:
    """The same object where nothing has changed: what was made of it still holds."""
    known = before.get(day.subject)
    return known if known is not None and vars(known) == vars(day) else day


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
"""What :func:`subject_of_run` looks at. A tuple: a hundred thousand subjects would take a second to
make and to hash."""
_FIGURES = (
    "decode_tokens_per_s",
    "ttft_ms",
    "prompt_tokens",
    "memory_private_bytes",
    "memory_file_backed_bytes",
    "load_s",
)
"""Of a row, in the order of the lists of an :class:`AnswerDay`."""
_READ_FIGURES = attrgetter(*_FIGURES)


def days_of(rows: Iterable[RunRow | FigureRow]) -> tuple[AnswerDay, ...]:
    """Answers gathered by day and conditions, in no particular order."""
    groups: defaultdict[tuple[date, tuple[object, ...]], list[RunRow | FigureRow]]
    groups = defaultdict(list)
    for row in rows:
        groups[row.started_at.date(), _CONDITIONS(row)].append(row)
    return tuple(_day_of(day, group) for (day, _), group in groups.items())


def _day_of(day: date, rows: Sequence[RunRow | FigureRow]) -> AnswerDay:
    values: tuple[list[Any], ...] = tuple([] for _ in _FIGURES)
    for found, column in zip(values, zip(*map(_READ_FIGURES, rows), strict=True), strict=True):
        found += (value for value in column if value is not None)
    newest = max(row.started_at for row in rows)
    return AnswerDay(subject_of_run(rows[0]), day, newest, len(rows), *values)


def points_of_days(days: Iterable[AnswerDay], *, by_day: bool = False) -> list[Point]:
    """One point for all answers given under the same conditions, or one for each day of them."""
    groups: dict[tuple[Subject, date | None], list[AnswerDay]] = {}
    for day in days:
        groups.setdefault((day.subject, day.day if by_day else None), []).append(day)
    return [_point_of_group(subject, tuple(group)) for (subject, _), group in groups.items()]


@lru_cache(maxsize=4096)
def _point_of_group(subject: Subject, days: tuple[AnswerDay, ...]) -> Point:
    """Kept, for of the groups of very many answers a new one changes a single group."""

    def all_of(read: Callable[[AnswerDay], list[float]]) -> list[float]:
        return sorted(chain.from_iterable(map(read, days)))

    def middle(read: Callable[[AnswerDay], list[float]]) -> float | None:
        values = all_of(read)
        return percentile(values, 50) if values else None

    prompt = middle(lambda day: day.prompt_tokens)
    private = middle(lambda day: day.memory_private)
    file_backed = middle(lambda day: day.memory_file_backed)
    return Point(
        id="|".join(
            (
                subject.model,
                subject.precision,
                subject.weights,
                subject.device_asked,
                subject.device,
                subject.runtime,
                subject.host,
                "contended" if subject.contended else "",
            )
        ),
        subject=subject,
        when=max(day.newest for day in days),
        n=sum(day.n for day in days),
        prompt_tokens=None if prompt is None else round(prompt),
        decode=_range_of(all_of(lambda day: day.decode)),
        ttft_ms=_range_of(all_of(lambda day: day.ttft_ms)),
        memory_private=None if private is None else round(private),
        memory_file_backed=None if file_backed is None else round(file_backed),
        memory_scope=GROWTH_IN_APP,
        load_s=middle(lambda day: day.load_s),
    )


def _range_of(values: Sequence[float]) -> Range | None:
    """Median and spread of sorted values; see :data:`MANY`."""
    if not values:
        return None
    edge = 10 if len(values) >= MANY else 0
    return Range(percentile(values, 50), percentile(values, edge), percentile(values, 100 - edge))
