"""The store of benchmark runs (sweeps) and measurements."""

from __future__ import annotations

import multiprocessing
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from math import nan
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_mock_engine, text, update

from core.db import Instance, current_instance, processes
from core.db import measurements as module
from core.db.measurement_values import (
    ImportOutcome,
    Measurement,
    MeasurementState,
    Quality,
    SweepState,
)
from core.db.measurements import MeasurementStore
from core.db.rows import batches
from core.db.run_values import utc_now
from core.db.tables import measurements, metadata, sweeps
from core.errors import BadRequestError, ModelBusyError, RecordsError
from core.settings import Settings
from tests.db.measurement_samples import (
    a_figures,
    a_measurement,
    a_quality,
    a_waiting_one,
    done,
)
from tests.db.test_database import raw

PLAN = {"models": ["dolly-v2-3b"], "precisions": ["int8", "int4"], "rounds": 2, "quality": True}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasurementStore]:
    store = MeasurementStore.open(Settings(home=tmp_path))
    yield store
    store.close()


def begin(store: MeasurementStore, count: int = 3, **changes: Any) -> tuple[str, list[Measurement]]:
    """Insert a sweep with this many measurements, all created at the same time."""
    sweep_id = uuid.uuid4().hex
    rows = [a_waiting_one(sweep=sweep_id, prompt_tokens=n + 1, **changes) for n in range(count)]
    store.begin_sweep(PLAN, rows, sweep_id)
    return sweep_id, rows


def states(store: MeasurementStore, sweep_id: str) -> list[str]:
    return [row.state.value for row in store.of_sweep(sweep_id)]


# One measurement


def test_every_field_survives_the_round_trip(store: MeasurementStore) -> None:
    row = a_measurement()
    defaults = {f.name for f in fields(row) if getattr(row, f.name) == f.default}
    assert not defaults, "the sample must differ from the defaults to prove anything"
    store.save(row)
    found = store.get(row.id)
    assert found == row
    assert isinstance(found.state, MeasurementState) and found.created_at.tzinfo is UTC
    assert type(found.rounds[0].samples[0].token_times_ms) is tuple
    assert store.get("0" * 32) is None


def test_unknown_values_stay_none(store: MeasurementStore) -> None:
    waiting = a_waiting_one(host=replace(a_measurement().host, bandwidth_bytes_per_s=None))
    single = a_measurement(
        figures=a_figures(tpot_ms=None, decode_tokens_per_s=None, decode_low=None, mbu=None),
        quality=a_quality(task_accuracy=None),
        hints={},
    )
    for row in (waiting, single):
        store.save(row)
        assert store.get(row.id) == row


def test_saving_again_replaces_and_keeps_the_place(store: MeasurementStore) -> None:
    sweep_id, rows = begin(store)
    measured = done(rows[1], error=None)
    store.save(measured)
    assert store.get(rows[1].id) == measured
    assert [row.id for row in store.of_sweep(sweep_id)] == [row.id for row in rows]
    late = a_waiting_one(sweep=sweep_id)
    store.save(late)
    assert [row.id for row in store.of_sweep(sweep_id)] == [*(row.id for row in rows), late.id]
    assert len(store.all()) == 4


def test_hostile_texts_and_figures_do_not_cost_the_row(store: MeasurementStore) -> None:
    row = a_measurement(
        title="'; DROP TABLE measurements; --\0",
        source="\ud800",
        hints={"key\udfff": "\0"},
        error="lone \udc80",
        figures=a_figures(mbu=nan),
        devices_used=("a,b", "c"),
    )
    store.save(row)
    found = store.get(row.id)
    assert found.configuration.title == "'; DROP TABLE measurements; --\ufffd"
    assert (found.configuration.source, found.error) == ("\ufffd", "lone \ufffd")
    assert found.configuration.hints == {"key\ufffd": "\ufffd"}
    assert found.figures.mbu is None and found.devices_used == ("a,b", "c")
    assert len(store.all(source="\ud800")) == 1, "a filter must be cleaned as the value was"


