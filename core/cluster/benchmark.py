"""A benchmark on every node of a cluster: the side that asks, and keeps the rows.

Each node measures the plan for itself, see :mod:`core.cluster.bench_node`; here is one sweep whose
rows are all nodes'. A node that is lost costs its rows, which end with the reason; going on with
the sweep measures them when the node is back.
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
from core.benchmark.row_writer import OPEN, Ledger
from core.benchmark.service import (
    CLUSTER_KEY,
    Sweep,
    SweepProgress,
    is_missing_something,
    planned,
)
from core.cluster.bench_node import BenchNode, Draft, Look, draft, taken_up
from core.cluster.connection import ID_DIGITS, Node, is_alive, nodes_of, on
from core.db.measurement_values import Measurement, SweepState
from core.db.measurements import MeasurementStore
from core.db.processes import current_instance
from core.errors import BadRequestError, ClusterError, StoppedError
from core.hardware.devices import library_versions

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
"""How often each node is asked how it stands; an answer takes a few milliseconds."""

_CANCEL_PATIENCE_S = 5.0
"""How long a cancelled node may take to hand over its last rows before its process is killed."""

_SILENCE_PATIENCE_S = 60.0
"""How long a node that is alive may be out of reach: a network that hiccups loses nothing."""

_DRAFT_PATIENCE_S = 300.0
"""How long a node may take to start a process, import the libraries and look at the plan."""


@dataclass(frozen=True, kw_only=True)
class FleetNeeds:
    """What a plan will take on a cluster, roughly."""

    rows: int
    seconds: float
    """Of the slowest node; all measure at once."""
    notes: tuple[str, ...]
    """Sentences about nodes that differ from the others."""


class Fleet:
    """Benchmarks on the nodes of a cluster that this process is connected to."""

    def __init__(
        self, ray: ModuleType, measurements: MeasurementStore, chosen_by: str | None = None
    ) -> None:
        """
        Args:
            ray: connected; see :func:`core.cluster.connection.connected`.
            measurements: where the rows are kept.
            chosen_by: resource or label of the nodes that measure; None for all.
        """
        self._ray = ray
        self._store = measurements
        self._chosen_by = chosen_by

    def start(self, plan: Plan) -> tuple[Sweep, FleetNeeds]:
        """Begin to measure on all nodes at once.

        Raises:
            BadRequestError, UnknownModelError: the plan cannot be measured.
            ClusterError: no node can measure, or none has the model or the device.
            RecordsError: the database cannot be written; nothing was started.
        """
        plan = plan.validated()
        nodes = nodes_of(self._ray, self._chosen_by)
        sweep_id = uuid.uuid4().hex
        drafts, notes = self._drafts(nodes, plan, sweep_id)
        _check(plan, drafts)
        rows = [row for each in drafts.values() for row in each.rows]
        stored = plan.to_json() | {CLUSTER_KEY: {"chosen_by": self._chosen_by}}
        self._store.begin_sweep(stored, rows, sweep_id)
        shares = {node: each.rows for node, each in drafts.items() if each.rows}
        needs = FleetNeeds(
            rows=len(rows),
            seconds=max(each.seconds for each in drafts.values()),
            notes=(*notes, *_differences(drafts)),
        )
        return self._begin(sweep_id, plan, rows, shares), needs

    def resume(self, sweep_id: str, memory_limit_bytes: int | None = None) -> Sweep:
        """Measure what is missing, each row on the node that it belongs to.

        Rows of a node that is not in the cluster now end with that reason; see :func:`assigned`.

        Args:
            sweep_id: 32 hexadecimal digits.
            memory_limit_bytes: see :meth:`core.benchmark.service.Benchmark.resume`.

        Raises:
            BadRequestError: there is no such sweep of a cluster, nothing is missing, or the limit
                is too small.
            ModelBusyError: it runs.
            ClusterError: no node is alive.
            RecordsError: the database cannot be read or written.
        """
        record = self._store.sweep(sweep_id)
        if record is None or not record.plan.get(CLUSTER_KEY):
            raise BadRequestError(
                f"There is no benchmark {sweep_id[:40]!r} of a cluster; `python -m core bench "
                "--list` shows those there are, and others go on without --ray."
            )
        plan = planned(record.plan, memory_limit_bytes)
        if not is_missing_something(plan, self._store.of_sweep(sweep_id)):
            raise BadRequestError("Nothing is missing of this benchmark; start a new one.")
        nodes = nodes_of(self._ray, self._chosen_by or record.plan[CLUSTER_KEY].get("chosen_by"))
        if record.state is SweepState.RUNNING and record.instance == current_instance():
            self._store.end_sweep(sweep_id, SweepState.INTERRUPTED)
        self._store.resume_sweep(sweep_id)
        rows = self._store.of_sweep(sweep_id)
        shares, _ = assigned([row for row in rows if row.state in OPEN], nodes)
        taken = self._taken_up(shares)
        by_id = {row.id: row for each in taken.values() for row in each}
        return self._begin(sweep_id, plan, [by_id.get(row.id, row) for row in rows], taken)

    def _begin(
        self,
        sweep_id: str,
        plan: Plan,
        rows: Iterable[Measurement],
        shares: Mapping[Node, Sequence[Measurement]],
    ) -> Sweep:
        ledger = Ledger(rows, lambda: self._store)

        def work(cancel: threading.Event, say: Callable[[str], None]) -> FleetWork:
            return FleetWork(self._ray, plan, shares, ledger, cancel, say)

        return Sweep(sweep_id, plan, ledger, work).start()

    def _drafts(
        self, nodes: Sequence[Node], plan: Plan, sweep_id: str
    ) -> tuple[dict[Node, Draft], list[str]]:
        """What each node would measure; and a sentence for each that cannot say."""
        asked = {
            node: self._remote(draft, node).remote(plan, sweep_id, node.name) for node in nodes
        }
        return self._answers(asked)

    def _taken_up(
        self, shares: Mapping[Node, Sequence[Measurement]]
    ) -> dict[Node, tuple[Measurement, ...]]:
        """Rows as their nodes go on with them; a node that does not answer is told of later."""
        asked = {
            node: self._remote(taken_up, node).remote(rows, node.name)
            for node, rows in shares.items()
        }
        answers, _ = self._answers(asked)
        return {node: answers.get(node, tuple(rows)) for node, rows in shares.items()}

    def _remote(self, function: Callable[..., Any], node: Node) -> Any:
        wrapped = self._ray.remote(num_cpus=0, max_retries=0)(function)
        return wrapped.options(scheduling_strategy=on(node))

    def _answers(self, asked: Mapping[Node, Any]) -> tuple[dict[Node, Any], list[str]]:
        answers, notes = {}, []
        deadline = time.monotonic() + _DRAFT_PATIENCE_S
        for node, reference in asked.items():
            try:
                left = max(0.0, deadline - time.monotonic())
                answers[node] = self._ray.get(reference, timeout=left)
            except self._ray.exceptions.RayError as error:
                log.warning("%s gives no answer: %s", node.name, error)
                notes.append(_no_answer(node, error))
        if not answers and notes:
            raise ClusterError(notes[0])
        return answers, notes


class FleetWork:
    """What a sweep on a cluster carries out; see :class:`core.benchmark.service.Workload`."""

    def __init__(
        self,
        ray: ModuleType,
        plan: Plan,
        shares: Mapping[Node, Sequence[Measurement]],
        ledger: Ledger,
        cancel: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            ray: connected.
            plan: a validated one.
            shares: the rows that each node measures.
            ledger: of all rows; open rows that are no node's end with that reason.
            cancel: when set, all nodes end.
            say: told a sentence about what is going on.
        """
        self.problems: list[str] = []
        self.agenda = FleetAgenda()
        self._ray = ray
        self._plan = plan
        self._shares = shares
        self._ledger = ledger
        self._cancel = cancel
        self._say = say

    def carry_out(self) -> None:
        """Let all nodes measure, and keep what they hand over, until the last has ended.

        Raises:
            StoppedError: ``cancel`` was set.
        """
        self._refuse_rows_of_nobody()
        stations = [Station(self._ray, self._plan, *share) for share in self._shares.items()]
        try:
            self._follow(stations)
        finally:
            for station in stations:
                station.close()

    def _refuse_rows_of_nobody(self) -> None:
        ours = {row.id for rows in self._shares.values() for row in rows}
        for row in self._ledger.rows():
            if row.state in OPEN and row.id not in ours:
                self._ledger.fail(
                    [row],
                    f"{row.host.name} is not in the cluster now; start it again, and resume this "
                    "benchmark.",
                )

    def _follow(self, stations: Sequence[Station]) -> None:
        deadline: float | None = None
        while active := [station for station in stations if not station.ended]:
            if deadline is None and self._cancel.wait(_LOOK_EVERY_S):
                deadline = time.monotonic() + _CANCEL_PATIENCE_S
                for station in active:
                    station.cancel()
            if deadline is not None and time.monotonic() > deadline:
                break
            for station in active:
                self._hear(station, station.look())
            self.agenda.update([s.progress for s in stations if s.progress is not None])
            self._say(_what_goes_on(stations))
        self.problems += [
            f"{station.node.name}: {station.progress.error}"
            for station in stations
            if station.progress is not None and station.progress.error
        ]
        if self._cancel.is_set():
            raise StoppedError("The benchmark was stopped; what was measured is kept.")

    def _hear(self, station: Station, rows: Sequence[Measurement]) -> None:
        if rows:
            self._ledger.put(rows)
        if station.lost is not None:
            left = [row for row in self._rows_of(station) if row.state in OPEN]
            self._ledger.fail(left, station.lost)

    def _rows_of(self, station: Station) -> list[Measurement]:
        return [row for row in self._ledger.rows() if row.id in station.row_ids]


