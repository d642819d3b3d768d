"""Opens the run database, migrates it to the newest revision, and reports its errors.

SQLite is used in WAL mode, in which readers never wait for the writer. Each writing transaction
starts with ``BEGIN IMMEDIATE``: a transaction that reads first and writes later can fail
immediately, regardless of the busy timeout, if another process has written in between.
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
from typing import Any, Self, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    RowMapping,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from core.db.rows import from_row
from core.errors import RecordsError
from core.settings import Settings

T = TypeVar("T")

PATIENCE_S = 5.0
"""Seconds to wait for another writer (SQLite's busy timeout). A write takes milliseconds; an answer
should not be delayed much longer by its record."""
RETRY_PAUSE_S = 0.05
SYNCHRONOUS = "NORMAL"
"""In WAL mode this survives a crash of the process; a power failure may lose the latest rows."""
MIGRATIONS = Path(__file__).with_name("migrations")

OLDEST_REVISION = "0013"
"""Databases of earlier revisions are refused: they were written before the first release."""

_WRITES = "paddock_writes"
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_REFUSED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
_FAILURES = (SQLAlchemyError, sqlite3.Error, OSError, OverflowError, ValueError)
"""Errors that the database can raise: SQLAlchemy's, SQLite's own while connecting, disk errors, and
a value out of range."""

_alembic_lock = threading.Lock()  # Alembic's ``context`` and ``op`` are global

logger = logging.getLogger(__name__)


class Database:
    """An open run database at the newest revision. Thread-safe.

    Failures within :meth:`reading` and :meth:`writing` are raised as :class:`RecordsError`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, settings: Settings, *, patience_s: float = PATIENCE_S) -> Database:
        """Open the database, and create or migrate it if needed.

        Several processes may do so at once with SQLite; see ``docs/settings.md`` for servers.

        Args:
            settings: has the location of the database (``resolved_database_url``).
            patience_s: seconds to wait for another process that holds SQLite's lock.

        Raises:
            RecordsError: it cannot be opened, is damaged, or was written by a newer version.
        """
        url = _parse(settings.resolved_database_url)
        database = cls(_engine(url, patience_s))
        try:
            with _translated_errors(url):
                if _is_sqlite(url):
                    if url.database and not url.database.startswith("file:"):
                        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
                    _use_wal(database._engine, patience_s)
                _migrate(database._engine)
        except RecordsError:
            database.close()
            raise
        return database

    @property
    def place(self) -> str:
        """The file, or the URL without its password, for messages."""
        return _place(self._engine.url)

    def revision(self) -> str | None:
        """Return the revision of the database; None if it was never migrated."""
        with self.reading() as connection:
            return _revision(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a read transaction, which sees one state of the database.

        Raises:
            RecordsError: the database could not be read.
        """
        with _translated_errors(self._engine.url), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a write transaction, committed at the end and rolled back by an exception.

        Raises:
            RecordsError: the database could not be written; the transaction was rolled back.
        """
        with _translated_errors(self._engine.url), _transaction(self._engine) as connection:
            yield connection

    def rows(self, statement: Executable) -> list[RowMapping]:
        """Return all rows of a query."""
        with self.reading() as connection:
            return list(connection.execute(statement).mappings())

    def all(self, kind: type[T], statement: Executable) -> list[T]:
        """Return all rows of a query as dataclasses."""
        return [from_row(kind, row) for row in self.rows(statement)]

    def first(self, kind: type[T], statement: Executable) -> T | None:
        """Return the first row of a query as a dataclass, or None."""
        row = self.row(statement)
        return None if row is None else from_row(kind, row)

    def row(self, statement: Executable) -> RowMapping | None:
        """Return the first row of a query, or None."""
        with self.reading() as connection:
            return connection.execute(statement).mappings().first()

    def value(self, statement: Executable) -> Any:
        """Return the first column of the first row of a query; None without a row."""
        with self.reading() as connection:
            return connection.execute(statement).scalar()

    def change(self, statement: Executable) -> int:
        """Execute one statement in a transaction of its own; return the number of its rows."""
        with self.writing() as connection:
            return connection.execute(statement).rowcount

    def close(self) -> None:
        """Close the idle connections; the next use opens new ones."""
        self._engine.dispose()


class Store:
    """Reads and writes some tables of a database. Thread-safe.

    Every method raises :class:`core.errors.RecordsError` if the database fails, and then writes
    nothing.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, settings: Settings, *, patience_s: float = PATIENCE_S) -> Self:
        """Open the database of these settings; see :meth:`Database.open`."""
        return cls(Database.open(settings, patience_s=patience_s))

    def close(self) -> None:
        """Close the idle connections of the database."""
        self.database.close()


@cache
def newest_revision() -> str:
    """Return the revision of this version of Paddock, from the migrations' file names."""
    return max(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*_*.py"))


def upgrade(connection: Connection) -> None:
    """Create the tables of an empty database, or run Alembic's missing migrations.

    Everything happens in the connection's transaction.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    new = _revision(connection) is None
    if new:
        from core.db.tables import metadata  # imports this module

        metadata.create_all(connection, checkfirst=False)
    with _alembic_lock:
        (command.stamp if new else command.upgrade)(config, "head")


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise RecordsError(
            "PADDOCK_DATABASE_URL is not a database URL. Example: sqlite:////folder/runs.db."
        ) from error
    if _is_sqlite(parsed) and parsed.database in (None, "", ":memory:"):
        raise RecordsError(
            "The run database cannot be in memory, because threads would not share it. "
            "Name a file in PADDOCK_DATABASE_URL."
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
            hide_parameters=True,  # keeps instructions and hashes out of logs
        )
    except (ImportError, ArgumentError) as error:
        raise RecordsError(
            f"There is no driver for {url.drivername!r} in PADDOCK_DATABASE_URL "
            f"({_first_line(error)}). Install it with pip."
        ) from error
    if _is_sqlite(url):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _lower(text: object) -> object:
    """SQLite's own function knows ASCII letters only."""
    return text.lower() if isinstance(text, str) else text


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # _begin_sqlite starts transactions, not the driver
    connection.create_function("lower", 1, _lower, deterministic=True)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        yield connection


def _use_wal(engine: Engine, patience_s: float) -> None:
    """Switch the file to WAL mode; this is permanent.

    The switch needs exclusive access and ignores the busy timeout, so it is retried if two
    processes open a new file. A file system without shared memory, such as a network share, keeps
    the old journal mode, which works but is slower.
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
    """Try to set WAL and return the resulting journal mode."""
    with closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            (mode,) = cursor.execute("PRAGMA journal_mode = WAL").fetchone()
    return mode


def _migrate(engine: Engine) -> None:
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision == newest_revision():
        return
    if revision is not None and revision > newest_revision():
        raise RecordsError(
            f"The run database {_place(engine.url)} was written by a newer version of Paddock. "
            "Update Paddock, or set PADDOCK_DATABASE_URL to another database."
        )
    if revision is not None and revision < OLDEST_REVISION:
        raise RecordsError(
            f"The run database {_place(engine.url)} was written by an earlier version of Paddock. "
            "Open it once with commit 3e1d14f, which upgrades it, or move it away, and Paddock "
            "creates a new one."
        )
    import alembic.command  # noqa: F401  a slow import, done before the lock is taken

    with _transaction(engine) as connection:
        if _revision(connection) != newest_revision():
            upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _translated_errors(url: URL) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise RecordsError(_message(url, error)) from error


def _message(url: URL, error: Exception) -> str:
    """Return the error message, by SQLite's result code if there is one."""
    place, code = _place(url), _code(getattr(error, "orig", error))
    if code in _LOCKED:
        return f"The run database {place} is locked by another program. Close it and try again."
    if code == sqlite3.SQLITE_FULL:
        return f"The disk of the run database {place} is full. Free some disk space."
    if code in _DAMAGED:
        return (
            f"The run database {place} is damaged or not a database. Move it away, and Paddock "
            "creates a new one."
        )
    if code in _REFUSED or isinstance(error, OSError):
        return (
            f"The run database {place} cannot be opened or written ({_first_line(error)}). "
            "Make its folder writable, or set PADDOCK_HOME to another folder."
        )
    return f"The run database {place} failed: {_first_line(error)}."


def _code(error: object) -> int | None:
    """Return SQLite's primary result code, the low byte of the extended one."""
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
