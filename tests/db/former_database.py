"""Databases of former versions, with the rows that those versions could have."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine

from core.db.database import upgrade


def raw(home: Path) -> closing[sqlite3.Connection]:
    """Connect to the database file with the driver only, as another program would."""
    connection = sqlite3.connect(home / "paddock.db", isolation_level=None)
    connection.row_factory = sqlite3.Row
    return closing(connection)


def table_names(home: Path, kind: str = "table") -> set[str]:
    """Return the names of the tables, or of the indices, in the database file."""
    with raw(home) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = ?", (kind,))
        return {row["name"] for row in rows}


def former_database(new: Path, old: Path, revision: str) -> None:
    """Create the database of a revision in the folder ``old``, with the rows of that in ``new``."""
    old.mkdir()
    engine = create_engine(f"sqlite:///{(old / 'paddock.db').as_posix()}")
    with engine.begin() as connection:
        upgrade(connection, revision)
    engine.dispose()
    with raw(new) as source, raw(old) as target:
        for table in table_names(old) - {"alembic_version"}:
            columns = [row["name"] for row in target.execute(f"PRAGMA table_info({table})")]
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            rows = [tuple(row) for row in source.execute(f"SELECT {names} FROM {table}")]
            target.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