class Station:
    """One node as the asking process sees it; one thread uses it."""

    def __init__(
        self, ray: ModuleType, plan: Plan, node: Node, rows: Sequence[Measurement]
    ) -> None:
        self.node = node
        self.row_ids = frozenset(row.id for row in rows)
        self.ended = False
        self.lost: str | None = None
        """The sentence about a node that was lost; it has ended then."""
        self.progress: SweepProgress | None = None
        """As it was told last; None until the node has begun."""
        self._ray = ray
        self._seen = 0
        self._heard_at = time.monotonic()
        # All processors of the node: Ray starts nothing else on it meanwhile.
        kind = ray.remote(num_cpus=node.cpus, max_restarts=0, max_concurrency=2)(BenchNode)
        self._actor = kind.options(scheduling_strategy=on(node)).remote(plan, tuple(rows))
        self._asked = self._actor.look.remote(0)

    def look(self) -> tuple[Measurement, ...]:
        """Rows that changed; none where it has not answered yet. Does not wait."""
        ready, _ = self._ray.wait([self._asked], timeout=0)
        if not ready:
            return self._unheard()
        try:
            told: Look = self._ray.get(self._asked)
        except self._ray.exceptions.ActorUnavailableError as error:
            log.info("%s is out of reach: %s", self.node.name, error)
            if self._beyond_patience() or not is_alive(self._ray, self.node):
                return self._lose(error)
            self._asked = self._actor.look.remote(self._seen)
            return ()
        except self._ray.exceptions.RayError as error:
            return self._lose(error)
        self._heard_at = time.monotonic()
        self._seen, self.progress, self.ended = told.number, told.progress, told.ended
        if not told.ended:
            self._asked = self._actor.look.remote(self._seen)
        return told.rows

    def cancel(self) -> None:
        """Ask the node to end."""
        self._actor.cancel.remote()

    def close(self) -> None:
        """End its process, and with it whatever it has started."""
        self._ray.kill(self._actor)

    def _unheard(self) -> tuple[Measurement, ...]:
        """Nothing yet. A node that has begun answers at once, one that is busy begins later."""
        if self.progress is not None and self._beyond_patience():
            return self._lose(TimeoutError("it gives no answer"))
        if self.progress is None and not is_alive(self._ray, self.node):
            return self._lose(TimeoutError("it left before it began"))
        return ()

    def _beyond_patience(self) -> bool:
        return time.monotonic() - self._heard_at > _SILENCE_PATIENCE_S

    def _lose(self, error: Exception) -> tuple[Measurement, ...]:
        log.warning("%s is lost: %s", self.node.name, error)
        self.ended = True
        if is_alive(self._ray, self.node) and not _is_node_death(error):
            self.lost = (
                f"The process that measured on {self.node.name} ended ({_detail(error)}); resume "
                "this benchmark to measure it again."
            )
        else:
            self.lost = (
                f"The node {self.node.name} left the cluster while this was measured; start it "
                "again, and resume this benchmark."
            )
        return ()


