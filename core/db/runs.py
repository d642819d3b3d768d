"""Store of runs: one row for every answer."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, func, select, update

from core.db.accounts import check_owner
from core.db.database import Store
from core.db.processes import instance_of, is_alive, this_process
from core.db.rows import batches, conditions, from_row, to_row
from core.db.run_columns import FigureRow, RunRow, read_ids, read_rows
from core.db.run_values import RunRecord, RunResult, RunStart, RunState, RunsVersion
from core.db.tables import runs


class RunStore(Store):
    """Reads and writes ``runs``; a running answer logs failures and continues.

    Lists are filtered by columns, such as ``owner`` or ``model``, and by the time at which a run
    started: ``since`` (at this time or later) and ``until`` (before).
    """

    def start(self, run: RunStart) -> str:
        """Insert the row of an answer that starts, and return its id.

        Raises:
            RecordsError: the owner's account was deleted, or the database fails.
        """
        return self._insert(run, {"state": RunState.RUNNING})

    def finish(self, run_id: str, result: RunResult) -> bool:
        """Complete a row, even one that was marked as interrupted in the meantime.

        Returns:
            False if the row was deleted during the run.
        """
        done = to_row(result) | {"state": RunState.DONE}
        return self.database.change(update(runs).where(runs.c.id == run_id).values(done)) > 0

    def add(self, run: RunStart, result: RunResult) -> str:
        """Insert a completed row, after :meth:`start` had failed or for an answer that is
        complete."""
        return self._insert(run, to_row(result) | {"state": RunState.DONE})

    def get(self, run_id: str) -> RunRecord | None:
        """Return the run with this id, or None."""
        row = self.database.row(select(runs).where(runs.c.id == run_id))
        return None if row is None else _record(row)

    def recent(self, limit: int = 50, **which: Any) -> list[RunRecord]:
        """Return the latest runs that match, newest first."""
        statement = (
            select(runs)
            .where(*conditions(runs, "started_at", which))
            .order_by(runs.c.started_at.desc(), runs.c.id)
            .limit(limit)
        )
        return [_record(row) for row in self.database.rows(statement)]

    def count(self, **which: Any) -> int:
        """Return the number of runs that match."""
        matching = conditions(runs, "started_at", which)
        return self.database.value(select(func.count()).select_from(runs).where(*matching))

    def chart_rows(self, *, limit: int | None = None, **which: Any) -> list[RunRow]:
        """Return what charts need of the latest finished answers that match, newest first.

        All of them, without a limit: 100 000 take well under a second.
        """
        with self.database.reading() as connection:
            matching = conditions(runs, "started_at", which)
            return read_rows(connection, RunRow, matching, limit)

    def figure_rows(self, **which: Any) -> list[FigureRow]:
        """Return the charted figures of the finished answers that match, newest first."""
        with self.database.reading() as connection:
            return read_rows(connection, FigureRow, conditions(runs, "started_at", which))

    def done_ids(self) -> set[str]:
        """Return the ids of all finished answers: 100 000 in less than a tenth of a second."""
        with self.database.reading() as connection:
            return read_ids(connection)

    def starts(self, ids: Iterable[str]) -> dict[str, datetime]:
        """Return the start times of answers by id; deleted answers are left out."""
        statement = select(runs.c.id, runs.c.started_at)
        return {
            row["id"]: row["started_at"]
            for batch in batches(list(ids))
            for row in self.database.rows(statement.where(runs.c.id.in_(batch)))
        }

    def token_times(self, run_id: str) -> tuple[float, ...] | None:
        """Return the token times of a run, in ms since processing started; None if unknown."""
        return self.database.value(select(runs.c.token_times_ms).where(runs.c.id == run_id))

    def version(self) -> RunsVersion:
        """Return a value that changes when a run starts, ends or is deleted, for caches."""
        counted = select(func.count()).select_from(runs)
        statement = select(
            counted.scalar_subquery().label("count"),
            counted.where(runs.c.state == RunState.DONE).scalar_subquery().label("done"),
            select(func.max(runs.c.started_at)).scalar_subquery().label("last_start"),
            select(func.max(runs.c.ended_at)).scalar_subquery().label("last_end"),
        )
        (row,) = self.database.rows(statement)
        return RunsVersion(**row)

    def delete(self, run_id: str, *, owner: str | None = None) -> bool:
        """Delete a run; return False if there is none.

        Args:
            owner: required owner; None for any.
        """
        this = conditions(runs, "started_at", {"id": run_id, "owner": owner})
        return self.database.change(runs.delete().where(*this)) > 0

    def delete_all(self, owner: str, *, session: str | None = None) -> int:
        """Delete an owner's runs, of one browser session or all, and return their number."""
        own = conditions(runs, "started_at", {"owner": owner, "session": session})
        return self.database.change(runs.delete().where(*own))

    def mark_interrupted(self) -> int:
        """Mark running rows whose process has ended as interrupted, and return their number.

        Rows of this process and of other running processes stay. Those of another machine stay for
        :data:`core.db.processes.OTHER_HOST_TIMEOUT`.
        """
        running = runs.c.state == RunState.RUNNING
        writer = (column for column in runs.c if column.name.startswith("instance_"))
        rows = self.database.rows(select(runs.c.id, runs.c.started_at, *writer).where(running))
        ended = [row["id"] for row in rows if not is_alive(row, row["started_at"])]
        statement = update(runs).where(running).values(state=RunState.INTERRUPTED)
        return sum(
            self.database.change(statement.where(runs.c.id.in_(batch))) for batch in batches(ended)
        )

    def _insert(self, run: RunStart, values: dict[str, Any]) -> str:
        run_id = uuid.uuid4().hex
        row = to_row(run) | this_process() | values | {"id": run_id}
        with self.database.writing() as connection:
            check_owner(connection, run.owner)
            connection.execute(runs.insert().values(row))
        return run_id


def _record(row: RowMapping) -> RunRecord:
    return RunRecord(
        id=row["id"],
        state=row["state"],
        instance=instance_of(row),
        start=from_row(RunStart, row),
        result=from_row(RunResult, row) if row["state"] is RunState.DONE else None,
    )
