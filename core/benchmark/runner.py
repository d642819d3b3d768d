"""The steps of a sweep: have the models, measure the memory, measure each target, compare quality.

Everything here runs in the sweep's own thread. A step that fails closes the rows it was for with a
sentence; StoppedError alone ends the sweep.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import psutil

from core.benchmark.artifacts import Material, Ready, check_memory
from core.benchmark.child import Job, Outcome
from core.benchmark.dependencies import Tools
from core.benchmark.estimate import (
    BANDWIDTH_SECONDS,
    has_quality,
    materials,
    measure_seconds,
    prepare_seconds,
    quality_seconds,
    reference_precision,
)
from core.benchmark.plan import Plan, Target
from core.benchmark.progress import Agenda, Step, StepKind
from core.benchmark.random_models import keep_random_weights, remove_unkept
from core.benchmark.row_writer import OPEN, Ledger, target_of
from core.benchmark.weights import bytes_per_token
from core.db.measurement_values import Host, Measurement, MeasurementState
from core.db.run_values import utc_now
from core.errors import (
    GenerationError,
    PaddockError,
    StoppedError,
    UnknownDeviceError,
)
from core.hardware.devices import host_facts, require_device
from core.inference.contention import ActivityMonitor
from core.metrics.figures import figures_of, near_answers, nearest_of
from core.settings import Settings

if TYPE_CHECKING:
    from core.benchmark.quality import Reference
    from core.db.measurement_values import Quality

log = logging.getLogger(__name__)

SPARE_ROUNDS = 2
"""Rounds at the most in place of those in which the host had moved the cores apart."""

_POLL_S = 0.1
"""How often it is looked whether the sweep was cancelled."""

Item = TypeVar("Item")


class Work:
    """The steps of one sweep."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        settings: Settings,
        monitor: ActivityMonitor,
        tools: Tools,
        cancel: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            plan: a validated one.
            ledger: its rows, those that are to be measured open.
            settings: tell the home folder.
            monitor: told of the work, and asked whether other work disturbed it.
            tools: what does the work.
            cancel: when set, the step under way ends within a second.
            say: told a sentence about what is going on.
        """
        self.agenda = Agenda()
        self.problems: list[str] = []
        """Sentences about what went wrong beside the rows."""
        self._plan = plan
        self._ledger = ledger
        self._settings = settings
        self._monitor = monitor
        self._tools = tools
        self._cancel = cancel
        self._say = say
        self._ready: dict[Material, Ready] = {}
        self._absent: dict[Material, str] = {}
        self._bandwidth: float | None = None
        self._nearest_ns = nearest_of(
            sample for row in ledger.rows() for one in row.rounds for sample in one.samples
        )

    def carry_out(self) -> None:
        """All steps, in their order.

        Raises:
            StoppedError: ``cancel`` was set.
        """
        self._refuse_absent_devices()
        self._look_ahead()
        try:
            self._prepare()
            self._measure()
        finally:
            self._close(
                row for row in self._ledger.rows() if row.state in OPEN and self._whole(row)
            )
        self._compare_quality()
        if self._plan.random_models:
            self._leave_random_weights()

    # What there is to do

    def _look_ahead(self) -> None:
        for material in self._needed():
            seconds = prepare_seconds(material, self._settings)
            self.agenda.add(Step(StepKind.PREPARE, material), seconds)
        targets = self._open_targets()
        for number in range(self._plan.rounds):
            if any(self._rows_of_round(target, number) for target in targets):
                self.agenda.add(Step(StepKind.BANDWIDTH, None, number), BANDWIDTH_SECONDS)
            for target in targets:
                if self._rows_of_round(target, number):
                    seconds = measure_seconds(target, self._plan, number, self._settings)
                    self.agenda.add(Step(StepKind.MEASURE, target, number), seconds)
        compared = self._compared()
        for target in dict.fromkeys([*map(self._reference, compared), *compared]):
            seconds = quality_seconds(target, self._settings)
            self.agenda.add(Step(StepKind.QUALITY, target), seconds)

    def _open_targets(self) -> list[Target]:
        waiting = {target_of(row) for row in self._ledger.rows() if row.state in OPEN}
        return [target for target in self._plan.targets() if target in waiting]

    def _needed(self) -> list[Material]:
        """What the open rows are measured from, and their quality compared with."""
        wanted = {Material.of(target) for target in [*self._open_targets(), *self._compared()]}
        wanted |= {Material.of(self._reference(target)) for target in self._compared()}
        return [material for material in materials(self._plan) if material in wanted]

    # Having the models

    def _refuse_absent_devices(self) -> None:
        """Close the rows of devices that are not there before anything is converted for them."""
        for device in self._plan.devices:
            try:
                require_device(device)
            except UnknownDeviceError as error:
                for target in self._open_targets():
                    if target.device == device and not target.baseline:
                        self._give_up(target, str(error))
            except (ImportError, RuntimeError) as error:
                log.warning("the devices cannot be listed: %s", error)  # each process will tell

    def _prepare(self) -> None:
        for material in self._needed():
            self._check()
            self._prepare_one(material)

    def _prepare_one(self, material: Material) -> None:
        self._say(f"Making {material.label} ready.")
        step = Step(StepKind.PREPARE, material)
        with (
            caught("It could not be made ready") as failure,
            self.agenda.doing(step),
            self._monitor.running(),
        ):
            self._ready[material] = self._tools.make_ready(
                material,
                self._settings,
                on_progress=lambda message, _fraction: self._say(message),
                cancel=self._cancel,
            )
        if failure.reason is not None:
            self._absent[material] = failure.reason
            for target in self._users(material):
                self._give_up(target, failure.reason)
        else:
            self._refuse_what_does_not_fit(material)

    def _users(self, material: Material) -> list[Target]:
        return [target for target in self._open_targets() if Material.of(target) == material]

    def _refuse_what_does_not_fit(self, material: Material) -> None:
        """Close the rows whose prompt and answer are longer than the model's positions."""
        ready = self._ready[material]
        for target in self._users(material):
            rows = self._ledger.open_rows(target)
            self._drop_rounds_of_others(target, rows, ready)
            rows = self._ledger.open_rows(target)
            self._ledger.change(
                rows, disk_bytes=ready.disk_bytes, weights=ready.weights, int4=ready.int4
            )
            for row in self._ledger.open_rows(target):
                asked = row.configuration
                if ready.positions and asked.prompt_tokens + asked.new_tokens > ready.positions:
                    self._ledger.fail(
                        [row],
                        f"{asked.prompt_tokens} prompt tokens and {asked.new_tokens} new ones do "
                        f"not fit the {ready.positions} positions of {asked.title}; ask for fewer.",
                    )
            if not self._ledger.open_rows(target):
                self.agenda.drop(StepKind.MEASURE, target)

    def _drop_rounds_of_others(
        self, target: Target, rows: Sequence[Measurement], ready: Ready
    ) -> None:
        """Measure rows anew that were measured on other weights than lie there now."""
        now = (ready.disk_bytes, ready.int4)
        stale = [row for row in rows if row.rounds and (row.disk_bytes, row.int4) != now]
        self._ledger.change(stale, rounds=(), figures=None, quality=None)
        if stale:
            self._add_to_agenda([target], *range(self._plan.rounds))

    # Measuring

    def _measure_bandwidth(self, number: int) -> None:
        """Before each round, and the best counts: other programs can only make it look slower."""
        self._say("Measuring how fast memory can be read.")
        step = Step(StepKind.BANDWIDTH, None, number)
        try:
            with self.agenda.doing(step), self._monitor.running():
                found = self._unless_cancelled(self._tools.read_bandwidth)
            self._bandwidth = max(found, self._bandwidth or 0.0)
        except (PaddockError, OSError, MemoryError) as error:
            if isinstance(error, StoppedError):
                raise
            if self._bandwidth is not None:
                return
            self.problems.append(
                f"How fast memory can be read was not measured ({str(error).rstrip('.')}); the "
                "model bandwidth utilisation is left out."
            )
        self._ledger.put(
            replace(row, host=replace(row.host, bandwidth_bytes_per_s=self._bandwidth))
            for row in self._ledger.rows()
            if row.state in OPEN
        )

    def _measure(self) -> None:
        for number in range(self._plan.rounds + SPARE_ROUNDS):
            waiting = [each for each in self._open_targets() if self._rows_of_round(each, number)]
            if not waiting:
                continue
            if number >= self._plan.rounds:
                self._add_to_agenda(waiting, number)
            if number < self._plan.rounds or self._bandwidth is None:
                self._measure_bandwidth(number)
            for target in rotated(self._plan.targets(), number):
                self._check()
                rows = self._rows_of_round(target, number)
                if rows:
                    self._measure_target(target, _shortest_first(rows), number)
        self.agenda.drop(StepKind.BANDWIDTH, None)  # of rounds that nothing was left to measure in

    def _add_to_agenda(self, targets: Iterable[Target], *numbers: int) -> None:
        """Rounds that were not foreseen."""
        for target in targets:
            for number in numbers:
                seconds = measure_seconds(target, self._plan, number, self._settings)
                self.agenda.add(Step(StepKind.MEASURE, target, number), seconds)

    def _rows_of_round(self, target: Target, number: int) -> tuple[Measurement, ...]:
        """Open rows of the target that lack the figures of this round."""
        return tuple(row for row in self._ledger.open_rows(target) if len(row.rounds) <= number)

    def _measure_target(self, target: Target, rows: Sequence[Measurement], number: int) -> None:
        now = utc_now()
        rows = [
            replace(row, state=MeasurementState.RUNNING, started_at=row.started_at or now)
            for row in rows
        ]
        self._ledger.put(rows)
        under_way: set[int] = set()
        spare = number >= self._plan.rounds
        which = (
            "again (the cores were apart)"
            if spare
            else f"round {number + 1} of {self._plan.rounds}"
        )
        place = f"{target.label}, {which}"
        self._say(f"Measuring {place}.")
        with caught("It could not be measured") as failure:
            ready = self._ready[Material.of(target)]
            check_memory(target.label, ready, self._settings)
            job = Job(
                folder=ready.folder,
                spec=target.spec,
                prompts=tuple(
                    (row.configuration.prompt_tokens, self._plan.answers_in_round(number))
                    for row in rows
                ),
                new_tokens=self._plan.new_tokens,
                checkpoint=target.baseline,
                memory_limit_bytes=self._plan.memory_limit_bytes,
                nearest_ns=self._nearest_ns,
            )
            step = Step(StepKind.MEASURE, target, number)
            with self.agenda.doing(step), self._monitor.running() as activity:
                outcome = self._tools.measure(
                    job,
                    on_progress=lambda message, _fraction: self._say(f"{place}: {message}"),
                    cancel=self._cancel,
                    on_begin=under_way.add,
                    on_round=lambda prompt_tokens, _round: under_way.discard(prompt_tokens),
                )
            answers = (sample for one in outcome.rounds.values() for sample in one.samples)
            self._nearest_ns = nearest_of(answers, self._nearest_ns)
            self._ledger.put(
                self._with_round(row, outcome, disturbed=activity.contended) for row in rows
            )
        if failure.reason is not None:
            self._after_failure(target, rows, under_way, number, failure.reason)

    def _after_failure(
        self,
        target: Target,
        rows: Sequence[Measurement],
        under_way: Collection[int],
        number: int,
        reason: str,
    ) -> None:
        """Close the row that failed, and measure the other prompt lengths without it.

        A long prompt may need more memory than there is where a short one does well. What fails
        before any prompt's turn fails for all of them.

        Args:
            target: whose process failed.
            rows: what it was to measure.
            under_way: the prompt length whose turn it was; empty where it was none's.
            number: of the round.
            reason: a sentence.
        """
        failed = [row for row in rows if row.configuration.prompt_tokens in under_way]
        others = [row for row in rows if row not in failed]
        if not failed:
            self._give_up(target, reason)
            return
        self._fail(failed, reason)
        if others:
            self._check()
            self._measure_target(target, others, number)
        elif not self._ledger.open_rows(target):
            self.agenda.drop(StepKind.MEASURE, target)

    def _with_round(self, row: Measurement, outcome: Outcome, *, disturbed: bool) -> Measurement:
        """The row with the figures of one more round, and all conditions under which it ran."""
        asked, conditions = row.configuration, outcome.conditions
        measured = outcome.rounds[asked.prompt_tokens]
        rounds = (*row.rounds, replace(measured, contended=measured.contended or disturbed))
        per_token = bytes_per_token(
            outcome.weight_bytes,
            outcome.kv_bytes_per_position,
            asked.prompt_tokens,
            asked.new_tokens,
        )
        # The processor's cores measured it; a GPU or NPU reads at a rate of its own.
        bandwidth = self._bandwidth if conditions.on_cpu_alone else None
        sound = sum(
            len(near_answers(one.samples, self._nearest_ns)) >= self._plan.answers_in_round(each)
            for each, one in enumerate(rounds)
        )
        most = self._plan.rounds + SPARE_ROUNDS
        done = sound >= self._plan.rounds or len(rounds) >= most
        return replace(
            row,
            state=MeasurementState.DONE if done else MeasurementState.WAITING,
            ended_at=utc_now() if done else None,
            error=None,
            versions=dict(outcome.versions),
            execution_precision=conditions.execution_precision,
            kv_precision=conditions.kv_cache_precision,
            devices_used=tuple(conditions.devices_used),
            threads=conditions.threads,
            weight_bytes=outcome.weight_bytes,
            rounds=rounds,
            figures=figures_of(
                rounds,
                asked,
                bytes_per_token=per_token,
                bandwidth=bandwidth,
                nearest_ns=self._nearest_ns,
            ),
        )

    def _whole(self, row: Measurement) -> bool:
        """Whether it has all rounds that were planned; further ones only make up for some."""
        return len(row.rounds) >= self._plan.rounds and row.figures is not None

    def _close(self, rows: Iterable[Measurement]) -> None:
        """End rows that have what they need."""
        self._ledger.change(rows, state=MeasurementState.DONE, error=None, ended_at=utc_now())

    def _fail(self, rows: Sequence[Measurement], reason: str) -> None:
        """Close rows with a reason; those that are whole are done all the same."""
        whole = [row for row in rows if self._whole(row)]
        self._close(whole)
        for label in dict.fromkeys(target_of(row).label for row in whole):
            self.problems.append(f"A further round of {label} failed: {reason}")
        self._ledger.fail([row for row in rows if row not in whole], reason)

    def _give_up(self, target: Target, reason: str) -> None:
        self._fail(self._ledger.open_rows(target), reason)
        self.agenda.drop(StepKind.MEASURE, target)

    # Quality

    def _compared(self) -> list[Target]:
        """Targets whose quality is wanted and not known."""
        if not self._plan.quality:
            return []
        missing = {
            target_of(row)
            for row in self._ledger.rows()
            if row.quality is None and row.state is not MeasurementState.FAILED
        }
        return [t for t in self._plan.targets() if t in missing and has_quality(t)]

    def _reference(self, target: Target) -> Target:
        """The same model on the same device in the precision that others are compared with."""
        return replace(target, precision=reference_precision(self._plan), exact=True)

    def _compare_quality(self) -> None:
        groups: dict[Target, list[Target]] = {}
        for target in self._compared():
            groups.setdefault(self._reference(target), []).append(target)
        for first, targets in groups.items():
            self._say(f"Asking {first.label}, which the others are compared with.")
            judged = self._judge(first, None)
            for target in targets:
                if judged is not None:
                    self._say(f"Comparing {target.label} with {first.precision.label} in f32.")
                    self._keep_quality(target, self._judge(target, judged[1]))
                self.agenda.drop(StepKind.QUALITY, target)

    def _keep_quality(self, target: Target, judged: tuple[Quality, Reference] | None) -> None:
        if judged is not None:
            rows = [row for row in self._ledger.rows() if target_of(row) == target]
            self._ledger.change(rows, quality=judged[0])

    def _judge(
        self, target: Target, reference: Reference | None
    ) -> tuple[Quality, Reference] | None:
        """The quality of one target; None, and a sentence among the problems, where it fails."""
        self._check()
        material, result = Material.of(target), None
        with caught("Its quality could not be compared") as failure:
            if material in self._absent:
                raise GenerationError(self._absent[material])
            ready = self._ready[material]
            check_memory(target.label, ready, self._settings)
            step = Step(StepKind.QUALITY, target)
            with self.agenda.doing(step), self._monitor.running():
                result = self._tools.judge(
                    ready.folder,
                    target.spec,
                    reference,
                    on_progress=lambda message, _fraction: self._say(message),
                    cancel=self._cancel,
                    memory_limit_bytes=self._plan.memory_limit_bytes,
                )
        if failure.reason is not None:
            self.problems.append(f"No quality of {target.label}: {failure.reason}")
        return result

    # Clearing up

    def _leave_random_weights(self) -> None:
        """Remove those that nobody wants to keep, or note that these are to be kept."""
        try:
            if self._plan.keep_random_weights:
                keep_random_weights(self._settings, self._plan.random_models)
            else:
                self._say("Removing the random weights.")
                remove_unkept(self._settings)
        except (PaddockError, OSError) as error:
            log.warning("the random weights could not be tidied: %s", error)
            self.problems.append(str(error))

    # Being stopped

    def _check(self) -> None:
        """
        Raises:
            StoppedError: the sweep is to end.
        """
        if self._cancel.is_set():
            raise StoppedError("The benchmark was stopped; what was measured is kept.")

    def _unless_cancelled(self, work: Callable[[], Item]) -> Item:
        """Do short work that cannot be stopped in a thread that can be left alone.

        Raises:
            StoppedError: the sweep is to end; the thread goes on for as long as it takes.
        """
        executor = ThreadPoolExecutor(1, thread_name_prefix="bandwidth")
        try:
            result = executor.submit(work)
            while True:
                self._check()
                with suppress(NotYet):
                    return result.result(_POLL_S)
        finally:
            executor.shutdown(wait=False)


