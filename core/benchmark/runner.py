"""Steps of a benchmark run: prepare models, measure bandwidth and targets, compare quality.

All of it runs in the thread of the run. A step that fails closes its rows with an error; only
StoppedError ends the run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from core.benchmark.artifacts import Artifact, PreparedArtifact, check_memory, prepare_artifact
from core.benchmark.child import Job, Outcome, measure_in_process
from core.benchmark.estimate import (
    BANDWIDTH_SECONDS,
    has_quality,
    measure_seconds,
    prepare_seconds,
    quality_seconds,
    reference_precision,
    required_artifacts,
)
from core.benchmark.plan import Plan, Target
from core.benchmark.progress import ProgressTracker, Step, StepKind
from core.benchmark.quality import Reference, quality_in_process
from core.benchmark.random_models import remove_random_weights
from core.benchmark.row_writer import OPEN, RowWriter, target_of
from core.benchmark.weights import bytes_per_token
from core.db.measurement_values import Host, Measurement, MeasurementState, Quality
from core.db.run_values import utc_now
from core.errors import (
    GenerationError,
    PaddockError,
    StoppedError,
    UnknownDeviceError,
)
from core.hardware.cgroups import usable_processors
from core.hardware.devices import host_facts, require_device
from core.inference.contention import ActivityMonitor
from core.metrics.figures import figures_of, near_answers, nearest_of
from core.settings import Settings

log = logging.getLogger(__name__)

SPARE_ROUNDS = 2
"""Maximum number of extra rounds, in place of rounds with high core-to-core latency."""

Item = TypeVar("Item")


def _read_bandwidth() -> float:
    from core.benchmark.bandwidth import read_bandwidth_apart  # loads NumPy

    return read_bandwidth_apart()


@dataclass(frozen=True)
class Dependencies:
    """Functions that carry out the steps; tests replace them to provoke failures.

    Each raises a PaddockError whose text becomes a row's error, or StoppedError when cancelled.
    """

    prepare_artifact: Callable[..., PreparedArtifact] = prepare_artifact
    measure: Callable[..., Outcome] = measure_in_process
    read_bandwidth: Callable[[], float] = _read_bandwidth
    measure_quality: Callable[..., tuple[Quality, Reference]] = quality_in_process


@dataclass(eq=False)
class Work:
    """Steps of one run."""

    plan: Plan
    writer: RowWriter
    """With the run's rows; those to be measured are open."""
    settings: Settings
    monitor: ActivityMonitor
    """Is notified of the work, and reports whether other work disturbed it."""
    dependencies: Dependencies
    cancel: threading.Event
    """When set, the current step ends within a second, or that of the bandwidth within a few."""
    say: Callable[[str], None]
    """Receives a sentence about the current step."""
    problems: list[str] = field(default_factory=list)
    """Errors outside the rows, as sentences."""

    def __post_init__(self) -> None:
        self.progress = ProgressTracker()
        self._ready: dict[Artifact, PreparedArtifact] = {}
        self._absent: dict[Artifact, str] = {}
        self._bandwidth: float | None = None
        self._nearest_ns = nearest_of(
            sample for row in self.writer.rows() for one in row.rounds for sample in one.samples
        )

    def carry_out(self) -> None:
        """Carry out all steps in order.

        Raises:
            StoppedError: ``cancel`` was set.
        """
        self._fail_missing_devices()
        self._plan_steps()
        try:
            self._prepare()
            self._measure()
        finally:
            self._close(
                row for row in self.writer.rows() if row.state in OPEN and self._is_complete(row)
            )
        self._compare_quality()
        if self.plan.random_models and not self.plan.keep_random_weights:
            self._remove_random_weights()

    # Planning

    def _plan_steps(self) -> None:
        for artifact in self._needed():
            seconds = prepare_seconds(artifact, self.settings)
            self.progress.add(Step(StepKind.PREPARE, artifact), seconds)
        targets = self._open_targets()
        for number in range(self.plan.rounds):
            if any(self._rows_of_round(target, number) for target in targets):
                self.progress.add(Step(StepKind.BANDWIDTH, None, number), BANDWIDTH_SECONDS)
            for target in targets:
                if self._rows_of_round(target, number):
                    seconds = measure_seconds(target, self.plan, number, self.settings)
                    self.progress.add(Step(StepKind.MEASURE, target, number), seconds)
        compared = self._compared()
        for target in dict.fromkeys([*map(self._reference, compared), *compared]):
            seconds = quality_seconds(target, self.settings)
            self.progress.add(Step(StepKind.QUALITY, target), seconds)

    def _open_targets(self) -> list[Target]:
        waiting = {target_of(row) for row in self.writer.rows() if row.state in OPEN}
        return [target for target in self.plan.targets() if target in waiting]

    def _needed(self) -> list[Artifact]:
        """Return the artifacts that open rows are measured from or compared with."""
        wanted = {Artifact.of(target) for target in [*self._open_targets(), *self._compared()]}
        wanted |= {Artifact.of(self._reference(target)) for target in self._compared()}
        return [artifact for artifact in required_artifacts(self.plan) if artifact in wanted]

    # Preparing models

    def _fail_missing_devices(self) -> None:
        """Close the rows of missing devices before anything is converted for them."""
        for device in self.plan.devices:
            try:
                require_device(device)
            except UnknownDeviceError as error:
                for target in self._open_targets():
                    if target.device == device and not target.baseline:
                        self._fail_target(target, str(error))
            except (ImportError, RuntimeError) as error:
                log.warning("Could not list the devices: %s", error)  # each process reports it

    def _prepare(self) -> None:
        for artifact in self._needed():
            self._check()
            self._prepare_one(artifact)

    def _prepare_one(self, artifact: Artifact) -> None:
        self.say(f"Preparing {artifact.label}.")
        step = Step(StepKind.PREPARE, artifact)
        with (
            caught("The model could not be prepared") as failure,
            self.progress.doing(step),
            self.monitor.running(),
        ):
            self._ready[artifact] = self.dependencies.prepare_artifact(
                artifact,
                self.settings,
                on_progress=lambda message, _fraction: self.say(message),
                cancel=self.cancel,
            )
        if failure.reason is not None:
            self._absent[artifact] = failure.reason
            for target in self._targets_of(artifact):
                self._fail_target(target, failure.reason)
        else:
            self._fail_too_long_prompts(artifact)

    def _targets_of(self, artifact: Artifact) -> list[Target]:
        return [target for target in self._open_targets() if Artifact.of(target) == artifact]

    def _fail_too_long_prompts(self, artifact: Artifact) -> None:
        """Close the rows whose prompt and answer exceed the model's context length."""
        ready = self._ready[artifact]
        for target in self._targets_of(artifact):
            rows = self.writer.open_rows(target)
            self._drop_stale_rounds(target, rows, ready)
            rows = self.writer.open_rows(target)
            self.writer.change(
                rows, disk_bytes=ready.disk_bytes, weights=ready.weights, int4=ready.int4
            )
            for row in self.writer.open_rows(target):
                model, limit = row.configuration.title, ready.positions
                prompt, new = row.configuration.prompt_tokens, row.configuration.new_tokens
                if limit and prompt + new > limit:
                    self.writer.fail(
                        [row],
                        f"{prompt} prompt tokens and {new} new tokens exceed the context length of "
                        f"{model}, which is {limit}. Choose fewer.",
                    )
            if not self.writer.open_rows(target):
                self.progress.drop(StepKind.MEASURE, target)

    def _drop_stale_rounds(
        self, target: Target, rows: Sequence[Measurement], ready: PreparedArtifact
    ) -> None:
        """Discard rounds that were measured with other weights than those on disk now."""
        now = (ready.disk_bytes, ready.int4)
        stale = [row for row in rows if row.rounds and (row.disk_bytes, row.int4) != now]
        self.writer.change(stale, rounds=(), figures=None, quality=None)
        if stale:
            self._plan_rounds([target], *range(self.plan.rounds))

    # Measuring

    def _measure_bandwidth(self, number: int) -> None:
        """Measure before each round and keep the best: other programs can only make it look
        slower."""
        self.say("Measuring the memory read bandwidth.")
        step = Step(StepKind.BANDWIDTH, None, number)
        try:
            with self.progress.doing(step), self.monitor.running(measured=True):
                found = self.dependencies.read_bandwidth()
            self._bandwidth = max(found, self._bandwidth or 0.0)
        except (PaddockError, OSError, MemoryError) as error:
            if self._bandwidth is not None:
                return
            self.problems.append(
                f"The memory read bandwidth was not measured ({str(error).rstrip('.')}), so the "
                "model bandwidth utilisation is missing."
            )
        self.writer.put(
            replace(row, host=replace(row.host, bandwidth_bytes_per_s=self._bandwidth))
            for row in self.writer.rows()
            if row.state in OPEN
        )

    def _measure(self) -> None:
        for number in range(self.plan.rounds + SPARE_ROUNDS):
            waiting = [each for each in self._open_targets() if self._rows_of_round(each, number)]
            if not waiting:
                continue
            if number >= self.plan.rounds:
                self._plan_rounds(waiting, number)
            if number < self.plan.rounds or self._bandwidth is None:
                self._measure_bandwidth(number)
            for target in rotated(self.plan.targets(), number):
                self._check()
                rows = self._rows_of_round(target, number)
                if rows:
                    self._measure_target(target, _shortest_first(rows), number)
        self.progress.drop(StepKind.BANDWIDTH, None)  # of rounds without rows

    def _plan_rounds(self, targets: Iterable[Target], *numbers: int) -> None:
        """Plan additional rounds."""
        for target in targets:
            for number in numbers:
                seconds = measure_seconds(target, self.plan, number, self.settings)
                self.progress.add(Step(StepKind.MEASURE, target, number), seconds)

    def _rows_of_round(self, target: Target, number: int) -> tuple[Measurement, ...]:
        """Return the target's open rows without figures of this round."""
        return tuple(row for row in self.writer.open_rows(target) if len(row.rounds) <= number)

    def _measure_target(self, target: Target, rows: Sequence[Measurement], number: int) -> None:
        now = utc_now()
        rows = [
            replace(row, state=MeasurementState.RUNNING, started_at=row.started_at or now)
            for row in rows
        ]
        self.writer.put(rows)
        under_way: set[int] = set()
        spare = number >= self.plan.rounds
        which = (
            "again (core-to-core latency was high)"
            if spare
            else f"round {number + 1} of {self.plan.rounds}"
        )
        place = f"{target.label}, {which}"
        self.say(f"Measuring {place}.")
        with caught("The measurement failed") as failure:
            ready = self._ready[Artifact.of(target)]
            check_memory(target.label, ready, self.settings)
            job = Job(
                folder=ready.folder,
                spec=target.spec,
                speculation=self.plan.speculation_of(target),
                prompts=tuple(
                    (row.configuration.prompt_tokens, self.plan.answers_in_round(number))
                    for row in rows
                ),
                new_tokens=self.plan.new_tokens,
                checkpoint=target.baseline,
                memory_limit_bytes=self.plan.memory_limit_bytes,
                nearest_ns=self._nearest_ns,
            )
            step = Step(StepKind.MEASURE, target, number)
            with self.progress.doing(step), self.monitor.running(measured=True) as activity:
                outcome = self.dependencies.measure(
                    job,
                    on_progress=lambda message: self.say(f"{place}: {message}"),
                    cancel=self.cancel,
                    on_begin=under_way.add,
                    on_round=lambda prompt_tokens, _round: under_way.discard(prompt_tokens),
                )
            answers = (sample for one in outcome.rounds.values() for sample in one.samples)
            self._nearest_ns = nearest_of(answers, self._nearest_ns)
            self.writer.put(
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

        A long prompt may need more memory than there is while a short one works. A failure before
        the first prompt applies to all of them.

        Args:
            target: whose process failed.
            under_way: prompt length that was being measured; empty if there was none.
        """
        failed = [row for row in rows if row.configuration.prompt_tokens in under_way]
        others = [row for row in rows if row not in failed]
        if not failed:
            self._fail_target(target, reason)
            return
        self._fail(failed, reason)
        if others:
            self._check()
            self._measure_target(target, others, number)
        elif not self.writer.open_rows(target):
            self.progress.drop(StepKind.MEASURE, target)

    def _with_round(self, row: Measurement, outcome: Outcome, *, disturbed: bool) -> Measurement:
        """Return the row with the figures of one more round and its conditions."""
        configuration, conditions = row.configuration, outcome.conditions
        measured = outcome.rounds[configuration.prompt_tokens]
        rounds = (*row.rounds, replace(measured, contended=measured.contended or disturbed))
        per_token = bytes_per_token(
            outcome.weight_bytes,
            outcome.kv_bytes_per_position,
            configuration.prompt_tokens,
            configuration.new_tokens,
        )
        # Measured by the CPU's cores; a GPU or NPU has another bandwidth.
        bandwidth = self._bandwidth if conditions.on_cpu_alone else None
        sound = sum(
            len(near_answers(one.samples, self._nearest_ns)) >= self.plan.answers_in_round(each)
            for each, one in enumerate(rounds)
        )
        most = self.plan.rounds + SPARE_ROUNDS
        done = sound >= self.plan.rounds or len(rounds) >= most
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
                configuration,
                bytes_per_token=per_token,
                bandwidth=bandwidth,
                nearest_ns=self._nearest_ns,
            ),
        )

    def _is_complete(self, row: Measurement) -> bool:
        """Return whether the row has all planned rounds; extra rounds only replace disturbed
        ones."""
        return len(row.rounds) >= self.plan.rounds and row.figures is not None

    def _close(self, rows: Iterable[Measurement]) -> None:
        """Mark these rows as done."""
        self.writer.change(rows, state=MeasurementState.DONE, error=None, ended_at=utc_now())

    def _fail(self, rows: Sequence[Measurement], reason: str) -> None:
        """Close rows with an error; rows with all planned rounds are done nevertheless."""
        whole = [row for row in rows if self._is_complete(row)]
        self._close(whole)
        for label in dict.fromkeys(target_of(row).label for row in whole):
            self.problems.append(f"An extra round of {label} failed: {reason}")
        self.writer.fail([row for row in rows if row not in whole], reason)

    def _fail_target(self, target: Target, reason: str) -> None:
        self._fail(self.writer.open_rows(target), reason)
        self.progress.drop(StepKind.MEASURE, target)

    # Quality

    def _compared(self) -> list[Target]:
        """Return the targets whose quality is requested and unknown."""
        if not self.plan.quality:
            return []
        missing = {
            target_of(row)
            for row in self.writer.rows()
            if row.quality is None and row.state is not MeasurementState.FAILED
        }
        return [t for t in self.plan.targets() if t in missing and has_quality(t)]

    def _reference(self, target: Target) -> Target:
        """Return the target of the same model and device in the reference precision."""
        return replace(target, precision=reference_precision(self.plan), exact=True)

    def _compare_quality(self) -> None:
        groups: dict[Target, list[Target]] = {}
        for target in self._compared():
            groups.setdefault(self._reference(target), []).append(target)
        for first, targets in groups.items():
            self.say(f"Measuring the quality of the reference {first.label}.")
            judged = self._judge(first, None)
            for target in targets:
                if judged is not None:
                    self.say(f"Comparing {target.label} with {first.precision.label} in f32.")
                    self._keep_quality(target, self._judge(target, judged[1]))
                self.progress.drop(StepKind.QUALITY, target)

    def _keep_quality(self, target: Target, judged: tuple[Quality, Reference] | None) -> None:
        if judged is not None:
            rows = [row for row in self.writer.rows() if target_of(row) == target]
            self.writer.change(rows, quality=judged[0])

    def _judge(
        self, target: Target, reference: Reference | None
    ) -> tuple[Quality, Reference] | None:
        """Return the quality of one target; on failure None, with an entry in ``problems``."""
        self._check()
        artifact, result = Artifact.of(target), None
        with caught("The quality measurement failed") as failure:
            if artifact in self._absent:
                raise GenerationError(self._absent[artifact])
            ready = self._ready[artifact]
            check_memory(target.label, ready, self.settings)
            step = Step(StepKind.QUALITY, target)
            with self.progress.doing(step), self.monitor.running():
                result = self.dependencies.measure_quality(
                    ready.folder,
                    target.spec,
                    reference,
                    on_progress=self.say,
                    cancel=self.cancel,
                    memory_limit_bytes=self.plan.memory_limit_bytes,
                )
        if failure.reason is not None:
            self.problems.append(f"The quality of {target.label} is missing: {failure.reason}")
        return result

    def _remove_random_weights(self) -> None:
        self.say("Removing the random weights.")
        try:
            remove_random_weights(self.settings, self.plan.random_models)
        except (PaddockError, OSError) as error:
            log.warning("Could not remove random weights: %s", error)
            self.problems.append(str(error))

    # Cancellation

    def _check(self) -> None:
        if self.cancel.is_set():
            raise StoppedError("The benchmark was stopped. Finished measurements are kept.")


class Failure:
    """Result of :func:`caught`."""

    reason: str | None = None
    """The error as a sentence; None if there was none."""


@contextmanager
def caught(what: str) -> Iterator[Failure]:
    """Catch every exception of the block except StoppedError, and convert it to a sentence.

    Args:
        what: beginning of the sentence for an unexpected exception.
    """
    failure = Failure()
    try:
        yield failure
    except StoppedError:
        raise
    except PaddockError as error:
        failure.reason = str(error)
    except Exception as error:  # one configuration must not end the run
        log.exception("%s", what)
        failure.reason = (
            f"{what} for an unexpected reason ({type(error).__name__}: {error}). See the log for "
            "details."
        )


def _shortest_first(rows: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Sort by prompt length: buffers of a long prompt remain, and would count in the peak of a
    short one."""
    return tuple(sorted(rows, key=lambda row: row.configuration.prompt_tokens))


def rotated(items: Sequence[Item], by: int) -> tuple[Item, ...]:
    """Return the items starting at another position, so that each round begins with another."""
    start = by % len(items) if items else 0
    return (*items[start:], *items[:start])


def this_host(bandwidth: float | None) -> Host:
    """Describe this machine, with its read bandwidth in bytes/s if known."""
    facts = host_facts()
    return Host(
        name=facts.name,
        cpu=facts.cpu,
        os=facts.os,
        cores=usable_processors(),
        memory_bytes=facts.memory_bytes,
        bandwidth_bytes_per_s=bandwidth,
    )
