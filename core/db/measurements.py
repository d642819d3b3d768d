"""Store of benchmark runs (``sweeps``) and their measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, exists, func, literal, select, update

from core.db.columns import JsonText
from core.db.database import Store
from core.db.measurement_values import (
    ImportOutcome,
    Measurement,
    MeasurementState,
    SweepRecord,
    SweepState,
)
from core.db.processes import instance_of, is_alive, mark_interrupted, this_process
from core.db.rows import batches, conditions, from_row, to_row
from core.db.run_values import utc_now
from core.db.tables import measurements, sweeps
from core.errors import BadRequestError, ModelBusyError, RecordsError

_OPEN = (MeasurementState.WAITING, MeasurementState.RUNNING)

_ALL_BUT_ROUNDS = (
    *(column for column in measurements.c if column.name != "rounds"),
    literal([], JsonText).label("rounds"),
)


class MeasurementStore(Store):
    """Reads and writes ``sweeps`` and ``measurements``."""

    def begin_sweep(
        self, plan: Mapping[str, Any], rows: Sequence[Measurement], sweep_id: str
    ) -> None:
        """Insert a benchmark run of this process, with its measurements.

        Args:
            plan: JSON-serializable, and sufficient to resume the run later.
            rows: in the order in which they will be listed; all have this ``sweep``.
            sweep_id: 32 hexadecimal digits.
        """
        now = utc_now()
        sweep = this_process() | {"id": sweep_id, "state": SweepState.RUNNING, "plan": plan}
        with self.database.writing() as connection:
            connection.execute(sweeps.insert().values(sweep | {"created_at": now, "saved_at": now}))
            _insert(connection, rows, now)

    def resume_sweep(self, sweep_id: str) -> SweepRecord:
        """Mark an ended benchmark run as running in this process; its rows are not changed.

        Raises:
            BadRequestError: there is no such run.
            ModelBusyError: the run is already running, in this or another process.
        """
        now = utc_now()
        running = {"state": SweepState.RUNNING, "ended_at": None, "saved_at": now} | this_process()
        with self.database.writing() as connection:
            this = select(sweeps).where(sweeps.c.id == sweep_id)
            found = connection.execute(this).mappings().first()
            if found is None:
                raise BadRequestError(
                    "There is no benchmark run with this id. `python -m core bench --list` lists "
                    "all runs."
                )
            if found["state"] is SweepState.RUNNING and is_alive(found, found["saved_at"]):
                instance = instance_of(found)
                host = "" if instance.local else f" on {instance.host}"
                raise ModelBusyError(
                    f"This benchmark is running in process {instance.pid}{host}. Wait until it has "
                    "finished, or cancel it there."
                )
            connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(running))
            return from_row(SweepRecord, connection.execute(this).mappings().one())

    def end_sweep(self, sweep_id: str, state: SweepState) -> None:
        """Write the end of a benchmark run; its rows are not changed."""
        now = utc_now()
        this = update(sweeps).where(sweeps.c.id == sweep_id)
        self.database.change(this.values(state=state, ended_at=now, saved_at=now))

    def sweep(self, sweep_id: str) -> SweepRecord | None:
        """Return the benchmark run with this id, or None."""
        return self.database.first(SweepRecord, select(sweeps).where(sweeps.c.id == sweep_id))

    def sweeps(self, limit: int = 20) -> list[SweepRecord]:
        """Return the latest benchmark runs, newest first."""
        statement = (
            select(sweeps).order_by(sweeps.c.created_at.desc(), sweeps.c.id.desc()).limit(limit)
        )
        return self.database.all(SweepRecord, statement)

    def save(self, measurement: Measurement) -> None:
        """Replace the measurement with the same id, or insert it; note that its run is alive."""
        now = utc_now()
        changed = (
            update(measurements)
            .where(measurements.c.id == measurement.id)
            .values(to_row(measurement) | {"saved_at": now})
        )
        run = update(sweeps).where(sweeps.c.id == measurement.sweep).values(saved_at=now)
        with self.database.writing() as connection:
            if connection.execute(changed).rowcount == 0:
                _insert(connection, [measurement], now)
            connection.execute(run)

    def get(self, measurement_id: str) -> Measurement | None:
        """Return the measurement with this id, or None."""
        statement = select(measurements).where(measurements.c.id == measurement_id)
        row = self.database.row(statement)
        return None if row is None else measurement_of(row)

    def of_sweep(self, sweep_id: str) -> list[Measurement]:
        """Return all measurements of a benchmark run in the order of its plan."""
        statement = (
            select(measurements)
            .where(measurements.c.sweep == sweep_id)
            .order_by(measurements.c.position, measurements.c.created_at, measurements.c.id)
        )
        return [measurement_of(row) for row in self.database.rows(statement)]

    def all(
        self, *, limit: int | None = None, with_rounds: bool = True, **which: Any
    ) -> list[Measurement]:
        """Return the measurements that match, newest first.

        Args:
            with_rounds: False leaves ``rounds`` empty, which are most of a row's data.
            which: values by column, such as ``state`` and ``host_name``.
        """
        columns = (measurements,) if with_rounds else _ALL_BUT_ROUNDS
        statement = (
            select(*columns)
            .where(*conditions(measurements, "created_at", which))
            .order_by(
                measurements.c.created_at.desc(), measurements.c.position.desc(), measurements.c.id
            )
            .limit(limit)
        )
        return [measurement_of(row) for row in self.database.rows(statement)]

    def version(self) -> tuple[object, ...]:
        """Return values that change when a measurement is written or deleted, for caches."""
        statement = select(func.count(), func.max(measurements.c.saved_at)).select_from(
            measurements
        )
        with self.database.reading() as connection:
            return tuple(connection.execute(statement).one())

    def delete(self, ids: Sequence[str]) -> int:
        """Delete measurements, and ended benchmark runs that have none left.

        Returns:
            Number of deleted measurements.
        """
        deleted = 0
        rest = exists().where(measurements.c.sweep == sweeps.c.id)
        with self.database.writing() as connection:
            for batch in batches(list(ids)):
                statement = measurements.delete().where(measurements.c.id.in_(batch))
                deleted += connection.execute(statement).rowcount
            if deleted:
                ended = sweeps.c.state != SweepState.RUNNING
                connection.execute(sweeps.delete().where(ended, ~rest))
        return deleted

    def mark_interrupted(self) -> int:
        """Mark running benchmark runs whose process has ended, with their unfinished rows; return
        the number of runs.

        Runs of this process and of other running processes stay. Those of another machine stay for
        :data:`core.db.processes.OTHER_HOST_TIMEOUT`.
        """
        marked = mark_interrupted(self.database, sweeps, "saved_at")
        if marked:
            interrupted = select(sweeps.c.id).where(sweeps.c.state == SweepState.INTERRUPTED)
            left = update(measurements).where(
                measurements.c.sweep.in_(interrupted),
                measurements.c.state.in_(_OPEN),
                measurements.c.imported_at.is_(None),
            )
            self.database.change(
                left.values(state=MeasurementState.INTERRUPTED, saved_at=utc_now())
            )
        return marked

    def import_all(self, given: Sequence[Measurement]) -> ImportOutcome:
        """Import measurements of another machine in one transaction.

        Existing measurements are not changed, except that an unfinished row that was imported
        earlier is replaced by the finished one. Running and waiting measurements are imported as
        interrupted, because they are not continued here.
        """
        now = utc_now()
        by_id: dict[str, Measurement] = {}
        for row in given:
            state = MeasurementState.INTERRUPTED if row.state in _OPEN else row.state
            by_id.setdefault(row.id, replace(row, state=state, imported_at=now))
        with self.database.writing() as connection:
            new = dict(by_id)
            columns = measurements.c.id, measurements.c.state, measurements.c.imported_at
            for ids in batches(list(by_id)):
                these = measurements.c.id.in_(ids)
                for present in connection.execute(select(*columns).where(these)).all():
                    outdated = present.imported_at is not None and present.state.missing
                    if outdated and not by_id[present.id].state.missing:
                        this = measurements.c.id == present.id
                        connection.execute(measurements.delete().where(this))
                    else:
                        del new[present.id]
            _insert(connection, list(new.values()), now)
        return ImportOutcome(added=len(new), already_there=len(given) - len(new))


def _insert(connection: Connection, rows: Sequence[Measurement], now: datetime) -> None:
    """Insert rows after all others."""
    last = select(func.coalesce(func.max(measurements.c.position), -1))
    first = connection.execute(last).scalar_one() + 1
    values = [
        to_row(row) | {"position": position, "saved_at": now}
        for position, row in enumerate(rows, first)
    ]
    if values:
        connection.execute(measurements.insert(), values)


def measurement_of(row: RowMapping) -> Measurement:
    """Return the measurement of a row.

    Raises:
        RecordsError: the row is not a valid measurement.
    """
    try:
        return from_row(Measurement, row)
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordsError(
            f"The measurement {row['id']} in the run database cannot be read ({error}). Update "
            "Paddock, or set PADDOCK_DATABASE_URL to another database."
        ) from error
