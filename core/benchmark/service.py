"""Runs a plan: every model made ready, then every configuration measured, a process each.

A sweep goes through its targets several times (rounds), each time in another order, so that a
machine that grows warm or busy does not favour the first. What fails becomes a row with its reason,
and the sweep goes on. Rows are written after every process, so that little is lost whatever ends
it; :meth:`Benchmark.resume` measures what is missing.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from core.benchmark.dependencies import Tools
from core.benchmark.estimate import BenchmarkEstimate, estimate, has_quality
from core.benchmark.lock import Turn
from core.benchmark.plan import Plan
from core.benchmark.row_writer import Ledger, target_of
from core.benchmark.runner import Work, this_host
from core.db.measurement_values import Host, Measurement, MeasurementState, SweepState
from core.db.measurements import MeasurementStore
from core.db.processes import current_instance
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
"""In a stored plan: that it was measured on the nodes of a cluster, and on which of them."""

log = logging.getLogger(__name__)

_CLOSE_S = 10.0
"""How long closing waits for a process to be killed and the rows to be written."""


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """A sweep as it stands now."""

    done: int
    """Steps that are over: a model made ready, a process that measured, a quality pass."""
    total: int
    message: str
    """A sentence for the person: what is going on."""
    fraction: float | None
    """Share of the whole time that has passed, 0 to 1; None before it can be told."""
    seconds_left: float | None
    """Roughly, from what the steps took so far; None before it can be told."""
    rows: tuple[Measurement, ...]
    """All measurements of the sweep, in the plan's order, as far as they are."""
    error: str | None
    """What went wrong with the sweep itself, in sentences, such as records that could not be
    written; failures of a configuration stand in its row."""


class Standing(Protocol):
    """How far a work is; :class:`core.benchmark.progress.Agenda` has the meanings."""

    @property
    def done(self) -> int:
        """Steps that are over."""

    @property
    def total(self) -> int:
        """All steps."""

    @property
    def fraction(self) -> float:
        """Share of the time that has passed, 0 to 1."""

    @property
    def seconds_left(self) -> float | None:
        """Of all that is left; None before it can be told."""


class Workload(Protocol):
    """What a sweep carries out: :class:`core.benchmark.runner.Work` here, or a cluster's."""

    problems: list[str]
    """Sentences about what went wrong beside the rows."""

    @property
    def agenda(self) -> Standing:
        """How far it is."""

    def carry_out(self) -> None:
        """All of it; a failure of one configuration stands in its row.

        Raises:
            StoppedError: it was cancelled.
        """


