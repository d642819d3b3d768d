"""Store of runs: one row for every answer."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, RowMapping, func, select, update

from core.db.accounts import check_owner
from core.db.database import PATIENCE_S, Database
from core.db.processes import Instance, current_instance
from core.db.run_columns import (
    FigureRow,
    RunRow,
    read_done_ids,
    read_rows,
    read_starts,
    read_token_times,
    read_version,
)
from core.db.run_values import (
    RESULT_COLUMNS,
    START_COLUMNS,
    Origin,
    RunRecord,
    RunResult,
    RunStart,
    RunState,
    RunsVersion,
    utc_now,
)
from core.db.tables import runs
from core.settings import Settings

OTHER_HOST_TIMEOUT = timedelta(hours=24)
"""Age at which a running row of another machine counts as interrupted: its process cannot be
checked from here, and no answer, including its time in the queue, takes a day."""

_BATCH_SIZE = 500
"""Well below SQLite's limit of parameters per statement."""


class RunFilter(TypedDict, total=False):
    """Filter for runs; missing fields and None do not restrict."""

    session: str | None
    owner: str | None
    origin: Origin | None
    model: str | None
    precision: str | None
    device: str | None
    """Requested device."""
    runtime: str | None
    state: RunState | None
    since: datetime | None
    """Started at this time or later; with a time zone."""
    until: datetime | None
    """Started before this time; with a time zone."""


class RunStore:
    """Reads and writes ``runs``. Thread-safe.

    Every method raises :class:`core.errors.RecordsError` if the database fails; a running answer
    logs it and continues.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, settings: Settings, *, patience_s: float = PATIENCE_S) -> RunStore:
        """Open the database of these settings; see :meth:`Database.open`."""
        return cls(Database.open(settings, patience_s=patience_s))

    def start(self, run: RunStart) -> str:
        """Insert the row of an answer that starts, and return its id.

        Raises:
            RecordsError: the owner's account was deleted, or the database fails.
        """
        return self._insert(run, RunState.RUNNING, {})

    def finish(self, run_id: str, result: RunResult) -> bool:
        """Complete a row, even one that was marked as interrupted in the meantime.

        Returns:
            False if the row was deleted during the run.
        """
        statement = update(runs).where(runs.c.id == run_id).values(_completed(result))
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def add(self, run: RunStart, result: RunResult) -> str:
        """Insert a completed row, after :meth:`start` had failed or for an answer that is
        complete."""
        return self._insert(run, RunState.DONE, _completed(result))

    def get(self, run_id: str, *, owner: str | None = None) -> RunRecord | None:
        """Return the run with this id, or None.

        Args:
            owner: required owner, for requests over the network; None for any.
        """
        statement = select(runs).where(*_this(run_id, owner))
        with self.database.reading() as connection:
            row = connection.execute(statement).mappings().first()
        return None if row is None else _record(row)

    def recent(self, limit: int = 50, **which: Unpack[RunFilter]) -> list[RunRecord]:
        """Return the latest runs that match, newest first."""
        statement = (
            select(runs)
            .where(*_conditions(which))
            .order_by(runs.c.started_at.desc(), runs.c.id)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [_record(row) for row in connection.execute(statement).mappings()]

    def count(self, **which: Unpack[RunFilter]) -> int:
        """Return the number of runs that match."""
        statement = select(func.count()).select_from(runs).where(*_conditions(which))
        with self.database.reading() as connection:
            return connection.execute(statement).scalar_one()

    def chart_rows(self, *, limit: int | None = None, **which: Unpack[RunFilter]) -> list[RunRow]:
        """Return what charts need of the latest finished answers that match, newest first.

        Args:
            limit: highest number of rows; None for all: 100 000 take well under a second.
            which: see :class:`RunFilter`.
        """
        with self.database.reading() as connection:
            return read_rows(connection, RunRow, _conditions(which), limit)

    def figure_rows(self, **which: Unpack[RunFilter]) -> list[FigureRow]:
        """Return the charted figures of the finished answers that match, newest first."""
        with self.database.reading() as connection:
            return read_rows(connection, FigureRow, _conditions(which))

    def done_ids(self) -> set[str]:
        """Return the ids of all finished answers: 100 000 in less than a tenth of a second."""
        with self.database.reading() as connection:
            return read_done_ids(connection)

    def starts(self, ids: Iterable[str]) -> dict[str, datetime]:
        """Return the start times of answers by id; deleted answers are left out."""
        requested, found = list(ids), dict[str, datetime]()
        with self.database.reading() as connection:
            for start in range(0, len(requested), _BATCH_SIZE):
                found |= read_starts(connection, requested[start : start + _BATCH_SIZE])
        return found

    def token_times(self, run_id: str) -> tuple[float, ...] | None:
        """Return the token times of a run, in ms since processing started; None if unknown."""
        with self.database.reading() as connection:
            return read_token_times(connection, run_id)

    def version(self) -> RunsVersion:
        """Return a value that changes when a run starts, ends or is deleted, for caches."""
        with self.database.reading() as connection:
            return read_version(connection)

    def delete(self, run_id: str, *, owner: str | None = None) -> bool:
        """Delete a run; return False if there is none.

        Args:
            owner: required owner; None for any.
        """
        with self.database.writing() as connection:
            return connection.execute(runs.delete().where(*_this(run_id, owner))).rowcount > 0

    def delete_all(self, owner: str, *, session: str | None = None) -> int:
        """Delete an owner's runs, of one browser session or all, and return their number."""
        statement = runs.delete().where(runs.c.owner == owner)
        if session is not None:
            statement = statement.where(runs.c.session == session)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount

    def mark_interrupted(self) -> int:
        """Mark running rows whose process has ended as interrupted, and return their number.

        Rows of this process and of other running processes stay. Those of another machine stay for
        :data:`OTHER_HOST_TIMEOUT`.
        """
        orphans = self._orphans()
        marked = 0
        with self.database.writing() as connection:
            for start in range(0, len(orphans), _BATCH_SIZE):
                statement = (
                    update(runs)
                    .where(runs.c.id.in_(orphans[start : start + _BATCH_SIZE]))
                    .where(runs.c.state == RunState.RUNNING)  # it may have ended since the check
                    .values(state=RunState.INTERRUPTED)
                )
                marked += connection.execute(statement).rowcount
        return marked

    def close(self) -> None:
        """Close the idle connections of the database."""
        self.database.close()

    def _insert(self, run: RunStart, state: RunState, result: dict[str, Any]) -> str:
        run_id, instance = uuid.uuid4().hex, current_instance()
        row = {name: getattr(run, name) for name in START_COLUMNS}
        row |= {f"instance_{f.name}": getattr(instance, f.name) for f in fields(Instance)}
        row |= {"id": run_id, "state": state} | result
        with self.database.writing() as connection:
            check_owner(connection, run.owner)
            connection.execute(runs.insert().values(row))
        return run_id

    def _orphans(self) -> list[str]:
        statement = select(
            runs.c.id,
            runs.c.started_at,
            *(runs.c[f"instance_{f.name}"] for f in fields(Instance)),
        ).where(runs.c.state == RunState.RUNNING)
        by_instance: dict[Instance, list[tuple[str, datetime]]] = defaultdict(list)
        with self.database.reading() as connection:
            for run_id, started_at, *instance in connection.execute(statement):
                by_instance[Instance(*instance)].append((run_id, started_at))
        return [run_id for writer, rows in by_instance.items() for run_id in _dead(writer, rows)]