def test_a_measurement_that_cannot_be_stored_is_refused_with_a_sentence(
    store: MeasurementStore,
) -> None:
    with pytest.raises(RecordsError, match="without a time zone"):
        store.save(a_measurement(created_at=datetime(2026, 1, 1)))
    with pytest.raises(RecordsError, match="failed"):
        store.save(a_measurement(disk_bytes=2**64))
    with pytest.raises(RecordsError, match="measured"):
        store.save(a_measurement(state="measured"))
    assert len(store.all()) == 0


def test_invalid_row_is_named(store: MeasurementStore) -> None:
    row = a_measurement()
    store.save(row)
    with store.database.writing() as connection:
        connection.execute(update(measurements).values(quality={"perplexity": 1.0}))
    with pytest.raises(RecordsError, match=f"The measurement {row.id} in the run database cannot"):
        store.all()


def test_measurements_are_listed_by_filters_the_newest_first(store: MeasurementStore) -> None:
    begin_at, ids = datetime(2026, 1, 1, tzinfo=UTC), []
    for hour in range(6):
        row = a_measurement(
            sweep=f"{hour // 3}" * 32,
            created_at=begin_at + timedelta(hours=hour),
            state=MeasurementState.FAILED if hour == 5 else MeasurementState.DONE,
            model=f"m{hour % 3}",
            source="databricks/dolly-v2-3b" if hour < 2 else "random weights",
            random_weights=hour >= 2,
            precision="int8" if hour < 2 else "int4",
            device="CPU" if hour == 4 else "AUTO",
            runtime="pytorch" if hour == 0 else "optimum",
            host=replace(a_measurement().host, name="other" if hour == 3 else "bench-1"),
            figures=None if hour == 5 else a_figures(contended=hour == 1),
            imported_at=begin_at if hour == 3 else None,
        )
        store.save(row)
        ids.append(row.id)

    def found(limit: int | None = None, **which: Any) -> list[int]:
        return [ids.index(row.id) for row in store.all(limit=limit, **which)]

    assert found() == [5, 4, 3, 2, 1, 0]
    assert found(2) == [5, 4]
    assert found(sweep="0" * 32) == [2, 1, 0]
    assert found(state=MeasurementState.FAILED) == [5]
    assert found(model="m0") == [3, 0]
    assert found(source="databricks/dolly-v2-3b") == found(random_weights=False) == [1, 0]
    assert found(precision="int8") == [1, 0]
    assert found(device="CPU") == [4]
    assert found(runtime="pytorch") == [0]
    assert found(host_name="other") == [3]
    since = begin_at.astimezone(timezone(timedelta(hours=5))) + timedelta(hours=2)
    assert found(since=since, until=begin_at + timedelta(hours=4)) == [3, 2]
    assert found(model=None) == [5, 4, 3, 2, 1, 0]


def test_rounds_can_be_left_out(store: MeasurementStore) -> None:
    row = a_measurement()
    store.save(row)
    assert store.all(with_rounds=False) == [replace(row, rounds=())]
    assert store.all() == [row]


def test_the_version_changes_with_every_change(store: MeasurementStore) -> None:
    seen = [store.version()]
    _, rows = begin(store, 2)
    seen.append(store.version())
    store.save(done(rows[0]))
    seen.append(store.version())
    assert store.version() == seen[-1]
    store.delete([rows[1].id])
    seen.append(store.version())
    assert len(set(seen)) == 4


def test_deleting_removes_empty_ended_sweeps(store: MeasurementStore) -> None:
    ended, first = begin(store)
    running, second = begin(store)
    store.end_sweep(ended, SweepState.DONE)
    ids = [row.id for row in (*first, *second)]
    assert store.delete([]) == store.delete(["0" * 32]) == 0
    assert store.delete(ids[:2]) == 2 and store.sweep(ended) is not None
    assert store.delete(ids) == 4
    assert store.sweep(ended) is None and store.sweep(running) is not None
    assert len(store.all()) == 0


