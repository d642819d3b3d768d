"""Benchmarks every node of a cluster: the driver, which keeps the rows.

Each node measures the plan independently, see :mod:`core.cluster.bench_node`; here they are one run
with the rows of all nodes. If a node is lost, its rows end with that reason; resuming the run
measures them when the node is back.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from core.benchmark.plan import Plan
from core.benchmark.row_writer import OPEN, RowWriter
from core.benchmark.service import (
    CLUSTER_KEY,
    Sweep,
    SweepProgress,
    has_missing_rows,
    resumed_plan,
)
from core.cluster.bench_node import BenchNode, NodePlan, NodeStatus, node_plan, resumed_rows
from core.cluster.connection import ID_DIGITS, Node, is_alive, node_affinity, nodes_of
from core.db.measurement_values import Measurement, SweepState
from core.db.measurements import MeasurementStore
from core.db.processes import current_instance
from core.errors import BadRequestError, ClusterError, StoppedError
from core.hardware.devices import library_versions

log = logging.getLogger(__name__)

_POLL_S = 0.2
"""Interval of polling each node; a response takes a few milliseconds."""

_CANCEL_PATIENCE_S = 5.0
"""Time for a cancelled node to return its last rows before its process is killed."""

_SILENCE_PATIENCE_S = 60.0
"""Time that a node may be unreachable, so that a short network failure loses nothing."""

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
        shares = {node: each.rows for node, each in node_plans.items() if each.rows}
        needs = ClusterEstimate(
            rows=len(rows),
            seconds=max(each.seconds for each in node_plans.values()),
            notes=(*notes, *_differences(node_plans)),
        )
        return self._begin(sweep_id, plan, rows, shares), needs

    def resume(self, sweep_id: str, memory_limit_bytes: int | None = None) -> Sweep:
        """Measure what is missing, each row on its own node.

        Rows of a node that is not in the cluster end with that reason; see :func:`assign_rows`.

        Args:
            sweep_id: 32 hexadecimal digits.
            memory_limit_bytes: see :meth:`core.benchmark.service.Benchmark.resume`.

        Raises:
            BadRequestError: there is no such run of a cluster, it is complete, or the limit is too
                small.
            ModelBusyError: the run is active.
            ClusterError: no node is alive.
            RecordsError: the database is not readable or writable.
        """
        record = self._store.sweep(sweep_id)
        if record is None or not record.plan.get(CLUSTER_KEY):
            raise BadRequestError(
                f"There is no benchmark {sweep_id[:40]!r} of a cluster. List all with `python -m "
                "core bench --list`, and resume others without --ray."
            )
        plan = resumed_plan(record.plan, memory_limit_bytes)
        if not has_missing_rows(plan, self._store.of_sweep(sweep_id)):
            raise BadRequestError("This benchmark is complete. Start a new one.")
        nodes = nodes_of(self._ray, self._chosen_by or record.plan[CLUSTER_KEY].get("chosen_by"))
        if record.state is SweepState.RUNNING and record.instance == current_instance():
            self._store.end_sweep(sweep_id, SweepState.INTERRUPTED)
        self._store.resume_sweep(sweep_id)
        rows = self._store.of_sweep(sweep_id)
        shares, _ = assign_rows([row for row in rows if row.state in OPEN], nodes)
        taken = self._resumed_rows(shares)
        by_id = {row.id: row for each in taken.values() for row in each}
        return self._begin(sweep_id, plan, [by_id.get(row.id, row) for row in rows], taken)

    def _begin(
        self,
        sweep_id: str,
        plan: Plan,
        rows: Iterable[Measurement],
        shares: Mapping[Node, Sequence[Measurement]],
    ) -> Sweep:
        writer = RowWriter(rows, lambda: self._store)

        def work(cancel: threading.Event, say: Callable[[str], None]) -> ClusterWork:
            return ClusterWork(self._ray, plan, shares, writer, cancel, say)

        return Sweep(sweep_id, plan, writer, work).start()

    def _node_plans(
        self, nodes: Sequence[Node], plan: Plan, sweep_id: str
    ) -> tuple[dict[Node, NodePlan], list[str]]:
        """Return what each node would measure, and a sentence for each node that did not
        respond."""
        pending = {
            node: self._remote(node_plan, node).remote(plan, sweep_id, node.name) for node in nodes
        }
        return self._answers(pending)

    def _resumed_rows(
        self, shares: Mapping[Node, Sequence[Measurement]]
    ) -> dict[Node, tuple[Measurement, ...]]:
        """Return rows as their nodes resume them; a node that does not respond fails later."""
        pending = {
            node: self._remote(resumed_rows, node).remote(rows, node.name)
            for node, rows in shares.items()
        }
        answers, _ = self._answers(pending)
        return {node: answers.get(node, tuple(rows)) for node, rows in shares.items()}

    def _remote(self, function: Callable[..., Any], node: Node) -> Any:
        wrapped = self._ray.remote(num_cpus=0, max_retries=0)(function)
        return wrapped.options(scheduling_strategy=node_affinity(node))

    def _answers(self, pending: Mapping[Node, Any]) -> tuple[dict[Node, Any], list[str]]:
        answers, notes = {}, []
        deadline = time.monotonic() + _PLAN_PATIENCE_S
        for node, reference in pending.items():
            try:
                left = max(0.0, deadline - time.monotonic())
                answers[node] = self._ray.get(reference, timeout=left)
            except self._ray.exceptions.RayError as error:
                log.warning("%s does not respond: %s", node.name, error)
                notes.append(_no_answer(node, error))
        if not answers and notes:
            raise ClusterError(notes[0])
        return answers, notes


class ClusterWork:
    """What a benchmark on a cluster carries out; see :class:`core.benchmark.service.Workload`."""

    def __init__(
        self,
        ray: ModuleType,
        plan: Plan,
        shares: Mapping[Node, Sequence[Measurement]],
        writer: RowWriter,
        cancel: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            ray: connected.
            plan: validated.
            shares: rows of each node.
            writer: of all rows; open rows without a node end with that reason.
            cancel: when set, all nodes end.
            say: receives a sentence about the current step.
        """
        self.problems: list[str] = []
        self.progress = ClusterProgress()
        self._ray = ray
        self._plan = plan
        self._shares = shares
        self._writer = writer
        self._cancel = cancel
        self._say = say

    def carry_out(self) -> None:
        """Run all nodes, and keep the rows they return, until the last one has ended.

        Raises:
            StoppedError: ``cancel`` was set.
        """
        self._fail_rows_without_node()
        runs = [NodeRun(self._ray, self._plan, *share) for share in self._shares.items()]
        try:
            self._follow(runs)
        finally:
            for run in runs:
                run.close()

    def _fail_rows_without_node(self) -> None:
        ours = {row.id for rows in self._shares.values() for row in rows}
        for row in self._writer.rows():
            if row.state in OPEN and row.id not in ours:
                self._writer.fail(
                    [row],
                    f"{row.host.name} is not in the cluster. Start it again and resume this "
                    "benchmark.",
                )

    def _follow(self, runs: Sequence[NodeRun]) -> None:
        deadline: float | None = None
        while active := [run for run in runs if not run.ended]:
            if deadline is None and self._cancel.wait(_POLL_S):
                deadline = time.monotonic() + _CANCEL_PATIENCE_S
                for run in active:
                    run.cancel()
            if deadline is not None and time.monotonic() > deadline:
                break
            for run in active:
                self._keep(run, run.poll())
            self.progress.update([s.progress for s in runs if s.progress is not None])
            self._say(_current_steps(runs))
        self.problems += [
            f"{run.node.name}: {run.progress.error}"
            for run in runs
            if run.progress is not None and run.progress.error
        ]
        if self._cancel.is_set():
            raise StoppedError("The benchmark was stopped. Finished measurements are kept.")

    def _keep(self, run: NodeRun, rows: Sequence[Measurement]) -> None:
        if rows:
            self._writer.put(rows)
        if run.lost is not None:
            left = [row for row in self._rows_of(run) if row.state in OPEN]
            self._writer.fail(left, run.lost)

    def _rows_of(self, run: NodeRun) -> list[Measurement]:
        return [row for row in self._writer.rows() if row.id in run.row_ids]


