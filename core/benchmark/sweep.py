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
from collections.abc import Callable
from dataclasses import dataclass, replace

from core.benchmark.estimate import BenchmarkEstimate, estimate, has_quality
from core.benchmark.ledger import Ledger, target_of
from core.benchmark.plan import Plan
from core.benchmark.random_weights import keep_random_weights, remove_unkept
from core.benchmark.steps import Work, this_host
from core.benchmark.tools import Tools
from core.benchmark.turn import Turn
from core.devices import library_versions
from core.errors import (
    BadRequestError,
    DiskFullError,
    ModelBusyError,
    PaddockError,
    StoppedError,
)
from core.generation.activity import MONITOR, ActivityMonitor
from core.records.instance import current_instance
from core.records.measurement_values import Measurement, MeasurementState, SweepState
from core.records.measurements import MeasurementStore
from core.settings import Settings
from core.store import ModelStore, Source, SourceKind

__all__ = ["Benchmark", "BenchmarkEstimate", "Sweep", "SweepProgress"]

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


class Sweep:
    """One run of a plan, in a thread of its own; safe to use from any thread."""

    def __init__(
        self,
        sweep_id: str,
        plan: Plan,
        ledger: Ledger,
        settings: Settings,
        monitor: ActivityMonitor,
        tools: Tools,
        turn: Turn,
    ) -> None:
        """
        Args:
            sweep_id: 32 hexadecimal digits.
            plan: a validated one.
            ledger: its rows, those that are to be measured open.
            settings: tell the home folder.
            monitor: told of the work, and asked whether other work disturbed it.
            tools: what does the work.
            turn: taken; given back at the end.
        """
        self.id = sweep_id
        self.plan = plan
        self._ledger = ledger
        self._settings = settings
        self._turn = turn
        self._message = "Starting."
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self._state = SweepState.RUNNING
        self._stopped_as = SweepState.CANCELLED
        self._work = Work(plan, ledger, settings, monitor, tools, self._cancel, self._say)
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
            if state is SweepState.DONE and self.plan.random_models:
                self._leave_random_weights()
        except Exception:  # whoever waits for the end must not wait for ever
            log.exception("the end of sweep %s could not be written", self.id)
        finally:
            self._turn.give_back()
            self._say(_last_word(state, self._ledger.rows()))
            self._state = state
            self._ended.set()

    def _leave_random_weights(self) -> None:
        """Remove those that nobody wants to keep, or note that these are to be kept."""
        try:
            if self.plan.keep_random_weights:
                keep_random_weights(self._settings, self.plan.random_models)
            else:
                self._say("Removing the random weights.")
                remove_unkept(self._settings)
        except PaddockError as error:
            self._work.problems.append(str(error))


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
        sources = self._sources(plan)
        needs = estimate(plan, self._settings)
        if needs.problem is not None:
            raise DiskFullError(needs.problem)
        sweep_id = uuid.uuid4().hex
        rows = _fresh_rows(plan, sources, sweep_id)

        def write() -> list[Measurement]:
            self._measurements().begin_sweep(plan.to_json(), rows, sweep_id)
            return rows

        return self._begin(sweep_id, plan, write)

    def resume(self, sweep_id: str) -> Sweep:
        """Measure what is missing of a sweep: failed, cancelled and interrupted rows.

        Rounds that were measured before are kept where the machine and the libraries are the same.

        Raises:
            BadRequestError: there is no such sweep, or nothing is missing of it.
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
        plan = Plan.from_json(record.plan)
        if not _missing(plan, store.of_sweep(sweep_id)):
            raise BadRequestError("Nothing is missing of this benchmark; start a new one.")

        def write() -> list[Measurement]:
            if record.state is SweepState.RUNNING and record.instance == current_instance():
                # Its end could not be written, and nobody measures: we have the turn.
                store.end_sweep(sweep_id, SweepState.INTERRUPTED)
            store.resume_sweep(sweep_id)
            return [_continued(row) for row in store.of_sweep(sweep_id)]

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
                sweep = Sweep(
                    sweep_id,
                    plan,
                    ledger,
                    self._settings,
                    self._monitor,
                    self._tools,
                    self._turn,
                )
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


def _fresh_rows(plan: Plan, sources: dict[str, Source], sweep_id: str) -> list[Measurement]:
    host, versions = this_host(None), library_versions()
    rows = []
    for target in plan.targets():
        source = None if target.random_weights else sources[target.model]
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


def _place(source: Source) -> str:
    """As the answers' rows name it."""
    embedded = source.kind is SourceKind.EMBEDDED
    return SourceKind.EMBEDDED.value if embedded else str(source.location)


def _missing(plan: Plan, rows: list[Measurement]) -> bool:
    return any(
        row.state.missing or (plan.quality and row.quality is None and has_quality(target_of(row)))
        for row in rows
    )


def _continued(row: Measurement) -> Measurement:
    """A row as a resumed sweep takes it up: without rounds of another machine or other versions."""
    if not row.state.missing:
        return row
    host = replace(this_host(None), bandwidth_bytes_per_s=row.host.bandwidth_bytes_per_s)
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