class FleetAgenda:
    """How far all nodes are together; see :class:`core.benchmark.progress.Agenda`."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.fraction = 0.0
        """Of the node that is least far: all measure at once."""
        self.seconds_left: float | None = None

    def update(self, nodes: Sequence[SweepProgress]) -> None:
        """Take in how the nodes stand now."""
        self.done = sum(each.done for each in nodes)
        self.total = sum(each.total for each in nodes)
        self.fraction = min((each.fraction or 0.0 for each in nodes), default=0.0)
        known = [each.seconds_left for each in nodes if each.seconds_left is not None]
        self.seconds_left = max(known, default=None)


def assigned(
    rows: Iterable[Measurement], nodes: Sequence[Node]
) -> tuple[dict[Node, tuple[Measurement, ...]], tuple[Measurement, ...]]:
    """Which node goes on with which rows, and the rows of nodes that are not there.

    A node takes the rows of its own name. Rows of a node that had no name but its id go to another
    one on the same machine that has none: started again, it has a new id.
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


def _check(plan: Plan, drafts: Mapping[Node, Draft]) -> None:
    """
    Raises:
        ClusterError: a model or a device that was asked for is nowhere.
    """
    for model in plan.models:
        if all(model in each.absent for each in drafts.values()):
            first = next(iter(drafts.values()))
            raise ClusterError(f"No node has the model {model}: {first.absent[model]}")
    there = {row.configuration.device for each in drafts.values() for row in each.rows}
    for device in plan.devices:
        if device not in there and any(target.device == device for target in plan.targets()):
            raise ClusterError(
                f"No node of the cluster has the device {device}; leave it out, or start a node "
                "that has it."
            )