class NodeRun:
    """One node as seen by the driver; used by a single thread."""

    def __init__(
        self, ray: ModuleType, plan: Plan, node: Node, rows: Sequence[Measurement]
    ) -> None:
        self.node = node
        self.row_ids = frozenset(row.id for row in rows)
        self.ended = False
        self.lost: str | None = None
        """Error text of a node that was lost, which counts as ended."""
        self.progress: SweepProgress | None = None
        """Last known progress; None until the node has started."""
        self._ray = ray
        self._seen = 0
        self._heard_at = time.monotonic()
        # Reserve all processors, so that Ray starts nothing else on the node meanwhile.
        kind = ray.remote(num_cpus=node.cpus, max_restarts=0, max_concurrency=2)(BenchNode)
        self._actor = kind.options(scheduling_strategy=node_affinity(node)).remote(
            plan, tuple(rows)
        )
        self._pending = self._actor.status.remote(0)

    def poll(self) -> tuple[Measurement, ...]:
        """Return the rows that changed, or none if there is no response yet. Does not wait."""
        ready, _ = self._ray.wait([self._pending], timeout=0)
        if not ready:
            return self._without_response()
        try:
            status: NodeStatus = self._ray.get(self._pending)
        except self._ray.exceptions.ActorUnavailableError as error:
            log.info("%s is unreachable: %s", self.node.name, error)
            if self._timed_out() or not is_alive(self._ray, self.node):
                return self._lose(error)
            self._pending = self._actor.status.remote(self._seen)
            return ()
        except self._ray.exceptions.RayError as error:
            return self._lose(error)
        self._heard_at = time.monotonic()
        self._seen, self.progress, self.ended = status.number, status.progress, status.ended
        if not status.ended:
            self._pending = self._actor.status.remote(self._seen)
        return status.rows

    def cancel(self) -> None:
        """Request cancellation on the node."""
        self._actor.cancel.remote()

    def close(self) -> None:
        """End the node's process and its children."""
        self._ray.kill(self._actor)

    def _without_response(self) -> tuple[Measurement, ...]:
        """Check for a lost node. A started node responds at once; a busy one has not started
        yet."""
        if self.progress is not None and self._timed_out():
            return self._lose(TimeoutError("it does not respond"))
        if self.progress is None and not is_alive(self._ray, self.node):
            return self._lose(TimeoutError("it left before it started"))
        return ()

    def _timed_out(self) -> bool:
        return time.monotonic() - self._heard_at > _SILENCE_PATIENCE_S

    def _lose(self, error: Exception) -> tuple[Measurement, ...]:
        log.warning("%s is lost: %s", self.node.name, error)
        self.ended = True
        if is_alive(self._ray, self.node) and not _is_node_death(error):
            self.lost = (
                f"The measuring process on {self.node.name} ended ({_detail(error)}). Resume this "
                "benchmark to measure it again."
            )
        else:
            self.lost = (
                f"The node {self.node.name} left the cluster during the measurement. Start it "
                "again and resume this benchmark."
            )
        return ()


