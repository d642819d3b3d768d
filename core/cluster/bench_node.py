"""What runs on a node of the cluster while it is measured; Ray starts it there.

The sweep of a node is a sweep as on one machine, in the node's own home folder and with its
benchmark's turn: two nodes that share a machine and a home wait for each other. Rows go to the
asking process, which looks here a few times a second.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from core.benchmark.dependencies import Tools
from core.benchmark.estimate import estimate
from core.benchmark.lock import Turn
from core.benchmark.plan import Plan
from core.benchmark.progress import Agenda
from core.benchmark.row_writer import Ledger
from core.benchmark.runner import Work, this_host
from core.benchmark.service import Sweep, SweepProgress, continued, fresh_rows
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

_TURN_EVERY_S = 1.0
"""How often a node that waits for its turn asks for it."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a node would measure of a plan."""

    rows: tuple[Measurement, ...]
    """Waiting, under the node's name; none of devices that it does not have."""
    absent: Mapping[str, str]
    """By model that it does not know: the sentence that says why, and its rows will end with."""
    versions: Mapping[str, str]
    seconds: float
    """Roughly, for all its rows."""
    disk_bytes: int
    download_bytes: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a node stands."""

    number: int
    """Of the latest change of a row; given with the next look."""
    rows: tuple[Measurement, ...]
    """Changed since the number that was given."""
    progress: SweepProgress
    """Without rows."""
    ended: bool


def node_settings() -> Settings:
    """The settings of this node."""
    settings = load_settings()
    if "PADDOCK_HOME" not in os.environ:
        settings = settings.model_copy(update={"home": node_home()})
    return settings


def draft(plan: Plan, sweep_id: str, name: str) -> Draft:
    """What this node measures of the plan.

    Args:
        plan: a validated one.
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
        row for row in fresh_rows(plan, sources, sweep_id, host) if row.configuration.device in here
    ]
    needs = estimate(replace(plan, devices=here), settings) if rows else None
    return Draft(
        rows=tuple(rows),
        absent=absent,
        versions=library_versions(),
        seconds=needs.seconds if needs else 0.0,
        disk_bytes=needs.disk_bytes if needs else 0,
        download_bytes=needs.download_bytes if needs else 0,
    )


def taken_up(rows: Iterable[Measurement], name: str) -> tuple[Measurement, ...]:
    """Rows as this node goes on with them; see :func:`core.benchmark.service.continued`."""
    host = replace(this_host(None), name=name)
    return tuple(continued(_renamed(row, name), host) for row in rows)


class BenchNode:
    """The sweep of one node; Ray makes an actor of it."""

    def __init__(self, plan: Plan, rows: Iterable[Measurement]) -> None:
        """
        Args:
            plan: the whole one.
            rows: what this node measures of it.
        """
        # Ray sets it to the processors that it gave; what is measured decides for itself.
        os.environ.pop("OMP_NUM_THREADS", None)
        settings = node_settings()
        self._outbox = _Outbox()
        ledger = Ledger(rows, lambda: self._outbox)
        turn = Turn(settings)

        def work(cancel: threading.Event, say: Callable[[str], None]) -> _WorkInTurn:
            real = Work(plan, ledger, settings, MONITOR, Tools(), cancel, say)
            return _WorkInTurn(real, turn, cancel, say)

        self._sweep = Sweep("node", plan, ledger, work, turn.give_back).start()

    def look(self, seen: int) -> Look:
        """How it stands, with the rows that changed since that number."""
        ended = not self._sweep.running  # asked first: what is written until then is in the rows
        number, rows = self._outbox.since(seen)
        progress = replace(self._sweep.progress(), rows=())
        return Look(number=number, rows=rows, progress=progress, ended=ended)

    def cancel(self) -> None:
        """Ask it to end; the next looks tell when it has."""
        self._sweep.cancel()


class _WorkInTurn:
    """A node's work, which waits for the turn first."""

    def __init__(
        self,
        work: Work,
        turn: Turn,
        cancel: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self.problems = work.problems
        self._work = work
        self._turn = turn
        self._cancel = cancel
        self._say = say

    @property
    def agenda(self) -> Agenda:
        """See :class:`core.benchmark.service.Workload`."""
        return self._work.agenda

    def carry_out(self) -> None:
        """See :class:`core.benchmark.service.Workload`."""
        self._wait_for_the_turn()
        self._work.carry_out()

    def _wait_for_the_turn(self) -> None:
        while True:
            try:
                return self._turn.take()
            except ModelBusyError:
                self._say("Waiting for another benchmark on this machine.")
            if self._cancel.wait(_TURN_EVERY_S):
                raise StoppedError("Stopped while it waited for another benchmark.")


class _Outbox:
    """The rows of a node, as written last; a :class:`core.benchmark.row_writer.RowStore`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._rows: dict[str, tuple[int, Measurement]] = {}

    def save(self, measurement: Measurement) -> None:
        """Keep it until the next look, and after."""
        with self._lock:
            self._number += 1
            self._rows[measurement.id] = self._number, measurement

    def end_sweep(self, sweep_id: str, state: SweepState) -> None:
        """The asking process writes the end."""

    def since(self, seen: int) -> tuple[int, tuple[Measurement, ...]]:
        """The latest number, and the rows that were saved after that one."""
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
    except (ImportError, RuntimeError):  # the process that measures it will tell
        return True
    return True
