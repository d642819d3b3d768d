"""Store of benchmark runs (``sweeps``) and their measurements."""

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

OTHER_HOST_TIMEOUT = timedelta(hours=24)
"""Time since the last write after which a running benchmark of another machine counts as
interrupted: its process cannot be checked from here, and a row is written after every round."""

_BATCH_SIZE = 500
"""Well below SQLite's limit of parameters per statement."""

_OPEN = (MeasurementState.WAITING, MeasurementState.RUNNING)
_UNFINISHED_ROWS = {SweepState.CANCELLED: MeasurementState.CANCELLED}
"""State of a run's unfinished rows when it ends; interrupted for all other ends."""

_INSTANCE = tuple(f.name for f in fields(Instance))
_ALL_BUT_ROUNDS = tuple(column for column in measurements.c if column.name != "rounds")

_Item = TypeVar("_Item")


class MeasurementFilter(TypedDict, total=False):
    """Filter for measurements; missing fields and None do not restrict."""

    sweep: str | None
    state: MeasurementState | None
    model: str | None
    source: str | None
    random_weights: bool | None
    precision: str | None
    device: str | None
    """Requested device."""
    runtime: str | None
    host_name: str | None
    contended: bool | None
    imported: bool | None
    """Whether it was imported from a file."""
    since: datetime | None
    """Created at this time or later; with a time zone."""
    until: datetime | None
    """Created before this time; with a time zone."""


