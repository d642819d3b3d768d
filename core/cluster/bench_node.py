"""Code that Ray runs on a node to measure it.

A node's benchmark is that of a single machine, in the node's own home folder and under its
benchmark lock: two nodes that share a machine and a home folder wait for each other. Rows are
returned to the driver, which polls a few times per second.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from core.benchmark.estimate import estimate
from core.benchmark.lock import BenchmarkLock
from core.benchmark.plan import Plan
from core.benchmark.progress import ProgressTracker
from core.benchmark.row_writer import RowWriter
from core.benchmark.runner import Dependencies, Work, this_host
from core.benchmark.service import Sweep, SweepProgress, new_rows, resumed_row
from core.cluster.connection import node_home
from core.db.measurement_values import Measurement, SweepState
from core.errors import (
    ModelBusyError,
    PaddockError,
    StoppedError,
    UnknownDeviceError,
)
from core.hardware.devices import library_versions, require_device
from core.inference.contention import MONITOR
from core.settings import Settings, load_settings
from core.store import ModelStore, Source

_LOCK_RETRY_S = 1.0
"""Interval at which a waiting node retries to acquire the benchmark lock."""


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """What a node would measure of a plan."""

    rows: tuple[Measurement, ...]
    """Waiting rows with the node's name, without those of devices that the node does not have."""
    absent: Mapping[str, str]
    """Error by model that the node does not have; the model's rows will fail with it."""
    versions: Mapping[str, str]
    seconds: float
    """Estimate for all its rows."""
    disk_bytes: int
    download_bytes: int


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """Progress of a node."""

    number: int
    """Number of the latest change; passed to the next call."""
    rows: tuple[Measurement, ...]
    """Rows that have changed since the number that was passed."""
    progress: SweepProgress
    """Without rows."""
    ended: bool


def node_settings() -> Settings:
    """Return the settings of this node."""
    settings = load_settings()
    if "PADDOCK_HOME" not in os.environ:
        settings = settings.model_copy(update={"home": node_home()})
    return settings


def node_plan(plan: Plan, sweep_id: str, name: str) -> NodePlan:
    """Return what this node measures of the plan.

    Args:
        plan: validated.
        sweep_id: 32 hexadecimal digits.
        name: of the node in its rows.
    """
    settings = node_settings()
    store = ModelStore(settings)
    sources: dict[str, Source] = {}
    absent: dict[str, str] = {}
    for model in plan.models:
        try:
            sources[model] = store.resolve(model)
        except PaddockError as error:
            absent[model] = str(error)
    here = tuple(device for device in plan.devices if _is_here(device))
    host = replace(this_host(None), name=name)
    rows = [
        row for row in new_rows(plan, sources, sweep_id, host) if row.configuration.device in here
    ]
    needs = estimate(replace(plan, devices=here), settings) if rows else None
    return NodePlan(
        rows=tuple(rows),
        absent=absent,
        versions=library_versions(),
        seconds=needs.seconds if needs else 0.0,
        disk_bytes=needs.disk_bytes if needs else 0,
        download_bytes=needs.download_bytes if needs else 0,
    )


def resumed_rows(rows: Iterable[Measurement], name: str) -> tuple[Measurement, ...]:
    """Return rows as this node resumes them; see :func:`core.benchmark.service.resumed_row`."""
    host = replace(this_host(None), name=name)
    return tuple(resumed_row(_renamed(row, name), host) for row in rows)


class BenchNode:
    """Benchmark run of one node, a Ray actor."""

    def __init__(self, plan: Plan, rows: Iterable[Measurement]) -> None:
        """
        Args:
            plan: the whole plan.
            rows: those this node measures.
        """
        # Ray sets it to the allocated processors; the benchmark must use its own default.
        os.environ.pop("OMP_NUM_THREADS", None)
        settings = node_settings()
        self._outbox = _Outbox()
        writer = RowWriter(rows, lambda: self._outbox)
        lock = BenchmarkLock(settings)

        def work(cancel: threading.Event, say: Callable[[str], None]) -> _LockedWork:
            real = Work(plan, writer, settings, MONITOR, Dependencies(), cancel, say)
            return _LockedWork(real, lock, cancel, say)

        self._sweep = Sweep("node", plan, writer, work, lock.release).start()

    def status(self, seen: int) -> NodeStatus:
        """Return the progress, and the rows that changed since that number."""
        ended = not self._sweep.running  # read first, so that the last rows are not missed
        number, rows = self._outbox.since(seen)
        progress = replace(self._sweep.progress(), rows=())
        return NodeStatus(number=number, rows=rows, progress=progress, ended=ended)

    def cancel(self) -> None:
        """Request cancellation; :meth:`status` shows when the run has ended."""
        self._sweep.cancel()


class _LockedWork:
    """Work of a node, which first waits for the benchmark lock."""

    def __init__(
        self,
        work: Work,
        lock: BenchmarkLock,
        cancel: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self.problems = work.problems
        self._work = work
        self._benchmark_lock = lock
        self._cancel = cancel
        self._say = say

    @property
    def progress(self) -> ProgressTracker:
        """See :class:`core.benchmark.service.Workload`."""
        return self._work.progress

    def carry_out(self) -> None:
        """See :class:`core.benchmark.service.Workload`."""
        self._acquire_lock()
        self._work.carry_out()

    def _acquire_lock(self) -> None:
        while True:
            try:
                return self._benchmark_lock.acquire()
            except ModelBusyError:
                self._say("Waiting for another benchmark on this machine.")
            if self._cancel.wait(_LOCK_RETRY_S):
                raise StoppedError("Stopped while waiting for another benchmark.")


class _Outbox:
    """Latest version of each of the node's rows; a :class:`core.benchmark.row_writer.RowStore`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._rows: dict[str, tuple[int, Measurement]] = {}

    def save(self, measurement: Measurement) -> None:
        """Store a row."""
        with self._lock:
            self._number += 1
            self._rows[measurement.id] = self._number, measurement

    def end_sweep(self, sweep_id: str, state: SweepState) -> None:
        """Do nothing: the driver writes the end."""

    def since(self, seen: int) -> tuple[int, tuple[Measurement, ...]]:
        """Return the latest number, and the rows saved after the given one."""
        with self._lock:
            rows = [row for number, row in self._rows.values() if number > seen]
            return self._number, tuple(rows)


def _renamed(row: Measurement, name: str) -> Measurement:
    return replace(row, host=replace(row.host, name=name))


def _is_here(device: str) -> bool:
    try:
        require_device(device)
    except UnknownDeviceError:
        return False
    except (ImportError, RuntimeError):  # the measuring process reports it
        return True
    return True
