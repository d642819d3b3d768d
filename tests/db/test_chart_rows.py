"""Rows for charts: equal to the records, and read without the texts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from core.db import GUEST, Origin, RunRecord, RunResult, RunStore
from core.db import runs as module
from core.db.run_values import RunRow
from core.db.tables import CHART_COLUMNS
from core.settings import Settings
from tests.db.account_samples import add_account
from tests.db.run_samples import a_result, a_start


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    store = RunStore.open(Settings(home=tmp_path))
    yield store
    store.close()


def expected(record: RunRecord) -> RunRow:
    """Return the row of a record."""
    flat = record.flat()
    return RunRow(**{name: flat[name] for name in CHART_COLUMNS})


def test_rows_are_equal_to_the_records_in_value_and_type(store: RunStore) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    unknown = RunResult(text="", stop_reason="cancelled", contended=None, devices_used=())
    samples = [
        (a_start(started_at=begin), a_result()),
        (a_start(started_at=begin + timedelta(microseconds=1), random_weights=False), unknown),
        (a_start(origin=Origin.CLI), a_result(contended=True, devices_used=("CPU",), ttft_ms=70.0)),
    ]
    for start, result in samples:
        store.add(start, result)
    rows = store.chart_rows()
    assert rows == [expected(record) for record in store.recent()]
    for row in rows:
        assert type(row) is RunRow and row.started_at.tzinfo is UTC
        assert isinstance(row.origin, Origin) and type(row.random_weights) is bool
        assert type(row.contended) in (bool, type(None))
    texts = ("instruction", "context", "text", "session", "owner")
    assert not set(texts) & set(RunRow._fields), "nobody's words, and not whose they were"


def test_first_token_after_a_prefix_from_the_cache_is_not_charted(store: RunStore) -> None:
    store.add(a_start(), a_result(ttft_ms=5.0, cached_tokens=100))
    store.add(a_start(), a_result(ttft_ms=70.0, cached_tokens=0))
    rows = {(row.ttft_ms, row.charted_ttft_ms, row.cached_tokens) for row in store.chart_rows()}
    assert rows == {(5.0, None, 100), (70.0, 70.0, 0)}


def test_running_runs_are_not_charted(store: RunStore) -> None:
    store.start(a_start())
    assert store.chart_rows() == []
    run_id = store.add(a_start(), a_result())
    assert [row.id for row in store.chart_rows()] == [run_id]


def test_rows_are_filtered_limited_and_the_newest_first(store: RunStore) -> None:
    add_account(store.database, "a")
    begin, ids = datetime(2026, 1, 1, tzinfo=UTC), []
    for hour in range(4):
        start = a_start(
            started_at=begin + timedelta(hours=hour),
            session=f"s{hour % 2}",
            owner="a" if hour < 3 else GUEST,
        )
        ids.append(store.add(start, a_result()))

    def found(**which: object) -> list[int]:
        return [ids.index(row.id) for row in store.chart_rows(**which)]

    assert found() == [3, 2, 1, 0]
    assert found(limit=2) == [3, 2]
    assert found(session="s1") == [3, 1]
    assert found(session="s0", owner="a") == [2, 0]
    assert found(since=begin + timedelta(hours=1), until=begin + timedelta(hours=3)) == [2, 1]


def test_batches_are_joined_completely(store: RunStore, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BATCH_SIZE", 3)
    ids = [store.add(a_start(seed=n), a_result()) for n in range(10)]
    assert sorted(row.id for row in store.chart_rows()) == sorted(ids)


def test_equal_texts_are_one_object(store: RunStore) -> None:
    for _ in range(2):
        store.add(a_start(title="A title " * 20), a_result())
    first, second = store.chart_rows()
    assert first.title is second.title and first.devices_used is second.devices_used


@pytest.mark.parametrize("which", [{}, {"session": "s"}, {"owner": "o"}, {"model": "m"}])
def test_the_texts_of_the_runs_are_not_read(store: RunStore, which: dict[str, str]) -> None:
    """A run has kilobytes, mostly text and token times; the index has everything else."""
    statements: list[tuple[str, object]] = []

    def keep(connection, cursor, statement, parameters, context, executemany) -> None:
        statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        store.chart_rows(**which)
    finally:
        event.remove(Engine, "before_cursor_execute", keep)
    statement, parameters = statements[-1]
    with store.database.reading() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        words = " ".join(row[3] for row in plan)
    assert "COVERING INDEX ix_runs_chart" in words and "TEMP B-TREE" not in words


def test_token_times_of_one_run(store: RunStore) -> None:
    run_id = store.add(a_start(), a_result())
    without = store.add(a_start(), a_result(token_times_ms=None))
    assert store.token_times(run_id) == (71.25, 91.375, 111.5)
    assert store.token_times(without) is None and store.token_times("0" * 32) is None


def test_the_version_changes_with_every_run(store: RunStore) -> None:
    seen = [store.version()]
    run_id = store.start(a_start())
    seen.append(store.version())
    store.finish(run_id, a_result())
    seen.append(store.version())
    assert store.version() == seen[-1]
    store.delete(run_id)
    assert store.version() == seen[0]
    assert len(set(seen)) == 3