class MeasurementStore:
    """Reads and writes ``sweeps`` and ``measurements``. Thread-safe.

    Every method raises :class:`core.errors.RecordsError` if the database fails, and then writes
    nothing.
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
        """Insert a benchmark run of this process, with its measurements in state waiting.

        Args:
            plan: JSON-serializable, and sufficient to resume the run later.
            rows: in the order in which they will be listed.
            sweep_id: 32 hexadecimal digits; the ``sweep`` of all rows.
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
        """Resume an ended benchmark run in this process; its missing rows become waiting.

        Rounds and figures of earlier attempts are kept until the row is saved again.

        Raises:
            BadRequestError: there is no such run.
            ModelBusyError: the run is already running, in this or another process.
        """
        now = utc_now()
        running = {"state": SweepState.RUNNING, "ended_at": None, "saved_at": now} | _writer()
        waiting = {"state": MeasurementState.WAITING, "error": None, "ended_at": None}
        missing = [state for state in MeasurementState if state.missing]
        with self.database.writing() as connection:
            found = _sweep_row(connection, sweep_id)
            if found is None:
                raise BadRequestError(
                    "There is no benchmark run with this id. `python -m core bench --list` lists "
                    "all runs."
                )
            if found["state"] is SweepState.RUNNING and _is_alive(connection, found):
                raise _busy(_instance(found))
            connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(running))
            _change_rows(connection, sweep_id, missing, waiting | {"saved_at": now})
            return _sweep_record(_sweep_row(connection, sweep_id))

    def end_sweep(self, sweep_id: str, state: SweepState) -> None:
        """Write the end of a benchmark run; its unfinished rows become cancelled or interrupted."""
        now = utc_now()
        left = {"state": _UNFINISHED_ROWS.get(state, MeasurementState.INTERRUPTED), "saved_at": now}
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
        """Return the benchmark run with this id, or None."""
        with self.database.reading() as connection:
            row = _sweep_row(connection, sweep_id)
            return None if row is None else _sweep_record(row)

    def sweeps(self, limit: int = 20) -> list[SweepRecord]:
        """Return the latest benchmark runs, newest first."""
        statement = (
            select(sweeps).order_by(sweeps.c.created_at.desc(), sweeps.c.id.desc()).limit(limit)
        )
        with self.database.reading() as connection:
            return [_sweep_record(row) for row in connection.execute(statement).mappings()]

    def save(self, measurement: Measurement) -> None:
        """Replace the measurement with the same id, or insert it."""
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
        """Return the measurement with this id, or None."""
        statement = select(measurements).where(measurements.c.id == measurement_id)
        with self.database.reading() as connection:
            row = connection.execute(statement).mappings().first()
            return None if row is None else measurement_of(row)

    def of_sweep(self, sweep_id: str) -> list[Measurement]:
        """Return all measurements of a benchmark run in the order of its plan."""
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
        """Return the measurements that match, newest first.

        Args:
            limit: highest number of measurements; None for all.
            with_rounds: False leaves ``rounds`` empty, which are most of a row's data.
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
        """Return the number of measurements that match."""
        statement = select(func.count()).select_from(measurements).where(*_conditions(which))
        with self.database.reading() as connection:
            return connection.execute(statement).scalar_one()

    def version(self) -> DataVersion:
        """Return a value that changes when a measurement is written or deleted, for caches."""
        statement = select(
            select(func.count()).select_from(measurements).scalar_subquery(),
            select(func.max(measurements.c.saved_at)).scalar_subquery(),
        )
        with self.database.reading() as connection:
            return DataVersion(*connection.execute(statement).one())

    def delete(self, ids: Sequence[str]) -> int:
        """Delete measurements, and ended benchmark runs that have none left.

        Returns:
            Number of deleted measurements.
        """
        deleted = 0
        rest = exists().where(measurements.c.sweep == sweeps.c.id)
        with self.database.writing() as connection:
            for batch in _batches(list(ids)):
                statement = measurements.delete().where(measurements.c.id.in_(batch))
                deleted += connection.execute(statement).rowcount
            if deleted:
                ended = sweeps.c.state != SweepState.RUNNING
                connection.execute(sweeps.delete().where(ended, ~rest))
        return deleted

    def mark_interrupted(self) -> int:
        """Mark running benchmark runs whose process has ended, with their rows; return their
        number.

        Runs of this process and of other running processes stay. Those of another machine stay for
        :data:`OTHER_HOST_TIMEOUT`.
        """
        running = select(sweeps).where(sweeps.c.state == SweepState.RUNNING)
        with self.database.reading() as connection:
            rows = connection.execute(running).mappings().all()
            orphans = [row for row in rows if not _is_alive(connection, row)]
        if not orphans:
            return 0
        with self.database.writing() as connection:
            return sum(_interrupt(connection, row) for row in orphans)

    def import_all(self, given: Sequence[Measurement]) -> ImportOutcome:
        """Import measurements of another machine in one transaction.

        Existing measurements are not changed, except that an unfinished row that was imported
        earlier is replaced by the finished one. Running and waiting measurements are imported as
        interrupted, because they are not continued here.
        """
        now = utc_now()
        by_id: dict[str, Measurement] = {}
        for row in given:
            by_id.setdefault(row.id, _imported(row, now))
        with self.database.writing() as connection:
            present = _states(connection, list(by_id))
            outdated = {key for key, row in by_id.items() if _is_outdated(present.get(key), row)}
            for batch in _batches(sorted(outdated)):
                connection.execute(measurements.delete().where(measurements.c.id.in_(batch)))
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
    """Insert rows at the end of their benchmark runs."""
    statement = select(measurements.c.sweep, func.max(measurements.c.position)).group_by(
        measurements.c.sweep
    )
    next_of: dict[str, int] = {}
    for batch in _batches(sorted({row.sweep for row in rows})):
        found = connection.execute(statement.where(measurements.c.sweep.in_(batch)))
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
    """Change the rows of a benchmark run that are in these states and not imported."""
    connection.execute(
        update(measurements)
        .where(measurements.c.sweep == sweep_id)
        .where(measurements.c.imported_at.is_(None))
        .where(measurements.c.state.in_(states))
        .values(values)
    )


def _interrupt(connection: Connection, seen: RowMapping) -> bool:
    """Mark a benchmark run as interrupted unless it was ended or resumed in the meantime."""
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


def _is_alive(connection: Connection, sweep: RowMapping) -> bool:
    """Return whether the process of a running benchmark is probably alive."""
    instance = _instance(sweep)
    if instance.local:
        return instance.alive()
    newest = select(func.max(measurements.c.saved_at)).where(measurements.c.sweep == sweep["id"])
    seen_at = connection.execute(newest).scalar() or sweep["saved_at"]
    return utc_now() - max(seen_at, sweep["saved_at"]) <= OTHER_HOST_TIMEOUT


def _busy(instance: Instance) -> ModelBusyError:
    host = "" if instance.local else f" on {instance.host}"
    return ModelBusyError(
        f"This benchmark is running in process {instance.pid}{host}. Wait until it has finished, "
        "or cancel it there."
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
    """Return (state, whether imported) of the existing measurements, by id."""
    found: dict[str, tuple[MeasurementState, bool]] = {}
    columns = measurements.c.id, measurements.c.state, measurements.c.imported_at
    for batch in _batches(ids):
        rows = connection.execute(select(*columns).where(measurements.c.id.in_(batch)))
        found |= {row.id: (row.state, row.imported_at is not None) for row in rows}
    return found


def _is_outdated(present: tuple[MeasurementState, bool] | None, incoming: Measurement) -> bool:
    if present is None:
        return False
    state, imported = present
    return imported and state.missing and not incoming.state.missing


def _batches(items: list[_Item]) -> Iterator[list[_Item]]:
    for start in range(0, len(items), _BATCH_SIZE):
        yield items[start : start + _BATCH_SIZE]


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
            imported_at = measurements.c.imported_at
            conditions.append(imported_at.is_not(None) if value else imported_at.is_(None))
        else:
            conditions.append(measurements.c[name] == value)
    return conditions