class Failure:
    """What :func:`caught` caught."""

    reason: str | None = None
    """A sentence for the person; None where nothing failed."""


@contextmanager
def caught(what: str) -> Iterator[Failure]:
    """Catch whatever goes wrong in the block but StoppedError, and put it in a sentence.

    Args:
        what: begins the sentence about an error that nobody expected.
    """
    failure = Failure()
    try:
        yield failure
    except StoppedError:
        raise
    except PaddockError as error:
        failure.reason = str(error)
    except Exception as error:  # one configuration never ends the sweep
        log.exception("%s", what)
        failure.reason = (
            f"{what} for an unexpected reason ({type(error).__name__}: {error}); the log tells "
            "more."
        )


def _shortest_first(rows: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """By their prompts: the buffers of a long one stay, and would count in a short one's peak."""
    return tuple(sorted(rows, key=lambda row: row.configuration.prompt_tokens))


def rotated(items: Sequence[Item], by: int) -> tuple[Item, ...]:
    """The same items, begun further on: the first of each round is another."""
    start = by % len(items) if items else 0
    return (*items[start:], *items[:start])


def this_host(bandwidth: float | None) -> Host:
    """This machine, with the read bandwidth in bytes/s where it is known."""
    facts = host_facts()
    return Host(
        name=facts.name,
        cpu=facts.cpu,
        os=facts.os,
        cores=_usable_cores(),
        memory_bytes=facts.memory_bytes,
        bandwidth_bytes_per_s=bandwidth,
    )


def _usable_cores() -> int:
    """Logical processors that this process may run on."""
    try:
        return len(psutil.Process().cpu_affinity())
    except (AttributeError, psutil.Error):  # macOS does not tell
        return psutil.cpu_count() or 1
