"""The rows of a running sweep: changed in memory, and written down as often as the database lets.

A database that fails does not end a sweep. What could not be written is kept and tried again with
the next change and at the end.
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
"""States of a row that more is expected of."""


def target_of(row: Measurement) -> Target:
    """What is measured for this row."""
    asked = row.configuration
    return Target(
        asked.model,
        asked.random_weights,
        Precision(asked.precision),
        asked.device,
        RuntimeName(asked.runtime),
    )


class RowStore(Protocol):
    """Where rows are written: :class:`core.db.measurements.MeasurementStore`, usually."""

    def save(self, measurement: Measurement) -> None:
        """Write a row in the place of the one with its id."""

    def end_sweep(self, sweep_id: str, state: SweepState) -> None:
        """Write how a sweep ended."""


class Ledger:
    """The rows of one sweep; one thread changes them, any thread may look."""

    def __init__(self, rows: Iterable[Measurement], store: Callable[[], RowStore]) -> None:
        """
        Args:
            rows: those of the sweep, in the plan's order, as the store has them.
            store: gives the open store, or raises RecordsError.
        """
        self._rows = {row.id: row for row in rows}
        self._store = store
        self._unsaved: set[str] = set()
        self._lock = threading.Lock()
        self.problem: str | None = None
        """Why the last attempt to write failed; None where everything is written."""

    def rows(self) -> tuple[Measurement, ...]:
        """All rows as they are now."""
        with self._lock:
            return tuple(self._rows.values())

    def open_rows(self, target: Target) -> tuple[Measurement, ...]:
        """Rows of this target that more is expected of."""
        return tuple(row for row in self.rows() if row.state in OPEN and target_of(row) == target)

    def change(self, rows: Iterable[Measurement], **changes: Any) -> None:
        """Give these rows other values and write them."""
        self.put(replace(row, **changes) for row in rows)

    def put(self, rows: Iterable[Measurement]) -> None:
        """Put these in the place of the rows of the same ids, and write them."""
        with self._lock:
            for row in rows:
                self._rows[row.id] = row
                self._unsaved.add(row.id)
        self.save()

    def fail(self, rows: Iterable[Measurement], reason: str) -> None:
        """Close these rows with a sentence that says why; what was measured of them stays."""
        self.change(rows, state=MeasurementState.FAILED, error=reason, ended_at=utc_now())

    def save(self) -> None:
        """Write what is not written yet; a failure is kept in :attr:`problem`."""
        with self._lock:
            waiting = [row for row in self._rows.values() if row.id in self._unsaved]
        try:
            for row in waiting:
                self._store().save(row)
                with self._lock:
                    self._unsaved.discard(row.id)
        except RecordsError as error:
            log.warning("%d measurements are not written yet: %s", len(self._unsaved), error)
            self.problem = str(error)
        else:
            self.problem = None

    def close(self, sweep_id: str, state: SweepState) -> None:
        """Write the end of the sweep; rows that more was expected of end as it does."""
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
            log.warning("the end of sweep %s is not written: %s", sweep_id, error)
            self.problem = str(error)
