"""The store of runs: round trip, threads and filters."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from core.db import (
    GUEST,
    Origin,
    RunResult,
    RunStart,
    RunState,
    RunStore,
    current_instance,
)
from core.errors import RecordsError
from core.settings import Settings
from tests.db.account_samples import add_account
from tests.db.run_samples import a_result, a_start


@pytest.fixture
def store(tmp_path: Path):
    store = RunStore.open(Settings(home=tmp_path))
    yield store
    store.close()


def test_every_field_survives_the_round_trip(store: RunStore) -> None:
    add_account(store.database, "ada")
    start, result = a_start(owner="ada"), a_result()
    defaults = {f.name for f in fields(start) if getattr(start, f.name) == f.default}
    assert not defaults, "the sample must differ from the defaults to prove anything"

    run_id = store.start(start)
    running = store.get(run_id)
    assert (running.state, running.result) == (RunState.RUNNING, None)
    assert running.start == start
    assert running.instance == current_instance()

    assert store.finish(run_id, result)
    done = store.get(run_id)
    assert (done.id, done.state) == (run_id, RunState.DONE)
    assert (done.start, done.result) == (start, result)
    assert isinstance(done.start.origin, Origin)
    assert done.start.started_at.tzinfo is UTC


def test_unknown_figures_stay_unknown(store: RunStore) -> None:
    result = RunResult(text="", stop_reason="cancelled")
    run_id = store.start(a_start(seed=None, session=None, hints={}))
    store.finish(run_id, result)
    assert store.get(run_id).result == result


def test_a_flat_record_has_every_column_once(store: RunStore) -> None:
    flat = store.get(store.add(a_start(), a_result())).flat()
    with store.database.reading() as connection:
        columns = connection.execute(text("SELECT * FROM runs")).keys()
    assert sorted(flat) == sorted(columns)
    assert (flat["state"], flat["precision"], flat["tpot_ms"]) == ("done", "int4", 20.125)
    unfinished = store.get(store.start(a_start())).flat()
    assert unfinished["text"] is None and unfinished["instruction"]


def test_hostile_texts_and_figures_do_not_cost_the_row(store: RunStore) -> None:
    start = a_start(
        instruction="lone \ud800 surrogate, NUL \0, pair 😀",
        session="\udfff",
        hints={"key\ud800": "\0", "not a number": math.nan, "path": Path("a")},
    )
    result = a_result(
        text="'; DROP TABLE runs; --\0\udc80",
        error="\ud83d",
        tpot_ms=math.nan,
        decode_tokens_per_s=math.inf,
        token_times_ms=(1.00049, math.nan),
    )
    run_id = store.start(start)
    assert store.finish(run_id, result)
    record = store.get(run_id)
    assert record.start.instruction == "lone \ufffd surrogate, NUL \ufffd, pair 😀"
    assert record.start.hints == {"key\ufffd": "\ufffd", "not a number": None, "path": "a"}
    assert record.result.text == "'; DROP TABLE runs; --\ufffd\ufffd"
    assert record.result.error == "\ufffd"
    assert (record.result.tpot_ms, record.result.decode_tokens_per_s) == (None, None)
    assert record.result.token_times_ms == (1.0, None)
    assert store.count(session="\udfff") == 1, "a filter must be cleaned as the value was"


def test_values_that_cannot_be_stored_are_refused_with_a_sentence(store: RunStore) -> None:
    with pytest.raises(RecordsError, match="failed"):
        store.start(a_start(seed=2**64))
    with pytest.raises(RecordsError, match="without a time zone"):
        store.start(a_start(started_at=datetime(2026, 1, 1)))
    assert store.count() == 0


def test_recent_filters_orders_and_limits(store: RunStore) -> None:
    add_account(store.database, "a")
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ids = []
    for hour in range(6):
        start = a_start(
            started_at=begin + timedelta(hours=hour),
            session=f"s{hour % 2}",
            owner="a" if hour < 3 else GUEST,
            origin=Origin.CLI if hour == 5 else Origin.INSTRUCT,
            model=f"m{hour % 3}",
            precision="int8" if hour < 2 else "int4",
            device="CPU" if hour == 4 else "AUTO",
            runtime="genai" if hour == 0 else "optimum",
        )
        ids.append(store.start(start))
    store.finish(ids[2], a_result())

    def found(limit: int = 50, **which) -> list[int]:
        return [ids.index(record.id) for record in store.recent(limit, **which)]

    assert found() == [5, 4, 3, 2, 1, 0]
    assert found(2) == [5, 4]
    assert found(session="s1") == [5, 3, 1]
    assert found(session="s1", owner="a") == [1]
    assert found(origin=Origin.CLI) == [5]
    assert found(model="m0") == [3, 0]
    assert found(precision="int8") == [1, 0]
    assert found(device="CPU") == [4]
    assert found(runtime="genai") == [0]
    assert found(state=RunState.DONE) == [2]
    assert found(since=begin + timedelta(hours=2), until=begin + timedelta(hours=4)) == [3, 2]
    assert found(owner=None, session=None) == [5, 4, 3, 2, 1, 0]
    assert store.count(precision="int4") == 4


@pytest.mark.parametrize("column", ["session", "owner", "model", "precision", "device"])
def test_filtered_lists_come_from_an_index_already_sorted(store: RunStore, column: str) -> None:
    query = f"SELECT id FROM runs WHERE {column} = 'x' ORDER BY started_at DESC LIMIT 50"
    with store.database.reading() as connection:
        plan = " ".join(row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert f"ix_runs_{column}" in plan and "TEMP B-TREE" not in plan


def test_run_deleted_while_running_is_not_restored(store: RunStore) -> None:
    run_id = store.start(a_start())
    assert store.delete(run_id) and not store.delete(run_id)
    assert not store.finish(run_id, a_result())
    assert store.get(run_id) is None and store.count() == 0


def test_threads_write_at_once_and_nothing_is_lost(store: RunStore) -> None:
    def one_run(number: int) -> tuple[str, RunStart, RunResult]:
        start, result = a_start(seed=number), a_result(text=f"answer {number}")
        run_id = store.start(start)
        assert store.finish(run_id, result)
        return run_id, start, result

    with ThreadPoolExecutor(max_workers=16) as pool:
        written = list(pool.map(one_run, range(160)))
    assert store.count(state=RunState.DONE) == 160
    for run_id, start, result in written[::20]:
        record = store.get(run_id)
        assert (record.start, record.result) == (start, result)


def test_a_complete_run_can_be_added_at_once(store: RunStore) -> None:
    record = store.get(store.add(a_start(), a_result()))
    assert (record.start, record.result) == (replace(a_start()), a_result())
    assert record.state is RunState.DONE