def test_more_ids_than_one_statement_takes(store: MeasurementStore, monkeypatch) -> None:
    monkeypatch.setattr(module, "batches", partial(batches, size=2))
    rows = [a_measurement(sweep=f"{n}" * 32) for n in range(5)]
    assert store.import_all(rows) == ImportOutcome(added=5, already_there=0)
    assert store.import_all(rows) == ImportOutcome(added=0, already_there=5)
    assert store.delete([row.id for row in rows]) == 5


# Sweeps


def test_a_sweep_begins_with_all_its_rows_waiting(store: MeasurementStore) -> None:
    before = utc_now()
    sweep_id, rows = begin(store)
    record = store.sweep(sweep_id)
    assert (record.id, record.state, record.plan) == (sweep_id, SweepState.RUNNING, PLAN)
    assert record.instance == current_instance() and record.ended_at is None
    assert before <= record.created_at <= utc_now()
    assert store.of_sweep(sweep_id) == rows
    assert store.sweep("0" * 32) is None and store.of_sweep("0" * 32) == []


def test_a_sweep_that_cannot_be_inserted_leaves_nothing(store: MeasurementStore) -> None:
    row = a_waiting_one()
    store.save(row)
    with pytest.raises(RecordsError):  # its id is taken
        store.begin_sweep(PLAN, [a_waiting_one(), row], row.sweep)
    assert len(store.all()) == 1 and store.sweeps() == []


def test_the_newest_sweeps_come_first(store: MeasurementStore) -> None:
    ids = [begin(store, 1)[0] for _ in range(4)]
    assert [record.id for record in store.sweeps()] == ids[::-1]
    assert [record.id for record in store.sweeps(limit=2)] == [ids[3], ids[2]]


def test_a_resumed_sweep_runs_here_with_its_rows_as_they_were(store: MeasurementStore) -> None:
    sweep_id, rows = begin(store, 2)
    store.save(done(rows[0]))
    store.save(replace(rows[1], state=MeasurementState.FAILED, error="No."))
    before = store.of_sweep(sweep_id)
    store.end_sweep(sweep_id, SweepState.CANCELLED)
    ended = store.sweep(sweep_id)
    assert ended.state is SweepState.CANCELLED and ended.ended_at is not None

    record = store.resume_sweep(sweep_id)
    assert (record.state, record.ended_at, record.plan) == (SweepState.RUNNING, None, PLAN)
    assert store.of_sweep(sweep_id) == before


def test_a_running_sweep_cannot_be_resumed_and_an_unknown_one_neither(
    store: MeasurementStore,
) -> None:
    sweep_id, _ = begin(store)
    with pytest.raises(ModelBusyError, match=rf"in process {current_instance().pid}\. Wait until"):
        store.resume_sweep(sweep_id)
    assert set(states(store, sweep_id)) == {"waiting"}
    with pytest.raises(BadRequestError, match="no benchmark run with this id"):
        store.resume_sweep("0" * 32)


def sweep_and_hang(home: Path, pipe: Connection) -> None:
    """Code of the other process."""
    store = MeasurementStore.open(Settings(home=home))
    sweep_id, rows = begin(store)
    store.save(done(rows[0]))
    store.save(replace(rows[1], state=MeasurementState.RUNNING))
    pipe.send(sweep_id)
    pipe.recv()


def test_the_sweep_of_a_killed_process_is_marked_and_can_be_resumed(
    tmp_path: Path, store: MeasurementStore
) -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=sweep_and_hang, args=(tmp_path, theirs), daemon=True
    )
    process.start()
    assert ours.poll(120), "the other process did not start"
    sweep_id, mine = ours.recv(), begin(store)[0]
    assert store.mark_interrupted() == 0
    with pytest.raises(ModelBusyError, match=f"process {process.pid}"):
        store.resume_sweep(sweep_id)

    process.kill()
    process.join()
    assert store.mark_interrupted() == 1
    assert store.sweep(sweep_id).state is SweepState.INTERRUPTED
    assert states(store, sweep_id) == ["done", "interrupted", "interrupted"]
    assert store.sweep(mine).state is SweepState.RUNNING
    assert set(states(store, mine)) == {"waiting"}
    assert store.mark_interrupted() == 0

    assert store.resume_sweep(sweep_id).instance == current_instance()
    assert states(store, sweep_id) == ["done", "interrupted", "interrupted"]


