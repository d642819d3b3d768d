"""The runs: one row for every answer."""

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

FOREIGN_PATIENCE = timedelta(hours=24)
"""Age at which a running row of another machine counts as interrupted: nobody here can look
whether its process lives, and no answer, its wait in the queue included, takes a day."""

_IDS_AT_ONCE = 500
"""Well below the number of parameters that SQLite takes in one statement."""


class RunFilter(TypedDict, total=False):
    """Which runs; what is left out or None does not restrict."""

    session: str | None
    owner: str | None
    origin: Origin | None
    model: str | None
    precision: str | None
    device: str | None
    """Device asked for."""
    runtime: str | None
    state: RunState | None
    since: datetime | None
    """Started at this time or later; with a zone."""
    until: datetime | None
    """Started before this time; with a zone."""


class RunStore:
    """Reads and writes the ``runs`` table; worker threads may share it.

    Every method raises :class:`core.errors.RecordsError` where the database fails: whoever holds
    an answer logs it and goes on.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, settings: Settings, *, patience_s: float = PATIENCE_S) -> RunStore:
        """Open the database of these settings; see :meth:`Database.open`."""
        return cls(Database.open(settings, patience_s=patience_s))

    def start(self, run: RunStart) -> str:
        """Write the row of an answer that begins, and return its id.

        Raises:
            RecordsError: the account whose it is was deleted, or the database fails.
        """
        return self._insert(run, RunState.RUNNING, {})

    def finish(self, run_id: str, result: RunResult) -> bool:
        """Complete a row, even one that was marked interrupted meanwhile.

        Returns:
            False where the row is there no more: somebody deleted it while the answer ran.
        """
        statement = update(runs).where(runs.c.id == run_id).values(_completed(result))
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def add(self, run: RunStart, result: RunResult) -> str:
        """Write start and end at once: where :meth:`start` had failed, or nothing was to stream."""
        return self._insert(run, RunState.DONE, _completed(result))

    def get(self, run_id: str, *, owner: str | None = None) -> RunRecord | None:
        """The run of this id, or None.

        Args:
            run_id: of the run.
            owner: whose it must be, for whoever asks over the network; None for anybody's.
        """
        statement = select(runs).where(*_this(run_id, owner))
        with self.database.reading() as connection:
            row = connection.execute(statement).mappings().first()
        return None if row is None else _record(row)

    def recent(self, limit: int = 50, **which: Unpack[RunFilter]) -> list[RunRecord]:
        """The latest runs that match, the newest first."""
        statement = (
            select(runs)
            .where(*_conditions(which))
            .order_by(runs.c.started_at.desc(), runs.c.id)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [_record(row) for row in connection.execute(statement).mappings()]

    def count(self, **which: Unpack[RunFilter]) -> int:
        """Number of runs that match."""
        statement = select(func.count()).select_from(runs).where(*_conditions(which))
        with self.database.reading() as connection:
            return connection.execute(statement).scalar_one()

    def chart_rows(self, *, limit: int | None = None, **which: Unpack[RunFilter]) -> list[RunRow]:
        """What charts need of the latest answers that ended and match, the newest first.

        Args:
            limit: how many at most; None for all: 100 000 take well under a second.
            which: see :class:`RunFilter`.
        """
        with self.database.reading() as connection:
            return read_rows(connection, RunRow, _conditions(which), limit)

    def figure_rows(self, **which: Unpack[RunFilter]) -> list[FigureRow]:
        """Of the answers that ended and match, what is charted, the newest first.

        Args:
            which: see :class:`RunFilter`.
        """
        with self.database.reading() as connection:
            return read_rows(connection, FigureRow, _conditions(which))

    def done_ids(self) -> set[str]:
        """Ids of all answers that ended: 100 000 in less than a tenth of a second."""
        with self.database.reading() as connection:
            return read_done_ids(connection)

    def starts(self, ids: Iterable[str]) -> dict[str, datetime]:
        """When these answers were begun, by id; those that were deleted are left out."""
        asked, found = list(ids), dict[str, datetime]()
        with self.database.reading() as connection:
            for start in range(0, len(asked), _IDS_AT_ONCE):
                found |= read_starts(connection, asked[start : start + _IDS_AT_ONCE])
        return found

    def token_times(self, run_id: str) -> tuple[float, ...] | None:
        """Time of each new token of a run in ms since the start of work; None where unknown."""
        with self.database.reading() as connection:
            return read_token_times(connection, run_id)

    def version(self) -> RunsVersion:
        """Equal as long as no run was begun, ended or deleted; for caches."""
        with self.database.reading() as connection:
            return read_version(connection)

    def delete(self, run_id: str, *, owner: str | None = None) -> bool:
        """Remove a run; False where there was none.

        Args:
            run_id: of the run.
            owner: whose it must be; None for anybody's.
        """
        with self.database.writing() as connection:
            return connection.execute(runs.delete().where(*_this(run_id, owner))).rowcount > 0

    def delete_all(self, owner: str, *, session: str | None = None) -> int:
        """Remove a person's runs, of one session of the pages or all, and return their number."""
        statement = runs.delete().where(runs.c.owner == owner)
        if session is not None:
            statement = statement.where(runs.c.session == session)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount

    def mark_interrupted(self) -> int:
        """Mark the running rows whose process is gone, and return their number.

        Rows of this process and of other live ones stay. Those of another machine stay for
        :data:`FOREIGN_PATIENCE`.
        """
        orphans = self._orphans()
        marked = 0
        with self.database.writing() as connection:
            for start in range(0, len(orphans), _IDS_AT_ONCE):
                statement = (
                    update(runs)
                    .where(runs.c.id.in_(orphans[start : start + _IDS_AT_ONCE]))
                    .where(runs.c.state == RunState.RUNNING)  # it may have ended since we looked
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
    return [run_id for run_id, started_at in rows if utc_now() - started_at > FOREIGN_PATIENCE]


def _this(run_id: str, owner: str | None) -> list[ColumnElement[bool]]:
    mine = [] if owner is None else [runs.c.owner == owner]
    return [runs.c.id == run_id, *mine]


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
