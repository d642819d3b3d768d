"""The benchmark's records: sweeps, and one row for every measurement of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack

from sqlalchemy import ColumnElement, Connection, RowMapping, exists, func, select, update

from core.db.database import PATIENCE_S, Database
from core.db.measurement_rows import measurement_of, row_of
from core.db.measurement_values import (
    ImportOutcome,
    Measurement,
    MeasurementState,
    SweepRecord,
    SweepState,
)
from core.db.processes import Instance, current_instance
from core.db.run_values import DataVersion, utc_now
from core.db.tables import measurements, sweeps
from core.errors import BadRequestError, ModelBusyError
from core.settings import Settings

FOREIGN_PATIENCE = timedelta(hours=24)
"""Age of the last sign of life at which a running sweep of another machine counts as interrupted:
nobody here can look whether its process lives, and a row is written after every round."""

_IDS_AT_ONCE = 500
"""Well below the number of parameters that SQLite takes in one statement."""

_OPEN = (MeasurementState.WAITING, MeasurementState.RUNNING)
_LEFT_BEHIND = {SweepState.CANCELLED: MeasurementState.CANCELLED}
"""What rows become that a sweep did not come to; of any other end they are interrupted."""

_INSTANCE = tuple(f.name for f in fields(Instance))
_ALL_BUT_ROUNDS = tuple(column for column in measurements.c if column.name != "rounds")

_Item = TypeVar("_Item")


class MeasurementFilter(TypedDict, total=False):
    """Which measurements; what is left out or None does not restrict."""

    sweep: str | None
    state: MeasurementState | None
    model: str | None
    source: str | None
    random_weights: bool | None
    precision: str | None
    device: str | None
    """Device asked for."""
    runtime: str | None
    host_name: str | None
    contended: bool | None
    imported: bool | None
    """Whether it came from another machine's file."""
    since: datetime | None
    """Created at this time or later; with a zone."""
    until: datetime | None
    """Created before this time; with a zone."""