def test_orphaned_sweep_can_be_resumed_before_it_is_marked(
    store: MeasurementStore, monkeypatch
) -> None:
    sweep_id, _ = begin(store)
    monkeypatch.setattr(Instance, "alive", lambda self: False)
    assert store.resume_sweep(sweep_id).state is SweepState.RUNNING


def test_sweeps_of_another_machine_are_marked_a_day_after_their_last_row(
    store: MeasurementStore, monkeypatch
) -> None:
    monkeypatch.setattr(processes, "current_instance", lambda: Instance("another-host", 1, 0.0))
    fresh, silent, at_work = (begin(store, 1) for _ in range(3))
    long_ago = utc_now() - timedelta(hours=25)
    with store.database.writing() as connection:
        for sweep_id, _ in (silent, at_work):
            changed = update(sweeps).where(sweeps.c.id == sweep_id)
            connection.execute(changed.values(saved_at=long_ago, created_at=long_ago))
    store.save(done(at_work[1][0]))
    with pytest.raises(ModelBusyError, match="process 1 on another-host"):
        store.resume_sweep(fresh[0])
    assert store.mark_interrupted() == 1
    assert store.sweep(silent[0]).state is SweepState.INTERRUPTED
    assert {store.sweep(s).state for s, _ in (fresh, at_work)} == {SweepState.RUNNING}


# Import


def test_measurements_are_imported_once_and_marked(store: MeasurementStore) -> None:
    before = utc_now()
    given = [a_measurement(prompt_tokens=n + 1) for n in range(3)]
    assert store.import_all(given) == ImportOutcome(added=3, already_there=0)
    found = store.of_sweep(given[0].sweep)
    assert [row.configuration.prompt_tokens for row in found] == [1, 2, 3]
    when = {row.imported_at for row in found}
    assert len(when) == 1 and before <= when.pop() <= utc_now()
    assert [replace(row, imported_at=given[0].imported_at) for row in found] == given
    extra = a_measurement()
    assert store.import_all([extra, *given, extra]) == ImportOutcome(added=1, already_there=4)
    assert store.import_all([]) == ImportOutcome(added=0, already_there=0)


def test_own_measurements_are_never_overwritten(store: MeasurementStore) -> None:
    _, rows = begin(store, 1)
    mine = done(rows[0])
    store.save(mine)
    forged = replace(mine, figures=a_figures(decode_tokens_per_s=1e6))
    assert store.import_all([forged]) == ImportOutcome(added=0, already_there=1)
    assert store.get(mine.id) == mine
    waiting = replace(mine, state=MeasurementState.WAITING)
    store.save(waiting)
    assert store.import_all([forged]) == ImportOutcome(added=0, already_there=1)
    assert store.get(mine.id) == waiting


def test_unfinished_imported_row_is_replaced_by_the_finished_one(store: MeasurementStore) -> None:
    early = a_waiting_one(state=MeasurementState.RUNNING)
    late = done(early)
    assert store.import_all([early]).added == 1
    assert store.get(early.id).state is MeasurementState.INTERRUPTED, "nobody here goes on with it"
    assert store.import_all([early]) == ImportOutcome(added=0, already_there=1)
    assert store.import_all([late]) == ImportOutcome(added=1, already_there=0)
    assert store.get(early.id).figures == late.figures
    assert store.import_all([early]) == ImportOutcome(added=0, already_there=1)
    assert store.get(early.id).state is MeasurementState.DONE


def test_an_import_that_fails_halfway_leaves_nothing(store: MeasurementStore) -> None:
    good, bad = a_measurement(), a_measurement(disk_bytes=2**64)
    with pytest.raises(RecordsError):
        store.import_all([good, bad])
    assert len(store.all()) == 0


