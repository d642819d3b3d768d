"""Reads the columns of runs that charts need, quickly and for many runs.

Values are read directly from the database driver, column by column, and equal texts share one
object, so that 100 000 rows take tens of megabytes instead of hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, case, select

from core.db.run_values import FigureRow, Origin, RunRow, RunState
from core.db.tables import runs

_BATCH_SIZE = 10_000
"""Rows that are in memory twice during conversion."""

_REPEATED = (
    *("model", "title", "source", "precision", "weights", "device", "runtime"),
    *("host_name", "host_cpu", "execution_precision", "kv_precision", "stop_reason"),
)
"""Columns with few different values."""


Row = TypeVar("Row", RunRow, FigureRow)


def read_rows(
    connection: Connection,
    kind: type[Row],
    conditions: Sequence[ColumnElement[bool]],
    limit: int | None = None,
) -> list[Row]:
    """Read the latest finished runs that match, newest first."""
    fields: Sequence[str] = kind._fields
    columns = dict(runs.c)
    if kind is FigureRow:
        columns["ttft_ms"] = case((runs.c.cached_tokens > 0, None), else_=runs.c.ttft_ms)
    statement = (
        select(*(columns[name] for name in fields))
        .where(runs.c.state == RunState.DONE, *conditions)
        .order_by(runs.c.started_at.desc())
        .limit(limit)
    )
    rows: list[Row] = []
    make = partial(tuple.__new__, kind)  # three times as fast as ``_make``
    converters = {name: how for name, how in _converters().items() if name in fields}
    repeated = [name for name in _REPEATED if name in fields]
    shared: dict[str, str] = {}
    for batch in _batches(connection, statement):
        values = dict(zip(fields, zip(*batch, strict=True), strict=True))
        values |= {name: map(shared.setdefault, *[values[name]] * 2) for name in repeated}
        values |= {name: map(convert, values[name]) for name, convert in converters.items()}
        rows += map(make, zip(*values.values(), strict=True))
    return rows


def read_ids(connection: Connection) -> set[str]:
    """Read the ids of all finished runs."""
    statement = select(runs.c.id).where(runs.c.state == RunState.DONE)
    return {run_id for batch in _batches(connection, statement) for (run_id,) in batch}


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
