"""Opening the run database, bringing it to the newest revision, and naming what goes wrong.

SQLite is used in WAL mode (readers never wait for the writer), each writing transaction begins
with ``BEGIN IMMEDIATE``: a transaction that reads first and writes later can fail at once where
another process wrote in between, whatever the busy timeout.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from core.errors import RecordsError
from core.settings import Settings

PATIENCE_S = 5.0
"""Seconds to wait for another writer (SQLite's busy timeout). A write takes milliseconds; an
answer should not stand still much longer for the sake of its record."""
RETRY_PAUSE_S = 0.05
SYNCHRONOUS = "NORMAL"
"""In WAL mode this survives a crash of the process; a power cut may cost the latest rows."""
MIGRATIONS = Path(__file__).with_name("migrations")

_WRITES = "paddock_writes"
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_REFUSED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
_FAILURES = (SQLAlchemyError, sqlite3.Error, OSError, OverflowError, ValueError)
"""What the database can raise: wrapped errors, SQLite's own while a connection is being made,
the disk's, and a value out of range."""

_alembic_turn = threading.Lock()  # Alembic's ``context`` and ``op`` are one per process

logger = logging.getLogger(__name__)


class Database:
    """An open run database at the newest revision; safe to use from several threads.

    Every failure of :meth:`reading` and :meth:`writing` is a :class:`RecordsError`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, settings: Settings, *, patience_s: float = PATIENCE_S) -> Database:
        """Open, and create or migrate where needed; two processes may do so at once.

        Args:
            settings: where the database is (``resolved_database_url``).
            patience_s: seconds to wait for another process that holds SQLite's lock.

        Raises:
            RecordsError: it cannot be opened, is damaged, or is of a newer Paddock.
        """
        url = _parse(settings.resolved_database_url)
        database = cls(_engine(url, patience_s))
        try:
            with _named_failures(url):
                if _is_sqlite(url):
                    _make_folder(url)
                    _use_wal(database._engine, patience_s)
                _bring_to_head(database._engine, patience_s)
        except RecordsError:
            database.close()
            raise
        return database

    @property
    def place(self) -> str:
        """The file, or the URL without its password, for people to read."""
        return _place(self._engine.url)

    def revision(self) -> str | None:
        """Revision that the database is at; None for one that was never migrated."""
        with self.reading() as connection:
            return _revision(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the database.

        Raises:
            RecordsError: the database could not be read.
        """
        with _named_failures(self._engine.url), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, committed at the end of the block and undone by an exception.

        Raises:
            RecordsError: the database could not be written; nothing of the block was kept.
        """
        with _named_failures(self._engine.url), _transaction(self._engine) as connection:
            yield connection

    def close(self) -> None:
        """Close the idle connections; the database opens anew at the next use."""
        self._engine.dispose()


@cache
def newest_revision() -> str:
    """Revision that this version of Paddock works with, told from the migrations' file names."""
    return max(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*_*.py"))


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the missing migrations, up to a revision, in the connection's transaction (Alembic)."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _alembic_turn:
        command.upgrade(config, revision)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise RecordsError(
            "PADDOCK_DATABASE_URL is not a database URL; write it like sqlite:////folder/runs.db."
        ) from error
    if _is_sqlite(parsed) and parsed.database in (None, "", ":memory:"):
        raise RecordsError(
            "The run database cannot be in memory, where threads would not share it; "
            "name a file in PADDOCK_DATABASE_URL."
        )
    return parsed


def _engine(url: URL, patience_s: float) -> Engine:
    arguments = {"timeout": patience_s} if _is_sqlite(url) else {}
    try:
        engine = create_engine(
            url,
            connect_args=arguments,
            max_overflow=-1,
            pool_pre_ping=True,
            hide_parameters=True,  # instructions and hashes do not belong into logs
        )
    except (ImportError, ArgumentError) as error:
        raise RecordsError(
            f"There is no driver for a database of the kind {url.drivername!r} of "
            f"PADDOCK_DATABASE_URL; install it with pip ({_first_line(error)})."
        ) from error
    if _is_sqlite(url):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions; we do
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        yield connection


def _make_folder(url: URL) -> None:
    if url.database and not url.database.startswith("file:"):
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)


def _use_wal(engine: Engine, patience_s: float) -> None:
    """Switch the file to WAL, once in its life.

    The switch needs the file for itself and does not wait for the busy timeout, so that two
    processes that open a fresh file must try again. A file system without shared memory (network
    shares) keeps the old journal, which works, slower.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            mode = _journal_mode(engine)
        except sqlite3.OperationalError as error:
            if _code(error) not in _LOCKED or time.monotonic() > deadline:
                raise
        else:
            if mode != "wal":
                logger.warning("The run database stays in journal mode %s, not WAL.", mode)
            return
        time.sleep(RETRY_PAUSE_S)


def _journal_mode(engine: Engine) -> str:
    """The journal mode after an attempt to make it WAL."""
    with closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            (mode,) = cursor.execute("PRAGMA journal_mode = WAL").fetchone()
    return mode


def _bring_to_head(engine: Engine, patience_s: float) -> None:
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision == newest_revision():
        return
    if revision is not None and revision > newest_revision():
        raise RecordsError(
            f"The run database {_place(engine.url)} was written by a newer Paddock; update "
            "Paddock, or choose another file with PADDOCK_DATABASE_URL."
        )
    deadline = time.monotonic() + patience_s
    while True:
        try:
            _upgrade_once(engine)
            return
        except DBAPIError:
            # SQLite waits for its lock by itself. On a server, another process may have created
            # the tables since we looked: look again.
            if _is_sqlite(engine.url) or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_PAUSE_S)


def _upgrade_once(engine: Engine) -> None:
    import alembic.command  # noqa: F401  loaded before the lock is taken, for it takes long

    with _transaction(engine) as connection:
        if _revision(connection) != newest_revision():
            upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _named_failures(url: URL) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise RecordsError(_sentence(url, error)) from error


def _sentence(url: URL, error: Exception) -> str:
    """What happened and what to do, by SQLite's result code where there is one."""
    place, code = _place(url), _code(getattr(error, "orig", error))
    if code in _LOCKED:
        return f"The run database {place} is locked by another program; close it and try again."
    if code == sqlite3.SQLITE_FULL:
        return f"There is no room left for the run database {place}; free some disk space."
    if code in _DAMAGED:
        return (
            f"The run database {place} is damaged or not a database; move it away and "
            "Paddock starts a new one."
        )
    if code in _REFUSED or isinstance(error, OSError):
        return (
            f"The run database {place} cannot be opened or written ({_first_line(error)}); "
            "make its folder writable or set PADDOCK_HOME to another one."
        )
    return f"The run database {place} failed: {_first_line(error)}."


def _code(error: object) -> int | None:
    """SQLite's primary result code, the low byte of the extended one."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _first_line(error: Exception) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _place(url: URL) -> str:
    if _is_sqlite(url) and url.database:
        return url.database
    return url.render_as_string(hide_password=True)