class Sweep:
    """One run of a plan, in a thread of its own; safe to use from any thread."""

    def __init__(
        self,
        sweep_id: str,
        plan: Plan,
        ledger: Ledger,
        work: Callable[[threading.Event, Callable[[str], None]], Workload],
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            sweep_id: 32 hexadecimal digits.
            plan: a validated one.
            ledger: its rows, those that are to be measured open.
            work: makes what is carried out, from the event that cancels it and what is told a
                sentence about what is going on.
            release: called once at the end, with all rows written.
        """
        self.id = sweep_id
        self.plan = plan
        self._ledger = ledger
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
        """How it stands; final once :attr:`running` is False."""
        return self._state

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return not self._ended.is_set()

    def start(self) -> Sweep:
        """Begin; once only."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Ask it to end; returns at once, and what runs is killed within a second."""
        self._cancel.set()

    def interrupt(self) -> None:
        """The same where nobody asked for it: Paddock closes."""
        self._stopped_as = SweepState.INTERRUPTED
        self.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; False where it goes on after ``timeout`` seconds."""
        return self._ended.wait(timeout)

    def progress(self) -> SweepProgress:
        """How it stands."""
        agenda, problem = self._work.agenda, self._ledger.problem
        problems = [*self._work.problems, *([problem] if problem else [])]
        stopping = self.running and self._cancel.is_set()
        return SweepProgress(
            done=agenda.done,
            total=agenda.total,
            message="Stopping." if stopping else self._message,
            fraction=agenda.fraction if agenda.total else None,
            seconds_left=agenda.seconds_left if self.running else 0.0,
            rows=self._ledger.rows(),
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
        except Exception as error:  # a sweep never ends without a word
            log.exception("sweep %s failed unexpectedly", self.id)
            self._work.problems.append(
                f"The benchmark failed unexpectedly ({type(error).__name__}: {error}); the log "
                "tells more, and what was measured is kept."
            )
        finally:
            self._finish(state)

    def _finish(self, state: SweepState) -> None:
        try:
            self._ledger.close(self.id, state)
        except Exception:  # whoever waits for the end must not wait for ever
            log.exception("the end of sweep %s could not be written", self.id)
        finally:
            self._release()
            self._say(_last_word(state, self._ledger.rows()))
            self._state = state
            self._ended.set()


class Benchmark:
    """The benchmark of one process: at most one sweep at a time, in any process of a home."""

    def __init__(
        self,
        settings: Settings,
        measurements: Callable[[], MeasurementStore],
        monitor: ActivityMonitor = MONITOR,
        tools: Tools | None = None,
    ) -> None:
        """
        Args:
            settings: tell the home folder.
            measurements: gives the open store, or raises RecordsError.
            monitor: of the other work in this process.
            tools: what does the work; by default the real ones.
        """
        self._settings = settings
        self._measurements = measurements
        self._monitor = monitor
        self._tools = tools or Tools()
        self._turn = Turn(settings)
        self._lock = threading.Lock()
        self._current: Sweep | None = None
        self._closed = False

    @property
    def current(self) -> Sweep | None:
        """The sweep that runs, or the last one that ran in this process; None before any."""
        return self._current

    def start(self, plan: Plan) -> Sweep:
        """Begin to measure.

        Raises:
            BadRequestError, UnknownModelError: the plan cannot be measured.
            NotAModelError, CorruptModelError: a folder is no model.
            DiskFullError: the disk has too little room for it.
            ModelBusyError: a benchmark runs already.
            RecordsError: the database cannot be written; nothing was started.
        """
        plan = plan.validated()
        sources = {_lasting(name, each): each for name, each in self._sources(plan).items()}
        plan = replace(plan, models=tuple(sources))
        needs = estimate(plan, self._settings)
        if needs.problem is not None:
            raise DiskFullError(needs.problem)
        sweep_id = uuid.uuid4().hex
        rows = fresh_rows(plan, sources, sweep_id, this_host(None))

        def write() -> list[Measurement]:
            self._measurements().begin_sweep(plan.to_json(), rows, sweep_id)
            return rows

        return self._begin(sweep_id, plan, write)

    def resume(self, sweep_id: str, memory_limit_bytes: int | None = None) -> Sweep:
        """Measure what is missing of a sweep: failed, cancelled and interrupted rows.

        Rounds that were measured before are kept where the machine and the libraries are the same.

        Args:
            sweep_id: 32 hexadecimal digits.
            memory_limit_bytes: of each measuring process, this time; None leaves the plan's.

        Raises:
            BadRequestError: there is no such sweep, nothing is missing of it, or the limit is
                too small.
            ModelBusyError: it runs, or another one does.
            RecordsError: the database cannot be read or written.
        """
        store = self._measurements()
        record = store.sweep(sweep_id)
        if record is None:
            raise BadRequestError(
                f"There is no benchmark {sweep_id[:40]!r}; `python -m core bench --list` shows "
                "those there are."
            )
        if record.plan.get(CLUSTER_KEY):
            raise BadRequestError(
                "This benchmark was measured on the nodes of a cluster; go on with it there: "
                f"`python -m core bench --ray ADDRESS --resume {sweep_id}`."
            )
        plan = planned(record.plan, memory_limit_bytes)
        if not is_missing_something(plan, store.of_sweep(sweep_id)):
            raise BadRequestError("Nothing is missing of this benchmark; start a new one.")

        def write() -> list[Measurement]:
            if record.state is SweepState.RUNNING and record.instance == current_instance():
                # Its end could not be written, and nobody measures: we have the turn.
                store.end_sweep(sweep_id, SweepState.INTERRUPTED)
            store.resume_sweep(sweep_id)
            return [continued(row, this_host(None)) for row in store.of_sweep(sweep_id)]

        return self._begin(sweep_id, plan, write)

    def estimate(self, plan: Plan) -> BenchmarkEstimate:
        """What a plan will take, roughly.

        Raises:
            BadRequestError, UnknownModelError: the plan cannot be measured.
        """
        return estimate(plan, self._settings)

    def close(self) -> None:
        """Stop what runs and take nothing more; the sweep can be resumed."""
        with self._lock:
            self._closed = True
            sweep = self._current
        if sweep is not None and sweep.running:
            sweep.interrupt()
            sweep.wait(_CLOSE_S)

    def _begin(self, sweep_id: str, plan: Plan, write: Callable[[], list[Measurement]]) -> Sweep:
        """Take the turn, write the rows, and let the sweep begin."""
        with self._lock:
            if self._closed:
                raise BadRequestError("Paddock is closing; start it again and ask once more.")
            if self._current is not None and self._current.running:
                raise ModelBusyError(
                    "A benchmark runs here already; wait for it, or cancel it first."
                )
            self._turn.take()
            try:
                ledger = Ledger(write(), self._measurements)

                def work(cancel: threading.Event, say: Callable[[str], None]) -> Work:
                    return Work(
                        plan, ledger, self._settings, self._monitor, self._tools, cancel, say
                    )

                sweep = Sweep(sweep_id, plan, ledger, work, self._turn.give_back)
                self._current = sweep.start()
            except BaseException:
                self._turn.give_back()
                raise
        return sweep

    def _sources(self, plan: Plan) -> dict[str, Source]:
        """Where each model of the plan comes from; random ones are not looked for.

        Raises:
            UnknownModelError, NotAModelError, CorruptModelError: one of them cannot be used.
            BadRequestError: two names are of one model.
        """
        store = ModelStore(self._settings)
        sources = {name: store.resolve(name) for name in plan.models}
        names: dict[str, str] = {}
        for name, source in sources.items():
            if source.key in names:
                raise BadRequestError(
                    f"{names[source.key]} and {name} are the same model; name it once."
                )
            names[source.key] = name
        return sources


def fresh_rows(
    plan: Plan, sources: Mapping[str, Source], sweep_id: str, host: Host
) -> list[Measurement]:
    """A waiting row for each configuration of the plan.

    Args:
        plan: a validated one.
        sources: of its models by name; of one that is not among them less is told.
        sweep_id: 32 hexadecimal digits.
        host: the machine that will measure; this one.
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
                source=_place(source) if source else None,
            )
            rows.append(
                Measurement(
                    id=uuid.uuid4().hex,
                    sweep=sweep_id,
                    state=MeasurementState.WAITING,
                    configuration=configuration,
                    host=host,
                    versions=versions,
                )
            )
    return rows