def _differences(drafts: Mapping[Node, Draft]) -> list[str]:
    """Sentences about libraries of nodes that are not those of this machine."""
    ours, found = library_versions(), []
    for node, each in drafts.items():
        other = [
            f"{name} {each.versions.get(name, 'is missing')} (here {version})"
            for name, version in ours.items()
            if each.versions.get(name) != version
        ]
        if other:
            found.append(f"{node.name} has {', '.join(other)}; its rows name its versions.")
    return found


def _what_goes_on(stations: Sequence[Station]) -> str:
    parts = []
    for station in stations:
        if station.lost is not None:
            parts.append(f"{station.node.name}: lost")
        elif station.progress is None:
            parts.append(f"{station.node.name}: waiting for its processors")
        elif not station.ended:
            parts.append(f"{station.node.name}: {station.progress.message.rstrip('.')}")
    return " | ".join(parts) or "Writing what was measured."


def _no_answer(node: Node, error: Exception) -> str:
    return (
        f"{node.name} cannot measure ({_detail(error)}); install Paddock's requirements there, "
        "under the same Python."
    )


def _is_node_death(error: Exception) -> bool:
    return "node" in str(error).lower() and "died" in str(error).lower()


def _detail(error: Exception) -> str:
    """The line of Ray's many that says most: the last of a traceback, or else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    told = lines[-1] if "Traceback" in str(error) else lines[0]
    return told.rstrip(".")[:200]