class MeasurementStore:
    """Reads and writes ``sweeps`` and ``measurements``; threads may share it.

    Every method raises :class:`core.errors.RecordsError` where the database fails; nothing of
    what it was to write is kept then.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, settings: Settings, *, patience_s: float = PATIENCE_S) -> MeasurementStore:
        """Open the database of these settings; see :meth:`Database.open`."""
        return cls(Database.open(settings, patience_s=patience_s))

    def begin_sweep(
        self, plan: Mapping[str, Any], rows: Sequence[Measurement], sweep_id: str
    ) -> None:
        """Write a sweep that this process begins, and all it is to measure, waiting.

        Args:
            plan: enough to go on with the sweep later, in JSON's types.
            rows: in the order in which they are listed from then on.
            sweep_id: 32 hexadecimal digits; the sweep of all ``rows``.
        """
        if any(row.sweep != sweep_id for row in rows):
            raise ValueError("a measurement belongs to another sweep")
        now = utc_now()
        sweep = _writer() | {"id": sweep_id, "state": SweepState.RUNNING, "plan": plan}
        with self.database.writing() as connection:
            connection.execute(sweeps.insert().values(sweep | {"created_at": now, "saved_at": now}))
            waiting = [replace(row, state=MeasurementState.WAITING) for row in rows]
            _insert(connection, waiting, now)

    def resume_sweep(self, sweep_id: str) -> SweepRecord:
        """Let this process go on with a sweep that has ended; what it lacks becomes waiting.

        Rounds and figures of earlier attempts stay until the row is saved again.

        Raises:
            BadRequestError: there is no such sweep.
            ModelBusyError: another process, or this one, is at it.
        """
        now = utc_now()
        running = {"state": SweepState.RUNNING, "ended_at": None, "saved_at": now} | _writer()
        waiting = {"state": MeasurementState.WAITING, "error": None, "ended_at": None}
        missing = [state for state in MeasurementState if state.missing]
        with self.database.writing() as connection:
            found = _sweep_row(connection, sweep_id)
            if found is None:
                raise BadRequestError(
                    "There is no benchmark of this id to go on with; list those there are with "
                    "python -m core bench --list, or start a new one."
                )
            if found["state"] is SweepState.RUNNING and _lives(connection, found):
                raise _busy(_instance(found))
            connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(running))
            _change_rows(connection, sweep_id, missing, waiting | {"saved_at": now})
            return _sweep_record(_sweep_row(connection, sweep_id))

    def end_sweep(self, sweep_id: str, state: SweepState) -> None:
        """Write how a sweep ended; what it did not come to is cancelled or interrupted with it."""
        now = utc_now()
        left = {"state": _LEFT_BEHIND.get(state, MeasurementState.INTERRUPTED), "saved_at": now}
        running = (MeasurementState.RUNNING,)
        with self.database.writing() as connection:
            connection.execute(
                update(sweeps)
                .where(sweeps.c.id == sweep_id)
                .values(state=state, ended_at=now, saved_at=now)
            )
            _change_rows(connection, sweep_id, running, left | {"ended_at": now})
            _change_rows(connection, sweep_id, _OPEN, left)

    def sweep(self, sweep_id: str) -> SweepRecord | None:
        """The sweep of this id, or None."""
        with self.database.reading() as connection:
            row = _sweep_row(connection, sweep_id)
            return None if row is None else _sweep_record(row)

    def sweeps(self, limit: int = 20) -> list[SweepRecord]:
        """The latest sweeps of this database, the newest first."""
        statement = (
            select(sweeps).order_by(sweeps.c.created_at.desc(), sweeps.c.id.desc()).limit(limit)
        )
        with self.database.reading() as connection:
            return [_sweep_record(row) for row in connection.execute(statement).mappings()]

    def save(self, measurement: Measurement) -> None:
        """Write a measurement in the place of the one with its id, or as a new one."""
        now = utc_now()
        changed = (
            update(measurements)
            .where(measurements.c.id == measurement.id)
            .values(row_of(measurement) | {"saved_at": now})
        )
        with self.database.writing() as connection:
            if connection.execute(changed).rowcount == 0:
                _insert(connection, [measurement], now)

    def get(self, measurement_id: str) -> Measurement | None:
        """The measurement of this id, or None."""
        statement = select(measurements).where(measurements.c.id == measurement_id)
        with self.database.reading() as connection:
            row = connection.execute(statement).mappings().first()
            return None if row is None else measurement_of(row)

    def of_sweep(self, sweep_id: str) -> list[Measurement]:
        """All measurements of a sweep, in the order in which it began with them."""
        statement = (
            select(measurements)
            .where(measurements.c.sweep == sweep_id)
            .order_by(measurements.c.position, measurements.c.created_at, measurements.c.id)
        )
        with self.database.reading() as connection:
            return [measurement_of(row) for row in connection.execute(statement).mappings()]

    def all(
        self,
        *,
        limit: int | None = None,
        with_rounds: bool = True,
        **which: Unpack[MeasurementFilter],
    ) -> list[Measurement]:
        """The measurements that match, the newest first.

        Args:
            limit: how many at most; None for all.
            with_rounds: False leaves ``rounds`` empty, which is what most of a row consists of.
            which: see :class:`MeasurementFilter`.
        """
        columns = (measurements,) if with_rounds else _ALL_BUT_ROUNDS
        statement = (
            select(*columns)
            .where(*_conditions(which))
            .order_by(
                measurements.c.created_at.desc(),
                measurements.c.position.desc(),
                measurements.c.id,
            )
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [measurement_of(row) for row in connection.execute(statement).mappings()]

    def count(self, **which: Unpack[MeasurementFilter]) -> int:
        """Number of measurements that match."""
        statement = select(func.count()).select_from(measurements).where(*_conditions(which))
        with self.database.reading() as connection:
            return connection.execute(statement).scalar_one()

    def version(self) -> DataVersion:
        """Equal as long as no measurement was written or deleted; for caches."""
        statement = select(
            select(func.count()).select_from(measurements).scalar_subquery(),
            select(func.max(measurements.c.saved_at)).scalar_subquery(),
        )
        with self.database.reading() as connection:
            return DataVersion(*connection.execute(statement).one())

    def delete(self, ids: Sequence[str]) -> int:
        """Remove measurements, and ended sweeps that have none left.

        Returns:
            How many measurements there were of these ids.
        """
        deleted = 0
        rest = exists().where(measurements.c.sweep == sweeps.c.id)
        with self.database.writing() as connection:
            for some in _portions(list(ids)):
                statement = measurements.delete().where(measurements.c.id.in_(some))
                deleted += connection.execute(statement).rowcount
            if deleted:
                ended = sweeps.c.state != SweepState.RUNNING
                connection.execute(sweeps.delete().where(ended, ~rest))
        return deleted

    def mark_interrupted(self) -> int:
        """Mark the running sweeps whose process is gone, with their rows; return their number.

        Sweeps of this process and of other live ones stay. Those of another machine stay for
        :data:`FOREIGN_PATIENCE`.
        """
        running = select(sweeps).where(sweeps.c.state == SweepState.RUNNING)
        with self.database.reading() as connection:
            rows = connection.execute(running).mappings().all()
            orphans = [row for row in rows if not _lives(connection, row)]
        if not orphans:
            return 0
        with self.database.writing() as connection:
            return sum(_interrupt(connection, row) for row in orphans)

    def import_all(self, given: Sequence[Measurement]) -> ImportOutcome:
        """Take over measurements of another machine, all of them or, where that fails, none.

        What is there already stays as it is; only an unfinished row that was imported earlier
        gives way to the finished one. What is being measured elsewhere, or waits for it, is
        taken over as interrupted: nobody here goes on with it.
        """
        now = utc_now()
        by_id: dict[str, Measurement] = {}
        for row in given:
            by_id.setdefault(row.id, _imported(row, now))
        with self.database.writing() as connection:
            present = _states(connection, list(by_id))
            outdated = {key for key, row in by_id.items() if _gives_way(present.get(key), row)}
            for some in _portions(sorted(outdated)):
                connection.execute(measurements.delete().where(measurements.c.id.in_(some)))
            new = [row for key, row in by_id.items() if key not in present or key in outdated]
            _insert(connection, new, now)
        return ImportOutcome(added=len(new), already_there=len(given) - len(new))

    def close(self) -> None:
        """Close the idle connections of the database."""
        self.database.close()


def _writer() -> dict[str, Any]:
    instance = current_instance()
    return {f"instance_{name}": getattr(instance, name) for name in _INSTANCE}


def _insert(connection: Connection, rows: Sequence[Measurement], now: datetime) -> None:
    """New rows, listed after those that their sweeps have."""
    statement = select(measurements.c.sweep, func.max(measurements.c.position)).group_by(
        measurements.c.sweep
    )
    next_of: dict[str, int] = {}
    for some in _portions(sorted({row.sweep for row in rows})):
        found = connection.execute(statement.where(measurements.c.sweep.in_(some)))
        next_of |= {sweep: position + 1 for sweep, position in found}
    values = []
    for row in rows:
        position = next_of.get(row.sweep, 0)
        next_of[row.sweep] = position + 1
        values.append(row_of(row) | {"position": position, "saved_at": now})
    if values:
        connection.execute(measurements.insert(), values)


def _change_rows(
    connection: Connection,
    sweep_id: str,
    states: Sequence[MeasurementState],
    values: Mapping[str, Any],
) -> None:
    """Change the rows of a sweep that are in these states; not what was imported."""
    connection.execute(
        update(measurements)
        .where(measurements.c.sweep == sweep_id)
        .where(measurements.c.imported_at.is_(None))
        .where(measurements.c.state.in_(states))
        .values(values)
    )


def _interrupt(connection: Connection, seen: RowMapping) -> bool:
    """Mark a sweep, unless it was ended or resumed since it was looked at."""
    now = utc_now()
    statement = (
        update(sweeps)
        .where(sweeps.c.id == seen["id"])
        .where(sweeps.c.state == SweepState.RUNNING)
        .where(*(sweeps.c[name] == value for name, value in _instance_columns(seen).items()))
        .values(state=SweepState.INTERRUPTED, saved_at=now)
    )
    if connection.execute(statement).rowcount == 0:
        return False
    left = {"state": MeasurementState.INTERRUPTED, "saved_at": now}
    _change_rows(connection, seen["id"], _OPEN, left)
    return True


def _lives(connection: Connection, sweep: RowMapping) -> bool:
    """Whether the process of a running sweep is alive, as far as can be known here."""
    instance = _instance(sweep)
    if instance.local:
        return instance.alive()
    newest = select(func.max(measurements.c.saved_at)).where(measurements.c.sweep == sweep["id"])
    seen_at = connection.execute(newest).scalar() or sweep["saved_at"]
    return utc_now() - max(seen_at, sweep["saved_at"]) <= FOREIGN_PATIENCE


def _busy(instance: Instance) -> ModelBusyError:
    place = "" if instance.local else f" on {instance.host}"
    return ModelBusyError(
        f"This benchmark is being measured by process {instance.pid}{place}; wait until it is "
        "done, or cancel it there."
    )


def _sweep_row(connection: Connection, sweep_id: str) -> RowMapping | None:
    return connection.execute(select(sweeps).where(sweeps.c.id == sweep_id)).mappings().first()


def _sweep_record(row: RowMapping) -> SweepRecord:
    return SweepRecord(
        id=row["id"],
        state=row["state"],
        plan=row["plan"],
        instance=_instance(row),
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )


def _instance_columns(row: RowMapping) -> dict[str, Any]:
    return {f"instance_{name}": row[f"instance_{name}"] for name in _INSTANCE}


def _instance(row: RowMapping) -> Instance:
    return Instance(**{name: row[f"instance_{name}"] for name in _INSTANCE})


def _imported(row: Measurement, now: datetime) -> Measurement:
    state = MeasurementState.INTERRUPTED if row.state in _OPEN else row.state
    return replace(row, state=state, imported_at=now)


def _states(connection: Connection, ids: list[str]) -> dict[str, tuple[MeasurementState, bool]]:
    """Of the measurements that are there, by id: the state, and whether it was imported."""
    found: dict[str, tuple[MeasurementState, bool]] = {}
    columns = measurements.c.id, measurements.c.state, measurements.c.imported_at
    for some in _portions(ids):
        rows = connection.execute(select(*columns).where(measurements.c.id.in_(some)))
        found |= {row.id: (row.state, row.imported_at is not None) for row in rows}
    return found


def _gives_way(present: tuple[MeasurementState, bool] | None, incoming: Measurement) -> bool:
    if present is None:
        return False
    state, imported = present
    return imported and state.missing and not incoming.state.missing


def _portions(items: list[_Item]) -> Iterator[list[_Item]]:
    for start in range(0, len(items), _IDS_AT_ONCE):
        yield items[start : start + _IDS_AT_ONCE]


def _conditions(which: MeasurementFilter) -> list[ColumnElement[bool]]:
    unknown = which.keys() - MeasurementFilter.__annotations__.keys()
    if unknown:
        raise TypeError(f"measurements cannot be filtered by {', '.join(sorted(unknown))}")
    conditions = []
    for name, value in which.items():
        if value is None:
            continue
        if name == "since":
            conditions.append(measurements.c.created_at >= value)
        elif name == "until":
            conditions.append(measurements.c.created_at < value)
        elif name == "imported":
            there = measurements.c.imported_at
            conditions.append(there.is_not(None) if value else there.is_(None))
        else:
            conditions.append(measurements.c[name] == value)
    return conditions