# The database


def ddl(url: str) -> str:
    """Return the statements that create all tables on this kind of database."""
    statements: list[str] = []
    engine = create_mock_engine(
        url, lambda element, *_: statements.append(f"{element.compile(dialect=engine.dialect)}")
    )
    metadata.create_all(engine, checkfirst=False)
    return "\n".join(statements)


def test_the_tables_can_be_created_on_postgresql_and_its_index_entries_are_short() -> None:
    """PostgreSQL rejects index entries of more than 2.7 kB, and with them the row."""
    statements = ddl("postgresql://")
    assert "disk_bytes BIGINT" in statements and "plan TEXT NOT NULL" in statements
    assert "CREATE INDEX ix_measurements_sweep" in statements
    assert "ix_runs_chart" not in statements
    assert "CREATE INDEX ix_runs_chart" in ddl("sqlite://")


def test_locked_database_is_reported_and_works_afterwards(tmp_path: Path) -> None:
    store = MeasurementStore.open(Settings(home=tmp_path), patience_s=0.2)
    sweep_id, rows = begin(store)
    with raw(tmp_path) as other:
        other.execute("BEGIN IMMEDIATE")
        for attempt in (
            lambda: store.save(done(rows[0])),
            lambda: begin(store),
            lambda: store.resume_sweep(sweep_id),
            lambda: store.end_sweep(sweep_id, SweepState.DONE),
            lambda: store.import_all([a_measurement()]),
            lambda: store.delete([rows[0].id]),
        ):
            with pytest.raises(RecordsError, match=r"locked by another program\. Close it and try"):
                attempt()
        assert store.of_sweep(sweep_id) == rows, "readers do not wait for the writer"
        other.execute("ROLLBACK")
    store.save(done(rows[0]))
    assert states(store, sweep_id) == ["done", "waiting", "waiting"]


def test_full_disk_is_reported_and_rolled_back(store: MeasurementStore) -> None:
    sweep_id, rows = begin(store)
    with store.database.reading() as connection:  # the pool returns the same connection again
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    many = [a_measurement() for _ in range(50)]
    with pytest.raises(RecordsError, match=r"is full.* Free some disk space"):
        store.import_all(many)
    assert store.of_sweep(sweep_id) == rows and len(store.all()) == 3
    with store.database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert store.import_all(many).added == 50


def test_damaged_database_is_reported(tmp_path: Path) -> None:
    store = MeasurementStore.open(Settings(home=tmp_path))
    store.import_all([a_measurement() for _ in range(50)])
    store.close()
    file = tmp_path / "paddock.db"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * (size - 4096))
    with pytest.raises(RecordsError, match="damaged"):
        MeasurementStore.open(Settings(home=tmp_path)).all()


def test_threads_save_at_once_and_nothing_is_lost(store: MeasurementStore) -> None:
    sweep_id, rows = begin(store, 24)
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(store.save, map(done, rows)))
    assert store.of_sweep(sweep_id) == list(map(done, rows))


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT id FROM measurements ORDER BY created_at DESC LIMIT 50", "created_at"),
        ("SELECT id FROM measurements WHERE sweep = 'x' ORDER BY position", "sweep"),
        ("SELECT max(saved_at) FROM measurements", "saved_at"),
    ],
)
def test_lists_come_from_an_index_already_sorted(
    store: MeasurementStore, query: str, index: str
) -> None:
    with store.database.reading() as connection:
        plan = " ".join(row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert f"ix_measurements_{index}" in plan and "TEMP B-TREE" not in plan


def test_a_quality_without_accuracy_written_earlier_is_read(store: MeasurementStore) -> None:
    """Fields with a default may be added without a migration."""
    row = a_measurement()
    store.save(row)
    kept = {f.name: getattr(row.quality, f.name) for f in fields(Quality)}
    del kept["task_accuracy"]
    with store.database.writing() as connection:
        connection.execute(update(measurements).values(quality=kept))
    assert store.get(row.id).quality == replace(row.quality, task_accuracy=None)
