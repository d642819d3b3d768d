"""Benchmark service: prepares every model of a plan, then measures every configuration.

A run goes through its targets several times (rounds), each time in another order, so that a machine
that gets warm or busy does not favour the first target. Each measurement has its own process. A
failure becomes a row with its error, and the run continues. Rows are written after every process,
so that little is lost when the run ends early; :meth:`Benchmark.resume` measures what is missing.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from core.benchmark.estimate import BenchmarkEstimate, estimate, has_quality
from core.benchmark.lock import BenchmarkLock
from core.benchmark.plan import Plan
from core.benchmark.row_writer import RowWriter, target_of
from core.benchmark.runner import Dependencies, Work, this_host
from core.db.measurement_values import Host, Measurement, MeasurementState, SweepState
from core.db.measurements import MeasurementStore
from core.db.processes import current_instance
from core.db.run_values import utc_now
from core.errors import (
    BadRequestError,
    DiskFullError,
    ModelBusyError,
    StoppedError,
)
from core.hardware.devices import library_versions
from core.inference.contention import MONITOR, ActivityMonitor
from core.settings import Settings
from core.store import ModelStore, Source, SourceKind

__all__ = ["Benchmark", "BenchmarkEstimate", "Sweep", "SweepProgress"]

CLUSTER_KEY = "cluster"
"""Key of a stored plan that was measured on the nodes of a cluster; its value says on which nodes.
"""

log = logging.getLogger(__name__)

_CLOSE_S = 10.0
"""Longest wait of :meth:`Benchmark.close` for a process to be killed and the rows to be written."""


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """Progress of a benchmark run."""

    done: int
    """Finished steps: a model prepared, a measuring process, or a quality pass."""
    total: int
    message: str
    """A sentence for the user about the current step."""
    fraction: float | None
    """Elapsed share of the total time, 0 to 1; None while it is unknown."""
    seconds_left: float | None
    """Estimate from the duration of the finished steps; None while it is unknown."""
    rows: tuple[Measurement, ...]
    """All measurements of the run, in the plan's order."""
    error: str | None
    """Errors of the run itself as sentences, such as records that could not be written; the error
    of a configuration is in its row."""


class WorkProgress(Protocol):
    """Progress of a workload, as :class:`core.benchmark.progress.ProgressTracker` defines it."""

    @property
    def done(self) -> int:
        """Number of finished steps."""

    @property
    def total(self) -> int:
        """Number of all steps."""

    @property
    def fraction(self) -> float:
        """Elapsed share of the total time, 0 to 1."""

    @property
    def seconds_left(self) -> float | None:
        """Estimated remaining seconds; None while unknown."""


class Workload(Protocol):
    """What a run carries out: :class:`core.benchmark.runner.Work`, or the work of a cluster."""

    problems: list[str]
    """Errors outside the rows, as sentences."""

    @property
    def progress(self) -> WorkProgress:
        """Return the progress."""

    def carry_out(self) -> None:
        """Carry out all steps; the error of a configuration is written to its row.

        Raises:
            StoppedError: the run was cancelled.
        """