class ClusterProgress:
    """Progress of all nodes together; see :class:`core.benchmark.progress.ProgressTracker`."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.fraction = 0.0
        """Of the slowest node, because all measure at the same time."""
        self.seconds_left: float | None = None

    def update(self, nodes: Sequence[SweepProgress]) -> None:
        """Update from the nodes' progress."""
        self.done = sum(each.done for each in nodes)
        self.total = sum(each.total for each in nodes)
        self.fraction = min((each.fraction or 0.0 for each in nodes), default=0.0)
        known = [each.seconds_left for each in nodes if each.seconds_left is not None]
        self.seconds_left = max(known, default=None)


def assign_rows(
    rows: Iterable[Measurement], nodes: Sequence[Node]
) -> tuple[dict[Node, tuple[Measurement, ...]], tuple[Measurement, ...]]:
    """Return which node resumes which rows, and the rows of missing nodes.

    A node gets the rows with its name. Rows of an unnamed node, which has only an id, go to another
    unnamed node on the same machine, because a restarted node has a new id.
    """
    by_name: dict[str, list[Measurement]] = {}
    for row in rows:
        by_name.setdefault(row.host.name, []).append(row)
    free = {node.name: node for node in nodes}
    shares = {free.pop(name): tuple(by_name[name]) for name in [*by_name] if name in free}
    left = [name for name in by_name if name not in {node.name for node in shares}]
    orphans: list[Measurement] = []
    for name in left:
        heir = next((node for node in free.values() if _can_inherit(node, name)), None)
        if heir is None:
            orphans += by_name[name]
        else:
            shares[free.pop(heir.name)] = tuple(by_name[name])
    return shares, tuple(orphans)


def _can_inherit(node: Node, name: str) -> bool:
    host, _, own = name.partition("/")
    unnamed = re.fullmatch(rf"[0-9a-f]{{{ID_DIGITS}}}", own) is not None or not own
    return unnamed and node.host == host and node.name in (host, f"{host}/{node.id[:ID_DIGITS]}")


def _check(plan: Plan, node_plans: Mapping[Node, NodePlan]) -> None:
    """
    Raises:
        ClusterError: no node has a requested model or device.
    """
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


def _no_answer(node: Node, error: Exception) -> str:
    return (
        f"{node.name} cannot measure ({_detail(error)}). Install Paddock's requirements there, for "
        "the same Python version."
    )


def _is_node_death(error: Exception) -> bool:
    return "node" in str(error).lower() and "died" in str(error).lower()


def _detail(error: Exception) -> str:
    """Return the most informative line of Ray's error: the last of a traceback, otherwise the
    first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[-1] if "Traceback" in str(error) else lines[0]
    return line.rstrip(".")[:200]
