"""Reads the columns of runs that charts need, quickly and for many runs.

Values are read directly from the database driver, column by column, and equal texts share one
object, so that 100 000 rows take tens of megabytes instead of hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, func, select

from core.db.run_values import Origin, RunState, RunsVersion
from core.db.tables import CHART_COLUMNS, runs

_BATCH_SIZE = 10_000
"""Rows that are in memory twice during conversion."""

_REPEATED = (
    "model",
    "title",
    "source",
    "precision",
    "weights",
    "device",
    "runtime",
    "host_name",
    "host_cpu",
    "execution_precision",
    "kv_precision",
    "stop_reason",
)
"""Columns with few different values."""


class RunRow(NamedTuple):
    """Figures and conditions of one finished answer; None where unknown.

    Units and meanings are those of :class:`core.db.run_values.RunStart` and ``RunResult``. The
    memory figures are the growth of a process, as in the application's records.
    """

    id: str
    started_at: datetime
    origin: Origin
    model: str
    title: str
    source: str
    random_weights: bool
    precision: str
    weights: str | None
    device: str
    devices_used: tuple[str, ...]
    runtime: str
    host_name: str
    host_cpu: str
    contended: bool | None
    prompt_tokens: int | None
    new_tokens: int | None
    ttft_ms: float | None
    decode_tokens_per_s: float | None
    prefill_tokens_per_s: float | None
    memory_private_bytes: int | None
    memory_file_backed_bytes: int | None
    load_s: float | None
    execution_precision: str | None
    kv_precision: str | None
    threads: int | None
    stop_reason: str | None


assert RunRow._fields == CHART_COLUMNS, "a row is built by position"


class FigureRow(NamedTuple):
    """The fields of :class:`RunRow` that charts show and group by."""

    id: str
    started_at: datetime
    model: str
    title: str
    random_weights: bool
    precision: str
    weights: str | None
    device: str
    devices_used: tuple[str, ...]
    runtime: str
    host_name: str
    host_cpu: str
    contended: bool | None
    prompt_tokens: int | None
    ttft_ms: float | None
    decode_tokens_per_s: float | None
    memory_private_bytes: int | None
    memory_file_backed_bytes: int | None
    load_s: float | None


Row = TypeVar("Row", RunRow, FigureRow)


def read_rows(
    connection: Connection,
    kind: type[Row],
    conditions: Sequence[ColumnElement[bool]],
    limit: int | None = None,
) -> list[Row]:
    """Read the latest finished runs that match, newest first."""
    fields: Sequence[str] = kind._fields
    statement = (
        select(*(runs.c[name] for name in fields))
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
        columns = dict(zip(fields, zip(*batch, strict=True), strict=True))
        columns |= {name: map(shared.setdefault, *[columns[name]] * 2) for name in repeated}
        columns |= {name: map(convert, columns[name]) for name, convert in converters.items()}
        rows += map(make, zip(*columns.values(), strict=True))
    return rows


def read_done_ids(connection: Connection) -> set[str]:
    """Read the ids of all finished runs."""
    statement = select(runs.c.id).where(runs.c.state == RunState.DONE)
    return {run_id for batch in _batches(connection, statement) for (run_id,) in batch}


def read_starts(connection: Connection, ids: Sequence[str]) -> dict[str, datetime]:
    """Read the start times of runs; deleted runs are left out."""
    statement = select(runs.c.id, runs.c.started_at).where(runs.c.id.in_(ids))
    return {run_id: started_at for run_id, started_at in connection.execute(statement)}


def read_token_times(connection: Connection, run_id: str) -> tuple[float, ...] | None:
    """Read the token times of a run, in ms since processing started; None if not stored."""
    return connection.execute(select(runs.c.token_times_ms).where(runs.c.id == run_id)).scalar()


def read_version(connection: Connection) -> RunsVersion:
    """Read a value that changes when a run starts, ends or is deleted."""
    counted = select(func.count()).select_from(runs)
    statement = select(
        counted.scalar_subquery(),
        counted.where(runs.c.state == RunState.DONE).scalar_subquery(),
        select(func.max(runs.c.started_at)).scalar_subquery(),
        select(func.max(runs.c.ended_at)).scalar_subquery(),
    )
    return RunsVersion(*connection.execute(statement).one())


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
