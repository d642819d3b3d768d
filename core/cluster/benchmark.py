"""Benchmarks every node of a cluster: the driver, which keeps the rows.

Each node measures the plan independently, see :mod:`core.cluster.bench_node`; here they are one run
with the rows of all nodes. If a node is lost, its rows end with that reason; resuming the run
measures them when the node is back.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from core.benchmark.plan import Plan
from core.benchmark.service import CLUSTER_KEY, reopened, unfinished
from core.benchmark.sweep import RowWriter, Sweep, SweepProgress
from core.cluster.bench_node import BenchNode, NodePlan, node_plan
from core.cluster.connection import Node, detail_of, is_alive, node_affinity, nodes_of
from core.db.measurement_values import Measurement
from core.db.measurements import MeasurementStore
from core.errors import ClusterError
from core.hardware.devices import library_versions

log = logging.getLogger(__name__)

_WAIT_S = 0.2
"""Longest wait for a node's report before cancellation is checked."""

_CANCEL_PATIENCE_S = 5.0
"""Time for a cancelled node to return its last rows before its process is killed."""

_PLAN_PATIENCE_S = 300.0
"""Time for a node to start a process, import the libraries and read the plan."""


@dataclass(frozen=True, kw_only=True)
class ClusterEstimate:
    """Estimated requirements of a plan on a cluster."""

    rows: int
    seconds: float
    """Of the slowest node; all measure at the same time."""
    notes: tuple[str, ...]
    """Sentences about nodes that differ from others."""


class ClusterBenchmark:
    """Benchmark service for the nodes of the connected cluster."""

    def __init__(
        self, ray: ModuleType, measurements: MeasurementStore, chosen_by: str | None = None
    ) -> None:
        """
        Args:
            ray: connected; see :func:`core.cluster.connection.connected`.
            measurements: store of the rows.
            chosen_by: resource or label of the nodes that measure; None for all.
        """
        self._ray = ray
        self._store = measurements
        self._chosen_by = chosen_by

    def start(self, plan: Plan) -> tuple[Sweep, ClusterEstimate]:
        """Start the benchmark on all nodes at once.

        Raises:
            BadRequestError, UnknownModelError: the plan is invalid.
            ClusterError: no node can measure, or none has the model or the device.
            RecordsError: the database is not writable; nothing was started.
        """
        plan = plan.validated()
        nodes = nodes_of(self._ray, self._chosen_by)
        sweep_id = uuid.uuid4().hex
        node_plans, notes = self._node_plans(nodes, plan, sweep_id)
        _check(plan, node_plans)
        rows = [row for each in node_plans.values() for row in each.rows]
        stored = plan.to_json() | {CLUSTER_KEY: {"chosen_by": self._chosen_by}}
        self._store.begin_sweep(stored, rows, sweep_id)
        needs = ClusterEstimate(
            rows=len(rows),
            seconds=max(each.seconds for each in node_plans.values()),
            notes=(*notes, *_differences(node_plans)),
        )
        shares = {node: each.rows for node, each in node_plans.items() if each.rows}
        return ClusterSweep(sweep_id, plan, self._writer(rows), self._ray, shares).start(), needs

    def resume(self, sweep_id: str, memory_limit_bytes: int | None = None) -> Sweep:
        """Measure what is missing, each row on its own node.

        A node measures the rows with its name. Rows of a node that is not in the cluster end with
        that reason.

        Args:
            memory_limit_bytes: see :meth:`core.benchmark.service.Benchmark.resume`.

        Raises:
            BadRequestError: there is no such run of a cluster, it is complete, or the limit is too
                small.
            ModelBusyError: the run is active.
            ClusterError: no node is alive.
            RecordsError: the database is not readable or writable.
        """
        record, plan = unfinished(self._store, sweep_id, memory_limit_bytes, on_cluster=True)
        nodes = nodes_of(self._ray, self._chosen_by or record.plan[CLUSTER_KEY].get("chosen_by"))
        writer = self._writer(reopened(self._store, record))
        shares = shares_of(writer.open_rows(), nodes)
        return ClusterSweep(sweep_id, plan, writer, self._ray, shares).start()

    def _writer(self, rows: Sequence[Measurement]) -> RowWriter:
        return RowWriter(rows, lambda: self._store)

    def _node_plans(
        self, nodes: Sequence[Node], plan: Plan, sweep_id: str
    ) -> tuple[dict[Node, NodePlan], list[str]]:
        """Return what each node would measure, and a sentence for each node that did not
        respond."""
        remote = self._ray.remote(num_cpus=0, max_retries=0)(node_plan)
        pending = {
            node: remote.options(scheduling_strategy=node_affinity(node)).remote(
                plan, sweep_id, node.name
            )
            for node in nodes
        }
        answers, notes = {}, []
        deadline = time.monotonic() + _PLAN_PATIENCE_S
        for node, reference in pending.items():
            try:
                left = max(0.0, deadline - time.monotonic())
                answers[node] = self._ray.get(reference, timeout=left)
            except self._ray.exceptions.RayError as error:
                log.warning("%s does not respond: %s", node.name, error)
                notes.append(
                    f"{node.name} cannot measure ({detail_of(error)}). Install Paddock's "
                    "requirements there, for the same Python version."
                )
        if not answers:
            raise ClusterError(notes[0])
        return answers, notes