def _lasting(name: str, source: Source) -> str:
    """The name under which a model is found again from any folder."""
    local = source.kind in (SourceKind.CHECKPOINT, SourceKind.IR, SourceKind.GGUF)
    return str(source.location) if local and name != source.key else name


def _place(source: Source) -> str:
    """As the answers' rows name it."""
    embedded = source.kind is SourceKind.EMBEDDED
    return SourceKind.EMBEDDED.value if embedded else str(source.location)


def planned(stored: Mapping[str, Any], memory_limit_bytes: int | None) -> Plan:
    """A stored plan as it is gone on with.

    Args:
        stored: what was written of it.
        memory_limit_bytes: in the place of the plan's; None leaves that.

    Raises:
        BadRequestError: it cannot be read, or the limit is too small.
    """
    plan = Plan.from_json(stored)
    if memory_limit_bytes is None:
        return plan
    return replace(plan, memory_limit_bytes=memory_limit_bytes).validated()


def is_missing_something(plan: Plan, rows: Sequence[Measurement]) -> bool:
    """Whether a resumed sweep would have anything to measure."""
    return any(
        row.state.missing or (plan.quality and row.quality is None and has_quality(target_of(row)))
        for row in rows
    )


def continued(row: Measurement, host: Host) -> Measurement:
    """A row as a resumed sweep takes it up: without rounds of another machine or other versions.

    Args:
        row: as it was left.
        host: this machine, which goes on with it; its bandwidth does not matter.
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


def _last_word(state: SweepState, rows: tuple[Measurement, ...]) -> str:
    done = sum(row.state is MeasurementState.DONE for row in rows)
    failed = sum(row.state is MeasurementState.FAILED for row in rows)
    what = f"{done} of {len(rows)} measurements are done"
    if failed:
        what += f", {failed} failed"
    if state is SweepState.DONE:
        return f"{what}."
    stopped = "Stopped" if state is SweepState.CANCELLED else "Interrupted"
    return f"{stopped}: {what}; what was measured is kept, and the rest can be resumed."
