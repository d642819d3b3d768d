"""Benchmark service: starts and resumes the runs of a process, and creates their rows.

Rows are written after every process, so that little is lost when the run ends early;
:meth:`Benchmark.resume` measures what is missing.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace

from core.benchmark.estimate import BenchmarkEstimate, estimate, has_quality
from core.benchmark.lock import BenchmarkLock
from core.benchmark.plan import Plan, Target
from core.benchmark.runner import LocalSweep
from core.benchmark.sweep import RowWriter, Sweep
from core.db.measurement_values import Host, Measurement, MeasurementState, SweepRecord, SweepState
from core.db.measurements import MeasurementStore
from core.db.processes import current_instance
from core.db.run_values import utc_now
from core.errors import BadRequestError, DiskFullError, ModelBusyError
from core.hardware.cgroups import usable_processors
from core.hardware.devices import host_facts, library_versions
from core.inference.contention import MONITOR, ActivityMonitor
from core.settings import Settings
from core.store import ModelStore, Source, SourceKind

CLUSTER_KEY = "cluster"
"""Key of a stored plan that was measured on the nodes of a cluster; its value says on which nodes.
"""

_CLOSE_S = 10.0
"""Longest wait of :meth:`Benchmark.close` for a process to be killed and the rows to be written."""


class Benchmark:
    """Benchmark service of a process; only one run at a time per home folder."""

    def __init__(
        self,
        settings: Settings,
        measurements: Callable[[], MeasurementStore],
        monitor: ActivityMonitor = MONITOR,
    ) -> None:
        """
        Args:
            measurements: returns the open store, or raises RecordsError.
            monitor: of other work in this process.
        """
        self._settings = settings
        self._measurements = measurements
        self._monitor = monitor
        self._benchmark_lock = BenchmarkLock(settings)
        self._lock = threading.Lock()
        self.current: Sweep | None = None
        """The current run, or the last one of this process; None if there was none."""
        self._closed = False

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
        sources = self._sources(plan)
        plan = replace(plan, models=tuple(sources))
        needs = estimate(plan, self._settings)
        if needs.problem is not None:
            raise DiskFullError(needs.problem)
        sweep_id = uuid.uuid4().hex
        rows = new_rows(plan, sources, sweep_id, this_host())

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
        record, plan = unfinished(store, sweep_id, memory_limit_bytes, on_cluster=False)

        def write() -> list[Measurement]:
            return [resumed_row(row, this_host()) for row in reopened(store, record)]

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
            sweep = self.current
        if sweep is not None and sweep.running:
            sweep.cancel(SweepState.INTERRUPTED)
            sweep.wait(_CLOSE_S)

    def _begin(self, sweep_id: str, plan: Plan, write: Callable[[], list[Measurement]]) -> Sweep:
        """Acquire the lock, write the rows and start the run."""
        with self._lock:
            if self._closed:
                raise BadRequestError(
                    "Paddock is shutting down. Start it again and repeat the request."
                )
            if self.current is not None and self.current.running:
                raise ModelBusyError(
                    "A benchmark is already running. Wait for it, or cancel it first."
                )
            self._benchmark_lock.acquire()
            try:
                sweep = LocalSweep(
                    sweep_id,
                    plan,
                    RowWriter(write(), self._measurements),
                    self._settings,
                    self._monitor,
                    self._benchmark_lock.release,
                )
                self.current = sweep.start()
            except BaseException:  # a run that did not start must not keep the lock
                self._benchmark_lock.release()
                raise
        return sweep

    def _sources(self, plan: Plan) -> dict[str, Source]:
        """Return the source of each model of the plan by a name under which it is found from any
        working directory; those with random weights have none.

        Raises:
            UnknownModelError, NotAModelError, CorruptModelError: a model cannot be used.
            BadRequestError: two names refer to the same model.
        """
        store = ModelStore(self._settings)
        names: dict[str, str] = {}
        sources: dict[str, Source] = {}
        for name in plan.models:
            source = store.resolve(name)
            if source.key in names:
                raise BadRequestError(
                    f"{names[source.key]} and {name} are the same model. Enter it once."
                )
            names[source.key] = name
            local = source.kind in (SourceKind.CHECKPOINT, SourceKind.IR, SourceKind.GGUF)
            sources[str(source.location) if local and name != source.key else name] = source
        return sources


def new_rows(
    plan: Plan, sources: Mapping[str, Source], sweep_id: str, host: Host
) -> list[Measurement]:
    """Return a waiting row for each configuration of the plan.

    Args:
        sources: of its models by name. A row without source has only what the catalogue knows.
    """
    return [
        Measurement(
            id=uuid.uuid4().hex,
            sweep=sweep_id,
            state=MeasurementState.WAITING,
            configuration=plan.configuration(target, tokens, sources.get(target.model)),
            host=host,
            versions=library_versions(),
            created_at=utc_now(),
        )
        for target in plan.targets()
        for tokens in plan.prompt_tokens
    ]


def this_host() -> Host:
    """Describe this machine, without its read bandwidth."""
    facts = host_facts()
    return Host(
        name=facts.name,
        cpu=facts.cpu,
        os=facts.os,
        cores=usable_processors(),
        memory_bytes=facts.memory_bytes,
        bandwidth_bytes_per_s=None,
    )


def unfinished(
    store: MeasurementStore, sweep_id: str, memory_limit_bytes: int | None, *, on_cluster: bool
) -> tuple[SweepRecord, Plan]:
    """Return a run that can be resumed, and its plan.

    Args:
        memory_limit_bytes: replaces the plan's limit; None keeps it.
        on_cluster: whether it is resumed on the nodes of a cluster.

    Raises:
        BadRequestError: there is no such run here, it is complete or not readable, or the limit is
            too small.
    """
    record = store.sweep(sweep_id)
    measured_there = record is not None and bool(record.plan.get(CLUSTER_KEY))
    if on_cluster and not measured_there:
        raise BadRequestError(
            f"There is no benchmark {sweep_id[:40]!r} of a cluster. List all with `python -m "
            "core bench --list`, and resume others without --ray."
        )
    if record is None:
        raise BadRequestError(
            f"There is no benchmark {sweep_id[:40]!r}. List all with `python -m core bench --list`."
        )
    if measured_there and not on_cluster:
        raise BadRequestError(
            "This benchmark was measured on the nodes of a cluster. Resume it there with "
            f"`python -m core bench --ray ADDRESS --resume {sweep_id}`."
        )
    plan = Plan.from_json(record.plan)
    if memory_limit_bytes is not None:
        plan = replace(plan, memory_limit_bytes=memory_limit_bytes).validated()
    if not any(
        _is_missing(row)
        or (plan.quality and row.quality is None and has_quality(Target.of_row(row)))
        for row in store.of_sweep(sweep_id)
    ):
        raise BadRequestError("This benchmark is complete. Start a new one.")
    return record, plan


def reopened(store: MeasurementStore, record: SweepRecord) -> list[Measurement]:
    """Mark a run as running in this process, and return its rows; the missing ones are waiting.

    Raises:
        ModelBusyError: the run is active in another process.
        RecordsError: the database is not readable or writable.
    """
    if record.state is SweepState.RUNNING and record.instance == current_instance():
        # Its end could not be written, and it is not running: this process starts one at a time.
        store.end_sweep(record.id, SweepState.INTERRUPTED)
    store.resume_sweep(record.id)
    waiting = {"state": MeasurementState.WAITING, "error": None, "ended_at": None}
    return [
        replace(row, **waiting) if _is_missing(row) else row for row in store.of_sweep(record.id)
    ]


def resumed_row(row: Measurement, host: Host) -> Measurement:
    """Return a row ready to be resumed: without rounds of another machine or of other versions.

    Args:
        host: this machine; its bandwidth is ignored.
    """
    if row.state is not MeasurementState.WAITING:
        return row
    host = replace(host, bandwidth_bytes_per_s=row.host.bandwidth_bytes_per_s)
    same = row.host == host and dict(row.versions) == library_versions()
    return replace(
        row,
        rounds=row.rounds if same else (),
        figures=row.figures if same else None,
        host=host,
        versions=library_versions(),
    )


def _is_missing(row: Measurement) -> bool:
    """Return whether a resumed run measures it: imported rows belong to another machine."""
    return row.state.missing and row.imported_at is None
