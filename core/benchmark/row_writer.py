"""Rows of a running benchmark: changed in memory, and written whenever the database allows it.

A failing database does not end a run. What could not be written is kept, and written with the next
change or at the end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from core.benchmark.plan import Target
from core.catalogue import Precision
from core.db.measurement_values import Measurement, MeasurementState, SweepState
from core.db.run_values import utc_now
from core.errors import RecordsError
from core.runtimes.spec import RuntimeName

log = logging.getLogger(__name__)

OPEN = (MeasurementState.WAITING, MeasurementState.RUNNING)
"""States of a row that is not finished."""


def target_of(row: Measurement) -> Target:
    """Return the target of a row."""
    configuration = row.configuration
    return Target(
        configuration.model,
        configuration.random_weights,
        Precision(configuration.precision),
        configuration.device,
        RuntimeName(configuration.runtime),
    )


class RowStore(Protocol):
    """Destination of rows, usually :class:`core.db.measurements.MeasurementStore`."""

    def save(self, measurement: Measurement) -> None:
        """Write a row, replacing the one with the same id."""

    def end_sweep(self, sweep_id: str, state: SweepState) -> None:
        """Write the final state of a run."""


class RowWriter:
    """Rows of one run. One thread changes them; any thread may read."""

    def __init__(self, rows: Iterable[Measurement], store: Callable[[], RowStore]) -> None:
        """
        Args:
            rows: of the run, in the plan's order, as stored.
            store: returns the open store, or raises RecordsError.
        """
        self._rows = {row.id: row for row in rows}
        self._store = store
        self._unsaved: set[str] = set()
        self._lock = threading.Lock()
        self.problem: str | None = None
        """Error of the last attempt to write; None if everything is written."""

    def rows(self) -> tuple[Measurement, ...]:
        """Return all rows in their current state."""
        with self._lock:
            return tuple(self._rows.values())

    def open_rows(self, target: Target) -> tuple[Measurement, ...]:
        """Return the unfinished rows of a target."""
        return tuple(row for row in self.rows() if row.state in OPEN and target_of(row) == target)

    def change(self, rows: Iterable[Measurement], **changes: Any) -> None:
        """Change fields of these rows and write them."""
        self.put(replace(row, **changes) for row in rows)

    def put(self, rows: Iterable[Measurement]) -> None:
        """Replace the rows with the same ids, and write them."""
        with self._lock:
            for row in rows:
                self._rows[row.id] = row
                self._unsaved.add(row.id)
        self.save()

    def fail(self, rows: Iterable[Measurement], reason: str) -> None:
        """Close these rows with an error; their measurements so far are kept."""
        self.change(rows, state=MeasurementState.FAILED, error=reason, ended_at=utc_now())

    def save(self) -> None:
        """Write pending rows; an error is kept in :attr:`problem`."""
        with self._lock:
            waiting = [row for row in self._rows.values() if row.id in self._unsaved]
        try:
            for row in waiting:
                self._store().save(row)
                with self._lock:
                    self._unsaved.discard(row.id)
        except RecordsError as error:
            log.warning("%d measurements could not be written yet: %s", len(self._unsaved), error)
            self.problem = str(error)
        else:
            self.problem = None

    def close(self, sweep_id: str, state: SweepState) -> None:
        """Write the end of the run; unfinished rows get the corresponding state."""
        ending = {
            SweepState.CANCELLED: MeasurementState.CANCELLED,
            SweepState.INTERRUPTED: MeasurementState.INTERRUPTED,
        }.get(state)
        if ending is not None:
            left = [row for row in self.rows() if row.state in OPEN]
            self.change(left, state=ending, ended_at=utc_now())
        else:
            self.save()
        try:
            self._store().end_sweep(sweep_id, state)
        except RecordsError as error:
            log.warning("Could not write the end of benchmark %s: %s", sweep_id, error)
            self.problem = str(error)
