"""Opening and migrating the database, and its error messages."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from core.db import Database, RunStore, database
from core.db.database import MIGRATIONS, newest_revision
from core.db.tables import metadata, runs
from core.errors import PaddockError, RecordsError
from core.settings import Settings
from tests.db.run_samples import a_result, a_start
from tests.waiting import PATIENCE_S


def raw(home: Path) -> closing[sqlite3.Connection]:
    """Connect to the database file with the driver only, as another program would."""
    return closing(sqlite3.connect(home / "paddock.db", isolation_level=None))


def run_in_new_interpreter(home: Path, code: str) -> str:
    """Run code in a process that opened the database of ``home`` as ``store``; return its
    stdout."""
    prelude = (
        "import sys, pathlib\nfrom core.db import RunStore\nfrom core.settings import "
        "Settings\nstore = RunStore.open(Settings(home=pathlib.Path(sys.argv[1])))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, str(home)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return done.stdout


def test_new_database_gets_the_tables_in_wal_mode(tmp_path: Path) -> None:
    home = tmp_path / "100% new" / "folder"
    store = RunStore.open(Settings(home=home))
    assert store.database.revision() == newest_revision()
    store.add(a_start(), a_result())
    with store.database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    with raw(home) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_a_new_database_has_the_declared_tables(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = Database.open(Settings(home=tmp_path))
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_newest_revision_is_the_one_alembic_finds() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == newest_revision()


def test_opening_again_keeps_rows_and_does_not_load_alembic(tmp_path: Path) -> None:
    first = RunStore.open(Settings(home=tmp_path))
    run_id = first.start(a_start())
    first.close()
    seen = run_in_new_interpreter(
        tmp_path, f"print(store.get({run_id!r}).start.model, 'alembic' in sys.modules)"
    )
    assert seen.split() == ["dolly-v2-3b", "False"]


def open_together(home: Path, barrier: Barrier, results: multiprocessing.Queue) -> None:
    """Code of the processes that open a new database at the same time."""
    import alembic.command  # noqa: F401  imported first, so that only opening races

    barrier.wait(PATIENCE_S)
    try:
        RunStore.open(Settings(home=home)).start(a_start())
        results.put("opened")
    except PaddockError as error:
        results.put(str(error))


def test_two_processes_may_open_a_fresh_database_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    racers = [
        context.Process(target=open_together, args=(tmp_path, barrier, results)) for _ in range(2)
    ]
    for racer in racers:
        racer.start()
    assert [results.get(timeout=PATIENCE_S) for _ in racers] == ["opened", "opened"]
    for racer in racers:
        racer.join(PATIENCE_S)
    assert RunStore.open(Settings(home=tmp_path)).count() == 2


def test_many_threads_may_open_fresh_databases_at_once(tmp_path: Path) -> None:
    def open_one(number: int) -> str | None:
        return Database.open(Settings(home=tmp_path / str(number % 3))).revision()

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert set(pool.map(open_one, range(24))) == {newest_revision()}


def test_a_database_of_the_base_revision_is_upgraded(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("CREATE TABLE kept (note TEXT)")
        connection.execute("INSERT INTO kept VALUES ('still here')")
    store = RunStore.open(Settings(home=tmp_path))
    store.start(a_start())
    assert store.database.revision() == newest_revision()
    with raw(tmp_path) as connection:
        assert connection.execute("SELECT note FROM kept").fetchone() == ("still here",)


def test_columns_after_the_rounds_would_be_slow_to_read(tmp_path: Path) -> None:
    Database.open(Settings(home=tmp_path)).close()
    with raw(tmp_path) as connection:
        columns = [found[1] for found in connection.execute("PRAGMA table_info(measurements)")]
    assert columns[-1] == "rounds"


def test_a_failed_creation_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:  # an index with this name exists already
        connection.execute("CREATE TABLE other (state TEXT)")
        connection.execute("CREATE INDEX ix_runs_state ON other (state)")
    with pytest.raises(RecordsError, match="ix_runs_state"):
        Database.open(Settings(home=tmp_path))
    with raw(tmp_path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        assert tables.fetchall() == [("other",)]


def test_database_of_a_newer_version_is_rejected(tmp_path: Path) -> None:
    Database.open(Settings(home=tmp_path)).close()
    with raw(tmp_path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RecordsError, match="newer version of Paddock"):
        Database.open(Settings(home=tmp_path))


def test_database_before_the_base_revision_is_rejected(tmp_path: Path) -> None:
    Database.open(Settings(home=tmp_path)).close()
    with raw(tmp_path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0006'")
    with pytest.raises(
        RecordsError, match=r"earlier version of Paddock\. Open it once with commit"
    ):
        Database.open(Settings(home=tmp_path))


def test_locked_database_is_reported_and_works_afterwards(tmp_path: Path) -> None:
    store = RunStore.open(Settings(home=tmp_path), patience_s=0.2)
    with store.database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 200
    run_id = store.start(a_start())
    with raw(tmp_path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RecordsError, match="locked by another program"):
            store.finish(run_id, a_result())
        assert store.get(run_id).result is None, "readers do not wait for the writer"
        other.execute("ROLLBACK")
    assert store.finish(run_id, a_result())


def test_a_lock_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    store = RunStore.open(Settings(home=tmp_path), patience_s=PATIENCE_S)
    with raw(tmp_path) as other, ThreadPoolExecutor() as pool:
        other.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(store.start, a_start())
        time.sleep(0.3)
        assert not waiting.done()
        other.execute("COMMIT")
        assert store.get(waiting.result(timeout=PATIENCE_S)) is not None


def test_a_fresh_database_that_stays_locked_cannot_be_opened(tmp_path: Path) -> None:
    with raw(tmp_path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RecordsError, match="locked"):
            Database.open(Settings(home=tmp_path), patience_s=0.2)


def test_switch_to_wal_is_retried(tmp_path: Path, monkeypatch) -> None:
    """SQLite may reject the switch immediately; seen in one of forty runs of five processes."""
    switch, refusals = database._journal_mode, [True, True]

    def refuse_twice(engine) -> str:
        if refusals and refusals.pop():
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return switch(engine)

    monkeypatch.setattr(database, "_journal_mode", refuse_twice)
    assert Database.open(Settings(home=tmp_path)).revision() == newest_revision()
    assert refusals == []


def test_a_read_only_database_is_refused_when_written(tmp_path: Path) -> None:
    RunStore.open(Settings(home=tmp_path)).start(a_start())
    url = f"sqlite:///file:{(tmp_path / 'paddock.db').as_posix()}?mode=ro&uri=true"
    store = RunStore.open(Settings(home=tmp_path, database_url=url))
    assert store.count() == 1
    with pytest.raises(
        RecordsError, match=r"cannot be opened or written .*read-?only.*PADDOCK_HOM"
    ):
        store.start(a_start())


def test_home_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordsError, match="Make its folder writable, or set PADDOCK_HOME"):
        Database.open(Settings(home=tmp_path / "file" / "home"))


def test_folder_in_place_of_the_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "paddock.db").mkdir()
    with pytest.raises(RecordsError, match="cannot be opened or written"):
        Database.open(Settings(home=tmp_path))


def test_full_disk_is_reported_and_rolled_back(tmp_path: Path) -> None:
    store = RunStore.open(Settings(home=tmp_path))
    run_id = store.start(a_start())
    with store.database.reading() as connection:  # the pool returns the same connection again
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RecordsError, match=r"is full.* Free some disk space"):
        store.finish(run_id, a_result(text="x" * 100_000))
    with store.database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert store.finish(run_id, a_result(text="x" * 100_000))


def test_file_that_is_not_a_database_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "paddock.db"
    file.write_bytes(b"not a database " * 1000)
    with pytest.raises(RecordsError, match=r"damaged or not a database\. Move it away"):
        Database.open(Settings(home=tmp_path))
    assert file.read_bytes() == b"not a database " * 1000


def test_overwritten_pages_are_reported_as_damage(tmp_path: Path) -> None:
    store = RunStore.open(Settings(home=tmp_path))
    for _ in range(50):
        store.add(a_start(), a_result())
    store.close()
    file = tmp_path / "paddock.db"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * (size - 4096))
    with pytest.raises(RecordsError, match="damaged"):
        RunStore.open(Settings(home=tmp_path)).recent()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "not a database URL"),
        ("sqlite://", "cannot be in memory"),
        ("sqlite:///:memory:", "cannot be in memory"),
        ("nosuchdb://user:secret@host/db", "no driver .*nosuchdb"),
        ("postgresql+pg8000://user:secret@host/db", "no driver .*pg8000"),
    ],
)
def test_invalid_url_is_reported_without_its_password(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(RecordsError, match=said) as raised:
        Database.open(Settings(home=tmp_path, database_url=url))
    assert "secret" not in str(raised.value)


def test_the_table_can_be_created_on_postgresql() -> None:
    statement = str(CreateTable(runs).compile(dialect=postgresql.dialect()))
    assert "started_at TIMESTAMP WITHOUT TIME ZONE NOT NULL" in statement
    assert "seed BIGINT" in statement and "temperature FLOAT(53) NOT NULL" in statement
