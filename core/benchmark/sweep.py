"""One benchmark run: its rows, its steps with the remaining time, and its thread."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from core.benchmark.plan import Plan, Target
from core.db.measurement_values import Measurement, MeasurementState, SweepState
from core.db.measurements import MeasurementStore
from core.db.run_values import utc_now
from core.errors import RecordsError, StoppedError

log = logging.getLogger(__name__)

OPEN = (MeasurementState.WAITING, MeasurementState.RUNNING)
"""States of a row that is not finished."""


class RowWriter:
    """Rows of one run: changed in memory, and written whenever the database allows it.

    A failing database does not end a run. What could not be written is kept, and written with the
    next change or at the end. One thread changes the rows; any thread may read.
    """

    def __init__(
        self, rows: Iterable[Measurement], store: Callable[[], MeasurementStore] | None
    ) -> None:
        """
        Args:
            rows: of the run, in the plan's order, as stored.
            store: returns the open store, or raises RecordsError; None: nothing is written.
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

    def open_rows(self, target: Target | None = None) -> tuple[Measurement, ...]:
        """Return the unfinished rows of a target, or of all."""
        return tuple(
            row for row in self.rows() if row.state in OPEN and target in (None, Target.of_row(row))
        )

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
        if self._store is None:
            return
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
        """Write the end of the run; unfinished rows become cancelled or interrupted."""
        cancelled = state is SweepState.CANCELLED
        left = MeasurementState.CANCELLED if cancelled else MeasurementState.INTERRUPTED
        self.change(self.open_rows(), state=left, ended_at=utc_now())
        if self._store is None or self.problem:  # with rows left open it must not count as ended
            return
        try:
            self._store().end_sweep(sweep_id, state)
        except RecordsError as error:
            log.warning("Could not write the end of benchmark %s: %s", sweep_id, error)
            self.problem = str(error)


# Steps


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """Progress of a benchmark run."""

    done: int
    """Finished steps: a model prepared, a measuring process, or a quality pass."""
    total: int
    fraction: float | None
    """Elapsed share of the total time, 0 to 1; None while it is unknown."""
    seconds_left: float | None
    """Estimate from the duration of the finished steps; None while it is unknown."""
    message: str = ""
    """A sentence for the user about the current step."""
    rows: tuple[Measurement, ...] = ()
    """All measurements of the run, in the plan's order."""
    error: str | None = None
    """Errors of the run itself as sentences, such as records that could not be written; the error
    of a configuration is in its row."""


class StepKind(StrEnum):
    """What a step does. Estimates of one kind are corrected by the same factor."""

    PREPARE = "prepare"
    BANDWIDTH = "bandwidth"
    MEASURE = "measure"
    QUALITY = "quality"


@dataclass(frozen=True)
class Step:
    """One step of a run."""

    kind: StepKind
    subject: object
    """What the step is about; hashable."""
    number: int = 0
    """Distinguishes repetitions."""


