"""Answers by day: incremental reads equal a full read after any writes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.db import RunRow, RunStore
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
    """Return the days sorted, with the values of each list sorted."""
    return sorted(
        repr({name: sorted(v) if isinstance(v, list) else v for name, v in vars(day).items()})
        for day in days
    )


def assert_equal_to_a_full_read(days: AnswerDays, store: RunStore) -> None:
    kept, full = days.read(), days_of(store.chart_rows())
    assert content(kept) == content(full)
    for by_day in (False, True):
        points = [points_of_days(each, by_day=by_day) for each in (kept, full)]
        assert sorted(map(repr, points[0])) == sorted(map(repr, points[1]))


def test_insertions_late_ends_and_deletions_in_any_order(store: RunStore, tmp_path: Path) -> None:
    fill(store.database, 60)
    other = RunStore.open(Settings(home=tmp_path))  # as in another process
    chance, days, running = random.Random(3), AnswerDays(store), []
    for _ in range(60):
        for _ in range(chance.choice((0, 1, 1, 2, 30))):
            writer = chance.choice((store, other))
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
        assert_equal_to_a_full_read(days, store)
    other.close()


def test_an_answer_that_ends_late_with_a_wrong_clock(store: RunStore) -> None:
    days = AnswerDays(store)
    late = store.start(a_start(started_at=NOW - timedelta(days=40)))
    fill(store.database, 200)
    assert_equal_to_a_full_read(days, store)
    store.finish(late, a_result(ended_at=NOW - timedelta(days=400)))
    assert_equal_to_a_full_read(days, store)


def test_a_deletion_and_an_insertion_at_the_same_time(store: RunStore) -> None:
    days = AnswerDays(store)
    deleted = store.add(a_start(started_at=NOW), a_result(ttft_ms=1.0))
    assert_equal_to_a_full_read(days, store)
    store.delete(deleted)
    store.add(a_start(started_at=NOW), a_result(ttft_ms=2.0))
    assert_equal_to_a_full_read(days, store)


def test_the_last_answer_of_a_day_is_deleted(store: RunStore) -> None:
    days = AnswerDays(store)
    alone = store.add(a_start(started_at=NOW), a_result())
    kept = store.add(a_start(started_at=NOW - timedelta(days=1)), a_result())
    assert len(days.read()) == 2
    store.delete(alone)
    assert_equal_to_a_full_read(days, store)
    store.delete(kept)
    assert days.read() == ()


@pytest.mark.parametrize("second", ["00:00:00.000000", "23:59:59.999999"])
def test_the_edges_of_a_day(store: RunStore, second: str) -> None:
    days = AnswerDays(store)
    at = datetime.fromisoformat(f"2026-03-10T{second}+00:00")
    for started_at in (at - timedelta(microseconds=1), at, at + timedelta(microseconds=1)):
        store.add(a_start(started_at=started_at), a_result())
        assert_equal_to_a_full_read(days, store)


def test_unchanged_days_are_the_same_object(store: RunStore) -> None:
    """Points are cached by the identity of their days."""
    days = AnswerDays(store)
    for model in ("a", "b"):
        store.add(a_start(model=model, started_at=NOW), a_result())
    before = {day.subject.model: day for day in days.read()}
    store.add(a_start(model="b", started_at=NOW), a_result())
    after = {day.subject.model: day for day in days.read()}
    assert after["a"] is before["a"] and after["b"] is not before["b"]
    assert (before["b"].n, after["b"].n) == (1, 2), "other sessions may still use the previous days"


def test_only_changed_days_are_read_again(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    days, read = AnswerDays(store), []
    for age in range(3):
        store.add(a_start(started_at=NOW - timedelta(days=age)), a_result())
    days.read()
    chart_rows = store.chart_rows

    def noted(**which: Any) -> list[RunRow]:
        read.append(which["since"].date())
        return chart_rows(**which)

    store.add(a_start(started_at=NOW - timedelta(days=1)), a_result())
    monkeypatch.setattr(store, "chart_rows", noted)
    days.read()
    days.read()
    assert read == [(NOW - timedelta(days=1)).date()]


def test_a_deletion_between_two_queries_of_one_read(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every database gives all queries of a read the same snapshot."""
    days = AnswerDays(store)
    first = store.add(a_start(started_at=NOW), a_result())
    days.read()
    second = store.add(a_start(started_at=NOW), a_result())
    done_by_day = store.done_by_day

    def then_delete() -> dict[date, str]:
        ids = done_by_day()
        store.delete(second)
        return ids

    with monkeypatch.context() as patch:
        patch.setattr(store, "done_by_day", then_delete)
        assert [day.n for day in days.read()] == [1]
    assert_equal_to_a_full_read(days, store)
    store.delete(first)
    assert days.read() == ()


def test_the_version_changes_with_a_deletion_and_a_start(store: RunStore) -> None:
    old = store.add(a_start(started_at=NOW - timedelta(days=1)), a_result())
    store.add(a_start(started_at=NOW), a_result(ended_at=NOW))
    before = store.version()
    store.delete(old)
    store.start(replace(a_start(), started_at=NOW - timedelta(hours=1)))
    assert store.version() != before
