"""Store of runs: one row for every answer.

What charts need is read directly from the database driver, column by column, and equal texts share
one object, so that 100 000 rows take tens of megabytes instead of hundreds.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import cache, partial
from typing import Any

from sqlalchemy import Connection, func, select, update

from core.db.accounts import check_owner
from core.db.database import Store
from core.db.processes import mark_interrupted, this_process
from core.db.rows import conditions, to_row
from core.db.run_values import Origin, RunRecord, RunResult, RunRow, RunStart, RunState
from core.db.tables import runs

_BATCH_SIZE = 10_000
"""Rows that are in memory twice during conversion."""

_REPEATED = (
    *("model", "title", "source", "precision", "weights", "device", "runtime"),
    *("host_name", "host_cpu", "execution_precision", "kv_precision", "stop_reason"),
)
"""Columns with few different values."""


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
        return self.database.first(RunRecord, select(runs).where(runs.c.id == run_id))

    def recent(self, limit: int = 50, **which: Any) -> list[RunRecord]:
        """Return the latest runs that match, newest first."""
        statement = (
            select(runs)
            .where(*conditions(runs, "started_at", which))
            .order_by(runs.c.started_at.desc(), runs.c.id)
            .limit(limit)
        )
        return self.database.all(RunRecord, statement)

    def count(self, **which: Any) -> int:
        """Return the number of runs that match."""
        matching = conditions(runs, "started_at", which)
        return self.database.value(select(func.count()).select_from(runs).where(*matching))

    def chart_rows(self, *, limit: int | None = None, **which: Any) -> list[RunRow]:
        """Return what charts need of the latest finished answers that match, newest first.

        All of them, without a limit: 100 000 take well under a second.
        """
        statement = (
            select(*(runs.c[name] for name in RunRow._fields))
            .where(runs.c.state == RunState.DONE, *conditions(runs, "started_at", which))
            .order_by(runs.c.started_at.desc())
            .limit(limit)
        )
        rows: list[RunRow] = []
        make = partial(tuple.__new__, RunRow)  # three times as fast as ``_make``
        shared: dict[str, str] = {}
        with self.database.reading() as connection:
            for batch in _batches(connection, statement):
                values = dict(zip(RunRow._fields, zip(*batch, strict=True), strict=True))
                values |= {name: map(shared.setdefault, *[values[name]] * 2) for name in _REPEATED}
                values |= {name: map(how, values[name]) for name, how in _converters().items()}
                rows += map(make, zip(*values.values(), strict=True))
        return rows

    def done_by_day(self) -> dict[date, str]:
        """Return the joined ids of the finished answers of each day (UTC).

        100 000 ids take less than a tenth of a second.
        """
        day = func.date(runs.c.started_at)  # stored in UTC, without a time zone
        statement = (
            select(day, func.aggregate_strings(runs.c.id, ""))
            .where(runs.c.state == RunState.DONE)
            .group_by(day)
        )
        with self.database.reading() as connection:
            return {date.fromisoformat(str(day)): ids for day, ids in connection.execute(statement)}

    def token_times(self, run_id: str) -> tuple[float, ...] | None:
        """Return the token times of a run, in ms since processing started; None if unknown."""
        return self.database.value(select(runs.c.token_times_ms).where(runs.c.id == run_id))

    def version(self) -> tuple[object, ...]:
        """Return values that change when a run starts, ends or is deleted, for caches.

        They are several, so that a deletion and a new or finished run do not cancel each other out.
        """
        counted = select(func.count()).select_from(runs)
        statement = select(
            counted.scalar_subquery(),
            counted.where(runs.c.state == RunState.DONE).scalar_subquery(),
            select(func.max(runs.c.started_at)).scalar_subquery(),
            select(func.max(runs.c.ended_at)).scalar_subquery(),
        )
        with self.database.reading() as connection:
            return tuple(connection.execute(statement).one())

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
        """Mark running rows whose process has ended as interrupted, and return their number."""
        return mark_interrupted(self.database, runs, "started_at")

    def _insert(self, run: RunStart, values: dict[str, Any]) -> str:
        run_id = uuid.uuid4().hex
        row = to_row(run) | this_process() | values | {"id": run_id}
        with self.database.writing() as connection:
            check_owner(connection, run.owner)
            connection.execute(runs.insert().values(row))
        return run_id


def _batches(connection: Connection, statement: Any) -> Iterator[list[tuple[Any, ...]]]:
    """Yield rows as the driver returns them, without SQLAlchemy's conversions."""
    result = connection.execute(statement)
    while batch := result.cursor.fetchmany(_BATCH_SIZE):
        yield batch
    result.close()


def _converters() -> dict[str, Callable[[Any], Any]]:
    """Return converters for columns whose driver value differs from the row's value."""
    return {
        "started_at": _utc_time,
        "origin": {origin.value: origin for origin in Origin}.__getitem__,
        "random_weights": bool,
        "devices_used": cache(lambda names: tuple(names.split(",")) if names else ()),
        "contended": {None: None, 0: False, 1: True}.__getitem__,
    }


def _utc_time(value: str | datetime) -> datetime:
    """Convert a stored time, which is UTC without a time zone; SQLite stores it as text."""
    if isinstance(value, str):
        return datetime.fromisoformat(f"{value}+00:00")
    return value.replace(tzinfo=UTC)