class Steps:
    """Finished and remaining steps. One thread works; any thread may read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[Step, float] = {}
        self._done = 0
        self._spent = 0.0
        self._expected: dict[StepKind, float] = {}
        self._took: dict[StepKind, float] = {}
        self._now: tuple[Step, float] | None = None

    def add(self, step: Step, seconds: float) -> None:
        """Add a step with its estimated duration."""
        with self._lock:
            self._left[step] = seconds

    def drop(self, kind: StepKind, subject: object) -> None:
        """Remove these steps from the remaining ones."""
        with self._lock:
            for step in [one for one in self._left if (one.kind, one.subject) == (kind, subject)]:
                del self._left[step]

    @contextmanager
    def doing(self, step: Step) -> Iterator[None]:
        """Time a step for the duration of the ``with`` block; a step that fails is finished,
        too, but says nothing about the duration of others."""
        with self._lock:
            self._now = (step, self._clock())
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            with self._lock:
                took, usual = self._running_for(), self._left.pop(step, 0.0)
                self._now = None
                self._done += 1
                self._spent += took
                if succeeded:
                    self._took[step.kind] = self._took.get(step.kind, 0.0) + took
                    self._expected[step.kind] = self._expected.get(step.kind, 0.0) + usual

    def progress(self) -> SweepProgress:
        """Return the progress, with the remaining time once a step has finished."""
        with self._lock:
            running = self._running_for()
            spent, rest = self._spent + running, sum(map(self._estimate, self._left))
            if self._now and self._now[0] in self._left:
                rest -= min(running, self._estimate(self._now[0]))
            share = spent / (spent + rest) if spent + rest > 0 else 0.0
            return SweepProgress(
                done=self._done,
                total=self._done + len(self._left),
                fraction=share if self._left else 1.0,
                seconds_left=rest if self._done else None,
            )

    # These are called with the lock held.

    def _running_for(self) -> float:
        return self._clock() - self._now[1] if self._now else 0.0

    def _estimate(self, step: Step) -> float:
        """Return the estimate corrected by the pace of its kind."""
        expected = self._expected.get(step.kind, 0.0)
        pace = self._took[step.kind] / expected if expected > 0 else 1.0
        return self._left[step] * pace


# The run


class Sweep(ABC):
    """One benchmark run, in its own thread; thread-safe.

    :class:`core.benchmark.runner.LocalSweep` measures on this machine, the other one on a cluster.
    """

    def __init__(
        self,
        sweep_id: str,
        plan: Plan,
        writer: RowWriter,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            writer: with the run's rows; those to be measured are open.
            release: called once at the end, after all rows have been written.
        """
        self.id = sweep_id
        self.plan = plan
        self.writer = writer
        self.problems: list[str] = []
        """Errors outside the rows, as sentences."""
        self._release = release
        self._message = "Starting."
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self.state = SweepState.RUNNING
        """State of the run; final when :attr:`running` is False."""
        self._stopped_as = SweepState.CANCELLED

    @abstractmethod
    def carry_out(self) -> None:
        """Carry out all steps, in the run's thread; the error of a configuration is written to its
        row.

        Raises:
            StoppedError: the run was cancelled.
        """

    @abstractmethod
    def steps_done(self) -> SweepProgress:
        """Return the progress without message, rows and errors."""

    @property
    def running(self) -> bool:
        """Whether the run has not ended."""
        return not self._ended.is_set()

    def start(self) -> Self:
        """Start the run; may be called once."""
        name = f"sweep-{self.id[:8]}"
        threading.Thread(target=self._run, name=name, daemon=True).start()
        return self

    def cancel(self, state: SweepState = SweepState.CANCELLED) -> None:
        """Request cancellation and return at once; the current step ends within a second, or that
        of the bandwidth within a few.

        Args:
            state: of the cancelled run.
        """
        self._stopped_as = state
        self._cancel.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; return False if it does not come within ``timeout`` seconds."""
        return self._ended.wait(timeout)

    def progress(self) -> SweepProgress:
        """Return the current progress."""
        steps, problem = self.steps_done(), self.writer.problem
        problems = [*self.problems, *([problem] if problem else [])]
        stopping = self.running and self._cancel.is_set()
        return replace(
            steps,
            message="Stopping." if stopping else self._message,
            fraction=steps.fraction if steps.total else None,
            seconds_left=steps.seconds_left if self.running else 0.0,
            rows=self.writer.rows(),
            error=" ".join(problems) or None,
        )

    def say(self, message: str) -> None:
        """Set the sentence about the current step."""
        self._message = message

    def check(self) -> None:
        """
        Raises:
            StoppedError: the run was cancelled.
        """
        if self._cancel.is_set():
            raise StoppedError("The benchmark was stopped. Finished measurements are kept.")

    def _run(self) -> None:
        state = SweepState.INTERRUPTED
        try:
            self.carry_out()
            state = SweepState.DONE
        except StoppedError:
            state = self._stopped_as
        except Exception as error:  # every run must end with a state
            log.exception("Benchmark %s failed unexpectedly", self.id)
            self.problems.append(
                f"The benchmark failed unexpectedly ({type(error).__name__}: {error}). See the log "
                "for details; finished measurements are kept."
            )
        finally:
            try:
                self.writer.close(self.id, state)
            except Exception:  # otherwise wait() would never return
                log.exception("Could not write the end of benchmark %s", self.id)
            finally:
                self._release()
                self.say(_final_message(state, self.writer.rows()))
                self.state = state
                self._ended.set()


def _final_message(state: SweepState, rows: tuple[Measurement, ...]) -> str:
    done = sum(row.state is MeasurementState.DONE for row in rows)
    failed = sum(row.state is MeasurementState.FAILED for row in rows)
    what = f"{done} of {len(rows)} measurements are done"
    if failed:
        what += f", {failed} failed"
    if state is SweepState.DONE:
        return f"{what}."
    stopped = "Stopped" if state is SweepState.CANCELLED else "Interrupted"
    return f"{stopped}: {what}; what was measured is kept, and the rest can be resumed."