class Sweep:
    """One benchmark run, in its own thread; thread-safe."""

    def __init__(
        self,
        sweep_id: str,
        plan: Plan,
        writer: RowWriter,
        work: Callable[[threading.Event, Callable[[str], None]], Workload],
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            writer: with the run's rows; those to be measured are open.
            work: creates the workload from the event that cancels it and a function that receives a
                sentence about the current step.
            release: called once at the end, after all rows have been written.
        """
        self.id = sweep_id
        self.plan = plan
        self._writer = writer
        self._release = release
        self._message = "Starting."
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self._state = SweepState.RUNNING
        self._stopped_as = SweepState.CANCELLED
        self._work = work(self._cancel, self._say)
        self._thread = threading.Thread(target=self._run, name=f"sweep-{sweep_id[:8]}", daemon=True)

    @property
    def state(self) -> SweepState:
        """State of the run; final when :attr:`running` is False."""
        return self._state

    @property
    def running(self) -> bool:
        """Whether the run has not ended."""
        return not self._ended.is_set()

    def start(self) -> Sweep:
        """Start the run; may be called once."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Request cancellation and return at once; the current step ends within a second."""
        self._cancel.set()

    def interrupt(self) -> None:
        """Cancel because Paddock is closing, and not for a user."""
        self._stopped_as = SweepState.INTERRUPTED
        self.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; return False if it does not come within ``timeout`` seconds."""
        return self._ended.wait(timeout)

    def progress(self) -> SweepProgress:
        """Return the current progress."""
        progress, problem = self._work.progress, self._writer.problem
        problems = [*self._work.problems, *([problem] if problem else [])]
        stopping = self.running and self._cancel.is_set()
        return SweepProgress(
            done=progress.done,
            total=progress.total,
            message="Stopping." if stopping else self._message,
            fraction=progress.fraction if progress.total else None,
            seconds_left=progress.seconds_left if self.running else 0.0,
            rows=self._writer.rows(),
            error=" ".join(problems) or None,
        )

    def _say(self, message: str) -> None:
        self._message = message

    def _run(self) -> None:
        state = SweepState.INTERRUPTED
        try:
            self._work.carry_out()
            state = SweepState.DONE
        except StoppedError:
            state = self._stopped_as
        except Exception as error:  # every run must end with a state
            log.exception("Benchmark %s failed unexpectedly", self.id)
            self._work.problems.append(
                f"The benchmark failed unexpectedly ({type(error).__name__}: {error}). See the log "
                "for details; finished measurements are kept."
            )
        finally:
            self._finish(state)

    def _finish(self, state: SweepState) -> None:
        try:
            self._writer.close(self.id, state)
        except Exception:  # otherwise wait() would never return
            log.exception("Could not write the end of benchmark %s", self.id)
        finally:
            self._release()
            self._say(_final_message(state, self._writer.rows()))
            self._state = state
            self._ended.set()


class Benchmark:
    """Benchmark service of a process; only one run at a time per home folder."""

    def __init__(
        self,
        settings: Settings,
        measurements: Callable[[], MeasurementStore],
        monitor: ActivityMonitor = MONITOR,
        dependencies: Dependencies | None = None,
    ) -> None:
        """
        Args:
            measurements: returns the open store, or raises RecordsError.
            monitor: of other work in this process.
        """
        self._settings = settings
        self._measurements = measurements
        self._monitor = monitor
        self._dependencies = dependencies or Dependencies()
        self._benchmark_lock = BenchmarkLock(settings)
        self._lock = threading.Lock()
        self._current: Sweep | None = None
        self._closed = False

    @property
    def current(self) -> Sweep | None:
        """The current run, or the last one of this process; None if there was none."""
        return self._current

    def start(self, plan: Plan) -> Sweep:
        """Start a benchmark run.

        Raises:
            BadRequestError, UnknownModelError: the plan is invalid.
            NotAModelError, CorruptModelError: a folder is not a model.
            DiskFullError: not enough free disk space.
            ModelBusyError: another benchmark is running.
            RecordsError: the database is not writable; nothing was started.
        """
        plan = plan.validated()
        sources = {_stable_name(name, each): each for name, each in self._sources(plan).items()}
        plan = replace(plan, models=tuple(sources))
        needs = estimate(plan, self._settings)
        if needs.problem is not None:
            raise DiskFullError(needs.problem)
        sweep_id = uuid.uuid4().hex
        rows = new_rows(plan, sources, sweep_id, this_host(None))

        def write() -> list[Measurement]:
            self._measurements().begin_sweep(plan.to_json(), rows, sweep_id)
            return rows

        return self._begin(sweep_id, plan, write)

    def resume(self, sweep_id: str, memory_limit_bytes: int | None = None) -> Sweep:
        """Measure what is missing of a run: failed, cancelled and interrupted rows.

        Rounds measured earlier are kept if the machine and the library versions are the same.

        Args:
            memory_limit_bytes: limit of each measuring process for this run; None keeps the plan's.

        Raises:
            BadRequestError: there is no such run, it is complete, or the limit is too small.
            ModelBusyError: this run or another one is running.
            RecordsError: the database is not readable or writable.
        """
        store = self._measurements()
        record = store.sweep(sweep_id)
        if record is None:
            raise BadRequestError(
                f"There is no benchmark {sweep_id[:40]!r}. List all with `python -m core bench "
                "--list`."
            )
        if record.plan.get(CLUSTER_KEY):
            raise BadRequestError(
                "This benchmark was measured on the nodes of a cluster. Resume it there with "
                f"`python -m core bench --ray ADDRESS --resume {sweep_id}`."
            )
        plan = resumed_plan(record.plan, memory_limit_bytes)
        if not has_missing_rows(plan, store.of_sweep(sweep_id)):
            raise BadRequestError("This benchmark is complete. Start a new one.")

        def write() -> list[Measurement]:
            if record.state is SweepState.RUNNING and record.instance == current_instance():
                # Its end could not be written, and it is not running: we hold the lock.
                store.end_sweep(sweep_id, SweepState.INTERRUPTED)
            store.resume_sweep(sweep_id)
            return [resumed_row(row, this_host(None)) for row in store.of_sweep(sweep_id)]

        return self._begin(sweep_id, plan, write)

    def estimate(self, plan: Plan) -> BenchmarkEstimate:
        """Estimate what a plan requires.

        Raises:
            BadRequestError, UnknownModelError: the plan is invalid.
        """
        return estimate(plan, self._settings)

    def close(self) -> None:
        """Interrupt the current run and refuse new ones; the run can be resumed."""
        with self._lock:
            self._closed = True
            sweep = self._current
        if sweep is not None and sweep.running:
            sweep.interrupt()
            sweep.wait(_CLOSE_S)

    def _begin(self, sweep_id: str, plan: Plan, write: Callable[[], list[Measurement]]) -> Sweep:
        """Acquire the lock, write the rows and start the run."""
        with self._lock:
            if self._closed:
                raise BadRequestError(
                    "Paddock is shutting down. Start it again and repeat the request."
                )
            if self._current is not None and self._current.running:
                raise ModelBusyError(
                    "A benchmark is already running. Wait for it, or cancel it first."
                )
            self._benchmark_lock.acquire()
            try:
                writer = RowWriter(write(), self._measurements)

                def work(cancel: threading.Event, say: Callable[[str], None]) -> Work:
                    return Work(
                        plan, writer, self._settings, self._monitor, self._dependencies, cancel, say
                    )

                sweep = Sweep(sweep_id, plan, writer, work, self._benchmark_lock.release)
                self._current = sweep.start()
            except BaseException:  # a run that did not start must not keep the lock
                self._benchmark_lock.release()
                raise
        return sweep

    def _sources(self, plan: Plan) -> dict[str, Source]:
        """Return the source of each model of the plan; those with random weights have none.

        Raises:
            UnknownModelError, NotAModelError, CorruptModelError: a model cannot be used.
            BadRequestError: two names refer to the same model.
        """
        store = ModelStore(self._settings)
        sources = {name: store.resolve(name) for name in plan.models}
        names: dict[str, str] = {}
        for name, source in sources.items():
            if source.key in names:
                raise BadRequestError(
                    f"{names[source.key]} and {name} are the same model. Enter it once."
                )
            names[source.key] = name
        return sources


def new_rows(
    plan: Plan, sources: Mapping[str, Source], sweep_id: str, host: Host
) -> list[Measurement]:
    """Return a waiting row for each configuration of the plan.

    Args:
        sources: of its models by name. A row without source has only what the catalogue knows.
    """
    versions = library_versions()
    rows = []
    for target in plan.targets():
        source = None if target.random_weights else sources.get(target.model)
        for prompt_tokens in plan.prompt_tokens:
            configuration = plan.configuration(
                target,
                prompt_tokens,
                title=source.title if source else None,
                source=_source_name(source) if source else None,
            )
            rows.append(
                Measurement(
                    id=uuid.uuid4().hex,
                    sweep=sweep_id,
                    state=MeasurementState.WAITING,
                    configuration=configuration,
                    host=host,
                    versions=versions,
                    created_at=utc_now(),
                )
            )
    return rows


def _stable_name(name: str, source: Source) -> str:
    """Return the name under which a model is found from any working directory."""
    local = source.kind in (SourceKind.CHECKPOINT, SourceKind.IR, SourceKind.GGUF)
    return str(source.location) if local and name != source.key else name


def _source_name(source: Source) -> str:
    """Return the source as in the rows of answers."""
    embedded = source.kind is SourceKind.EMBEDDED
    return SourceKind.EMBEDDED.value if embedded else str(source.location)


def resumed_plan(stored: Mapping[str, Any], memory_limit_bytes: int | None) -> Plan:
    """Read a stored plan to resume it.

    Args:
        memory_limit_bytes: replaces the plan's limit; None keeps it.

    Raises:
        BadRequestError: the plan is not readable, or the limit is too small.
    """
    plan = Plan.from_json(stored)
    if memory_limit_bytes is None:
        return plan
    return replace(plan, memory_limit_bytes=memory_limit_bytes).validated()


def has_missing_rows(plan: Plan, rows: Sequence[Measurement]) -> bool:
    """Return whether a resumed run would have anything to measure."""
    return any(
        row.state.missing or (plan.quality and row.quality is None and has_quality(target_of(row)))
        for row in rows
    )


def resumed_row(row: Measurement, host: Host) -> Measurement:
    """Return a row ready to be resumed: without rounds of another machine or of other versions.

    Args:
        host: this machine; its bandwidth is ignored.
    """
    if not row.state.missing:
        return row
    host = replace(host, bandwidth_bytes_per_s=row.host.bandwidth_bytes_per_s)
    same = row.host == host and dict(row.versions) == library_versions()
    return replace(
        row,
        state=MeasurementState.WAITING,
        rounds=row.rounds if same else (),
        figures=row.figures if same else None,
        host=host,
        versions=library_versions(),
        error=None,
        ended_at=None,
    )


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
