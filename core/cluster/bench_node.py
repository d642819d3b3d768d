"""Code that Ray runs on a node to measure it.

A node's benchmark is that of a single machine, in the node's own home folder and under its
benchmark lock: two nodes that share a machine and a home folder wait for each other. A node stores
no rows in its database; it reports them to the driver.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from core.benchmark.estimate import estimate
from core.benchmark.lock import BenchmarkLock
from core.benchmark.plan import Plan
from core.benchmark.runner import LocalSweep
from core.benchmark.service import new_rows, resumed_row, this_host
from core.benchmark.sweep import RowWriter, SweepProgress
from core.db.measurement_values import Measurement
from core.errors import ModelBusyError, PaddockError, UnknownDeviceError
from core.hardware.devices import library_versions, require_device
from core.inference.contention import MONITOR
from core.settings import Settings, load_settings
from core.store import ModelStore, Source

_REPORT_S = 0.5
"""Interval of a node's reports."""

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


def node_settings() -> Settings:
    """Return the settings of this node."""
    settings = load_settings()
    if "PADDOCK_HOME" not in os.environ:  # the code's own folder belongs to Ray
        settings = settings.model_copy(update={"home": Path.home() / ".paddock"})
    return settings


def node_plan(plan: Plan, sweep_id: str, name: str) -> NodePlan:
    """Return what this node measures of the validated plan; the node has this name in its rows."""
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
    host = replace(this_host(), name=name)
    rows = [
        row for row in new_rows(plan, sources, sweep_id, host) if row.configuration.device in here
    ]
    return NodePlan(
        rows=tuple(rows),
        absent=absent,
        versions=library_versions(),
        seconds=estimate(replace(plan, devices=here), settings).seconds if rows else 0.0,
    )


class BenchNode:
    """Benchmark run of one node, a Ray actor: :meth:`cancel` is called while :meth:`run` runs."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def run(self, plan: Plan, given: Iterable[Measurement], name: str) -> Iterator[SweepProgress]:
        """Measure rows on this node, and report the progress with the rows that changed.

        Args:
            plan: the whole plan.
            given: rows that this node measures, new or to be resumed.
            name: of the node in its rows.
        """
        # Ray sets it to the allocated processors; the benchmark must use its own default.
        os.environ.pop("OMP_NUM_THREADS", None)
        settings = node_settings()
        host = replace(this_host(), name=name)
        writer = RowWriter([resumed_row(row, host) for row in given], None)
        lock = BenchmarkLock(settings)
        sweep = LocalSweep("node", plan, writer, settings, MONITOR, lock.release)
        while True:
            try:
                lock.acquire()
                break
            except ModelBusyError:
                message = "Waiting for another benchmark on this machine."
                yield replace(sweep.progress(), message=message, rows=())
            if self._cancelled.wait(_LOCK_RETRY_S):
                return
        sweep.start()
        reported: dict[str, Measurement] = {}
        ended = False
        while not ended:
            ended = sweep.wait(_REPORT_S)
            if self._cancelled.is_set():
                sweep.cancel()
            progress = sweep.progress()
            changed = [row for row in progress.rows if reported.get(row.id) is not row]
            reported |= {row.id: row for row in changed}
            yield replace(progress, rows=tuple(changed))

    def cancel(self) -> None:
        """Request cancellation; the run ends after its last report."""
        self._cancelled.set()


def _is_here(device: str) -> bool:
    try:
        require_device(device)
    except UnknownDeviceError:
        return False
    except (ImportError, RuntimeError):  # the measuring process reports it
        return True
    return True
