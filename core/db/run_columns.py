"""What charts need of very many runs, read without the texts and without a record for each.

The values come straight from the database's driver, column by column; equal texts become one
object, so that 100 000 rows take tens of megabytes and not hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, func, select

from core.db.run_values import Origin, RunState, RunsVersion
from core.db.tables import CHART_COLUMNS, runs

_AT_ONCE = 10_000
"""Rows fetched at a time: what is held twice while it is converted."""


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
"""Columns of few different texts."""


class RunRow(NamedTuple):
    """The figures and conditions of one answer that ended; None where unknown.

    Units and meanings are those of :class:`core.db.run_values.RunStart` and ``RunResult``. The
    memory figures cover what the application's records do: the growth of a process.
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
    """Of a :class:`RunRow`, what charts are drawn from and by what they tell answers apart."""

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
    """The latest answers that ended and match, the newest first."""
    fields: Sequence[str] = kind._fields
    statement = (
        select(*(runs.c[name] for name in fields))
        .where(runs.c.state == RunState.DONE, *conditions)
        .order_by(runs.c.started_at.desc())
        .limit(limit)
    )
    rows: list[Row] = []
    make = partial(tuple.__new__, kind)  # a third of the time of ``_make``
    converters = {name: how for name, how in _converters().items() if name in fields}
    repeated = [name for name in _REPEATED if name in fields]
    same: dict[str, str] = {}
    for portion in _portions(connection, statement):
        columns = dict(zip(fields, zip(*portion, strict=True), strict=True))
        columns |= {name: map(same.setdefault, *[columns[name]] * 2) for name in repeated}
        columns |= {name: map(convert, columns[name]) for name, convert in converters.items()}
        rows += map(make, zip(*columns.values(), strict=True))
    return rows


def read_done_ids(connection: Connection) -> set[str]:
    """Ids of all runs that ended."""
    statement = select(runs.c.id).where(runs.c.state == RunState.DONE)
    return {run_id for portion in _portions(connection, statement) for (run_id,) in portion}


def read_starts(connection: Connection, ids: Sequence[str]) -> dict[str, datetime]:
    """When these runs began; those that are no more are left out."""
    statement = select(runs.c.id, runs.c.started_at).where(runs.c.id.in_(ids))
    return {run_id: started_at for run_id, started_at in connection.execute(statement)}


def read_token_times(connection: Connection, run_id: str) -> tuple[float, ...] | None:
    """Times of the run's tokens in ms since the start of work; None where none are kept."""
    return connection.execute(select(runs.c.token_times_ms).where(runs.c.id == run_id)).scalar()


def read_version(connection: Connection) -> RunsVersion:
    """Changes when a run is written, ends or is deleted."""
    counted = select(func.count()).select_from(runs)
    statement = select(
        counted.scalar_subquery(),
        counted.where(runs.c.state == RunState.DONE).scalar_subquery(),
        select(func.max(runs.c.started_at)).scalar_subquery(),
        select(func.max(runs.c.ended_at)).scalar_subquery(),
    )
    return RunsVersion(*connection.execute(statement).one())


def _portions(connection: Connection, statement: Any) -> Iterator[list[tuple[Any, ...]]]:
    """The rows as the driver gives them, past SQLAlchemy's conversions."""
    result = connection.execute(statement)
    while portion := result.cursor.fetchmany(_AT_ONCE):
        yield portion
    result.close()


def _converters() -> dict[str, Callable[[Any], Any]]:
    """From the driver's value to the row's, for the columns where they differ."""
    return {
        "started_at": _moment,
        "origin": {origin.value: origin for origin in Origin}.__getitem__,
        "random_weights": bool,
        "devices_used": cache(lambda names: tuple(names.split(",")) if names else ()),
        "contended": {None: None, 0: False, 1: True}.__getitem__,
    }


def _moment(value: str | datetime) -> datetime:
    """A stored time, which is UTC without saying so; SQLite keeps it as text."""
    if isinstance(value, str):
        return datetime.fromisoformat(f"{value}+00:00")
    return value.replace(tzinfo=UTC)