@dataclass
class NodeRun:
    """One node as seen by the driver."""

    node: Node
    actor: Any
    reports: Any
    """Ray's generator of references to what :meth:`BenchNode.run` yields."""
    progress: SweepProgress | None = None
    """Of the last report; None until the node has started."""
    ended: bool = False
    lost: str | None = None
    """Error text of a node that was lost, which counts as ended."""


class ClusterSweep(Sweep):
    """A benchmark run on the nodes of a cluster."""

    def __init__(
        self,
        sweep_id: str,
        plan: Plan,
        writer: RowWriter,
        ray: ModuleType,
        shares: Mapping[Node, Sequence[Measurement]],
    ) -> None:
        """
        Args:
            writer: of all rows; open rows without a node end with that reason.
            shares: rows of each node.
        """
        super().__init__(sweep_id, plan, writer)
        self._ray = ray
        self._shares = shares
        self._runs: list[NodeRun] = []

    def steps_done(self) -> SweepProgress:
        """Return the progress of all nodes together; they measure at the same time, so the time is
        that of the slowest."""
        nodes = [run.progress for run in self._runs if run.progress is not None]
        left = [each.seconds_left for each in nodes if each.seconds_left is not None]
        return SweepProgress(
            done=sum(each.done for each in nodes),
            total=sum(each.total for each in nodes),
            fraction=min((each.fraction or 0.0 for each in nodes), default=0.0),
            seconds_left=max(left, default=None),
        )

    def carry_out(self) -> None:
        """Run all nodes, and keep the rows they report, until the last one has ended; see
        :meth:`core.benchmark.sweep.Sweep.carry_out`."""
        ours = {row.id for rows in self._shares.values() for row in rows}
        for row in self.writer.open_rows():
            if row.id not in ours:
                self.writer.fail(
                    [row],
                    f"No node of the cluster is named {row.host.name}. Start it again with this "
                    "name and resume this benchmark.",
                )
        try:
            for node, rows in self._shares.items():
                self._start(node, rows)
            self._follow()
        finally:
            for run in self._runs:  # ends the node's process and its children
                self._ray.kill(run.actor)

    def _start(self, node: Node, rows: Sequence[Measurement]) -> None:
        # Reserve all processors, so that Ray starts nothing else on the node meanwhile.
        kind = self._ray.remote(num_cpus=node.cpus, max_restarts=0, max_concurrency=2)(BenchNode)
        actor = kind.options(scheduling_strategy=node_affinity(node)).remote()
        reports = actor.run.remote(self.plan, tuple(rows), node.name)
        self._runs.append(NodeRun(node, actor, reports))

    def _follow(self) -> None:
        deadline: float | None = None
        while active := {run.reports: run for run in self._runs if not run.ended}:
            if deadline is None and self._cancel.is_set():
                deadline = time.monotonic() + _CANCEL_PATIENCE_S
                for run in active.values():
                    run.actor.cancel.remote()
            if deadline is not None and time.monotonic() > deadline:
                break
            ready, _ = self._ray.wait([*active], timeout=_WAIT_S)
            for reports in ready:
                self._read(active[reports])
            self.say(_current_steps(self._runs))
        self.problems += [
            f"{run.node.name}: {run.progress.error}"
            for run in self._runs
            if run.progress is not None and run.progress.error
        ]
        self.check()

    def _read(self, run: NodeRun) -> None:
        """Keep the next report of a node, its end, or its loss."""
        try:
            run.progress = self._ray.get(next(run.reports))
        except StopIteration:
            run.ended = True
        except self._ray.exceptions.RayError as error:
            log.warning("%s is lost: %s", run.node.name, error)
            run.ended = True
            run.lost = self._reason_of_loss(run.node, error)
            ours = {row.id for row in self._shares[run.node]}
            left = [row for row in self.writer.open_rows() if row.id in ours]
            self.writer.fail(left, run.lost)
        else:
            if run.progress.rows:
                self.writer.put(run.progress.rows)

    def _reason_of_loss(self, node: Node, error: Exception) -> str:
        if is_alive(self._ray, node) and "its node has died" not in str(error):
            return (
                f"The measuring process on {node.name} ended ({detail_of(error)}). Resume this "
                "benchmark to measure it again."
            )
        return (
            f"The node {node.name} left the cluster during the measurement. Start it again and "
            "resume this benchmark."
        )