def _dead(writer: Instance, rows: Iterable[tuple[str, datetime]]) -> list[str]:
    if writer.local:
        return [] if writer.alive() else [run_id for run_id, _ in rows]
    return [run_id for run_id, started_at in rows if utc_now() - started_at > OTHER_HOST_TIMEOUT]


def _this(run_id: str, owner: str | None) -> list[ColumnElement[bool]]:
    owned = [] if owner is None else [runs.c.owner == owner]
    return [runs.c.id == run_id, *owned]


def _completed(result: RunResult) -> dict[str, Any]:
    values = {name: getattr(result, name) for name in RESULT_COLUMNS}
    return values | {"state": RunState.DONE}


def _conditions(which: RunFilter) -> list[ColumnElement[bool]]:
    unknown = which.keys() - RunFilter.__annotations__.keys()
    if unknown:
        raise TypeError(f"runs cannot be filtered by {', '.join(sorted(unknown))}")
    conditions = []
    for name, value in which.items():
        if value is None:
            continue
        if name == "since":
            conditions.append(runs.c.started_at >= value)
        elif name == "until":
            conditions.append(runs.c.started_at < value)
        else:
            conditions.append(runs.c[name] == value)
    return conditions


def _record(row: RowMapping) -> RunRecord:
    result = None
    if row["state"] == RunState.DONE:
        result = RunResult(**{name: row[name] for name in RESULT_COLUMNS})
    return RunRecord(
        id=row["id"],
        state=row["state"],
        instance=Instance(**{f.name: row[f"instance_{f.name}"] for f in fields(Instance)}),
        start=RunStart(**{name: row[name] for name in START_COLUMNS}),
        result=result,
    )
