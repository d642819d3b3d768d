"""Answers by day: what is kept in memory equals a full reading, whatever was written meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.db import RunStore
from core.metrics import answer_days as module
from core.metrics.answer_days import AnswerDay, AnswerDays, days_of, points_of_days
from core.settings import Settings
from tests.db.many_runs import fill, some_run
from tests.db.run_samples import a_result, a_start

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    store = RunStore.open(Settings(home=tmp_path))
    yield store
    store.close()


def content(days: tuple[AnswerDay, ...]) -> list[str]:
    """The days in an order of their own, with the values of each list sorted."""
    return sorted(
        repr({name: sorted(v) if isinstance(v, list) else v for name, v in vars(day).items()})
        for day in days
    )


def assert_equal_to_a_full_reading(days: AnswerDays, store: RunStore) -> None:
    kept, full = days.read(), days_of(store.chart_rows())
    assert content(kept) == content(full)
    for by_day in (False, True):
        points = [points_of_days(each, by_day=by_day) for each in (kept, full)]
        assert sorted(map(repr, points[0])) == sorted(map(repr, points[1]))


@pytest.fixture
def full_readings(monkeypatch: pytest.MonkeyPatch) -> list[AnswerDays]:
    """Grows with every reading of everything."""
    seen: list[AnswerDays] = []
    read_all = AnswerDays._read_all

    def counted(days: AnswerDays) -> None:
        seen.append(days)
        read_all(days)

    monkeypatch.setattr(AnswerDays, "_read_all", counted)
    return seen


def test_insertions_late_ends_and_deletions_in_any_order(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CHANGED", 12)
    monkeypatch.setattr(module, "MOST_DAYS", 4)
    fill(store.database, 60)
    elsewhere = RunStore.open(Settings(home=tmp_path))  # as another process has it
    chance, days, running = random.Random(3), AnswerDays(store), []
    for _ in range(60):
        for _ in range(chance.choice((0, 1, 1, 2, 30))):
            writer = chance.choice((store, elsewhere))
            start, result = some_run(chance, NOW)
            ids = [row.id for row in store.chart_rows()]
            match chance.choice(("add", "start", "finish", "delete", "interrupt")):
                case "add":
                    writer.add(start, result)
                case "start":
                    running.append((writer.start(start), result))
                case "finish" if running:
                    writer.finish(*running.pop(chance.randrange(len(running))))
                case "delete" if ids:
                    writer.delete(chance.choice(ids))
                case "interrupt":
                    writer.mark_interrupted()
        assert_equal_to_a_full_reading(days, store)
    elsewhere.close()


def test_an_answer_that_ends_late_by_a_clock_that_is_wrong(
    store: RunStore, full_readings: list[AnswerDays]
) -> None:
    days = AnswerDays(store)
    late = store.start(a_start(started_at=NOW - timedelta(days=40)))
    fill(store.database, module.MOST_CHANGED + 1)
    assert_equal_to_a_full_reading(days, store)
    store.finish(late, a_result(ended_at=NOW - timedelta(days=400)))
    assert_equal_to_a_full_reading(days, store)
    assert len(full_readings) == 1


def test_one_goes_as_another_comes(store: RunStore, full_readings: list[AnswerDays]) -> None:
    days = AnswerDays(store)
    gone = store.add(a_start(started_at=NOW), a_result(ttft_ms=1.0))
    assert_equal_to_a_full_reading(days, store)
    store.delete(gone)
    store.add(a_start(started_at=NOW), a_result(ttft_ms=2.0))
    assert_equal_to_a_full_reading(days, store)
    assert not full_readings, "so few are never read together"


def test_the_last_of_a_day_goes(store: RunStore) -> None:
    days = AnswerDays(store)
    alone = store.add(a_start(started_at=NOW), a_result())
    kept = store.add(a_start(started_at=NOW - timedelta(days=1)), a_result())
    assert len(days.read()) == 2
    store.delete(alone)
    assert_equal_to_a_full_reading(days, store)
    store.delete(kept)
    assert days.read() == ()


@pytest.mark.parametrize("second", ["00:00:00.000000", "23:59:59.999999"])
def test_the_edges_of_a_day(store: RunStore, second: str) -> None:
    days = AnswerDays(store)
    at = datetime.fromisoformat(f"2026-03-10T{second}+00:00")
    for started_at in (at - timedelta(microseconds=1), at, at + timedelta(microseconds=1)):
        store.add(a_start(started_at=started_at), a_result())
        assert_equal_to_a_full_reading(days, store)


def test_what_did_not_change_is_the_same_object(
    store: RunStore, full_readings: list[AnswerDays]
) -> None:
    """So that its points, which are made of all values of a configuration, are not made again."""
    days = AnswerDays(store)
    for model in ("a", "b"):
        store.add(a_start(model=model, started_at=NOW), a_result())
    before = {day.subject.model: day for day in days.read()}
    store.add(a_start(model="b", started_at=NOW), a_result())
    after = {day.subject.model: day for day in days.read()}
    assert after["a"] is before["a"] and after["b"] is not before["b"]
    assert (before["b"].n, after["b"].n) == (1, 2), "others may still draw the days from before"


@pytest.mark.parametrize("changed", ["answers", "days"])
def test_many_changes_are_read_in_one_go(
    store: RunStore,
    full_readings: list[AnswerDays],
    monkeypatch: pytest.MonkeyPatch,
    changed: str,
) -> None:
    monkeypatch.setattr(module, {"answers": "MOST_CHANGED", "days": "MOST_DAYS"}[changed], 2)
    days = AnswerDays(store)
    days.read()
    for number in range(3):
        apart = timedelta(days=number) if changed == "days" else timedelta(0)
        store.add(a_start(started_at=NOW - apart), a_result())
    assert_equal_to_a_full_reading(days, store)
    assert len(full_readings) == 1


def test_a_deletion_between_two_looks_of_one_reading(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every database shows one state to all the statements of a reading."""
    days = AnswerDays(store)
    first = store.add(a_start(started_at=NOW), a_result())
    days.read()
    second = store.add(a_start(started_at=NOW), a_result())
    look: Callable[[], set[str]] = store.done_ids

    def then_delete() -> set[str]:
        ids = look()
        store.delete(second)
        return ids

    monkeypatch.setattr(store, "done_ids", then_delete)
    assert [day.n for day in days.read()] == [1]
    monkeypatch.undo()
    assert_equal_to_a_full_reading(days, store)
    store.delete(first)
    assert days.read() == ()


def test_versions_tell_a_deletion_and_a_beginning_from_nothing(store: RunStore) -> None:
    old = store.add(a_start(started_at=NOW - timedelta(days=1)), a_result())
    store.add(a_start(started_at=NOW), a_result(ended_at=NOW))
    before = store.version()
    store.delete(old)
    store.start(replace(a_start(), started_at=NOW - timedelta(hours=1)))
    assert store.version() != before