def shares_of(rows: Sequence[Measurement], nodes: Sequence[Node]) -> dict[Node, list[Measurement]]:
    """Return the rows that each node measures: those with its name, which only one node gets."""
    named = {node.name: node for node in nodes}
    shares = {node: [row for row in rows if row.host.name == name] for name, node in named.items()}
    return {node: ours for node, ours in shares.items() if ours}


def _check(plan: Plan, node_plans: Mapping[Node, NodePlan]) -> None:
    for model in plan.models:
        if all(model in each.absent for each in node_plans.values()):
            first = next(iter(node_plans.values()))
            raise ClusterError(f"No node has the model {model}: {first.absent[model]}")
    there = {row.configuration.device for each in node_plans.values() for row in each.rows}
    for device in plan.devices:
        if device not in there and any(target.device == device for target in plan.targets()):
            raise ClusterError(
                f"No node of the cluster has the device {device}. Remove it, or start a node that "
                "has it."
            )


def _differences(node_plans: Mapping[Node, NodePlan]) -> list[str]:
    """Return sentences about library versions of nodes that differ from this machine's."""
    ours, found = library_versions(), []
    for node, each in node_plans.items():
        other = [
            f"{name} {each.versions.get(name, 'is missing')} (here {version})"
            for name, version in ours.items()
            if each.versions.get(name) != version
        ]
        if other:
            found.append(
                f"{node.name} has {', '.join(other)}. Its versions are recorded in its rows."
            )
    return found


def _current_steps(runs: Sequence[NodeRun]) -> str:
    parts = []
    for run in runs:
        if run.lost is not None:
            parts.append(f"{run.node.name}: lost")
        elif run.progress is None:
            parts.append(f"{run.node.name}: waiting for its processors")
        elif not run.ended:
            parts.append(f"{run.node.name}: {run.progress.message.rstrip('.')}")
    return " | ".join(parts) or "Writing the measurements."
