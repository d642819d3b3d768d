"""A benchmark on this machine: prepare models, measure bandwidth and targets, compare quality.

A run goes through its targets several times (rounds), each time in another order, so that a machine
that gets warm or busy does not favour the first target. Each measurement has its own process. A
step that fails closes its rows with an error, and the run continues; only StoppedError ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from core.benchmark.artifacts import Artifact, PreparedArtifact, check_memory, prepare_artifact
from core.benchmark.bandwidth import read_bandwidth_apart
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
from core.benchmark.quality import Reference, quality_in_process
from core.benchmark.random_models import remove_random_weights
from core.benchmark.sweep import RowWriter, Step, StepKind, Steps, Sweep, SweepProgress
from core.benchmark.weights import bytes_per_token
from core.db.measurement_values import Measurement, MeasurementState, Quality
from core.db.run_values import utc_now
from core.errors import GenerationError, PaddockError, StoppedError, UnknownDeviceError
from core.hardware.devices import library_versions, require_device
from core.inference.contention import ActivityMonitor
from core.metrics.figures import figures_of, near_answers, nearest_of
from core.settings import Settings

log = logging.getLogger(__name__)

SPARE_ROUNDS = 2
"""Maximum number of extra rounds, in place of rounds with high core-to-core latency."""


class LocalSweep(Sweep):
    """A benchmark run on this machine."""

    def __init__(
        self,
        sweep_id: str,
        plan: Plan,
        writer: RowWriter,
        settings: Settings,
        monitor: ActivityMonitor,
        release: Callable[[], None],
    ) -> None:
        """
        Args:
            writer, release: see :class:`core.benchmark.sweep.Sweep`.
            monitor: is notified of the work, and reports whether other work disturbed it.
        """
        super().__init__(sweep_id, plan, writer, release)
        self.settings = settings
        self.monitor = monitor
        self._steps = Steps()
        self._ready: dict[Artifact, PreparedArtifact] = {}
        self._absent: dict[Artifact, str] = {}
        self._bandwidth: float | None = None
        self._nearest_ns = nearest_of(
            sample for row in writer.rows() for one in row.rounds for sample in one.samples
        )

    def steps_done(self) -> SweepProgress:
        """Return the progress of the steps."""
        return self._steps.progress()

    def carry_out(self) -> None:
        """Carry out all steps in order; see :meth:`core.benchmark.sweep.Sweep.carry_out`."""
        self._fail_missing_devices()
        self._plan_steps()
        try:
            self._prepare()
            self._measure()
        finally:
            self._close(row for row in self.writer.open_rows() if self._is_complete(row))
        self._compare_quality()
        if self.plan.random_models and not self.plan.keep_random_weights:
            self.say("Removing the random weights.")
            try:
                remove_random_weights(self.settings, self.plan.random_models)
            except (PaddockError, OSError) as error:
                log.warning("Could not remove random weights: %s", error)
                self.problems.append(str(error))

    # Planning

    def _plan_steps(self) -> None:
        for artifact in self._needed():
            seconds = prepare_seconds(artifact, self.settings)
            self._steps.add(Step(StepKind.PREPARE, artifact), seconds)
        targets = self._open_targets()
        for number in range(self.plan.rounds):
            waiting = [target for target in targets if self._rows_of_round(target, number)]
            if waiting:
                self._steps.add(Step(StepKind.BANDWIDTH, None, number), BANDWIDTH_SECONDS)
            self._plan_rounds(waiting, number)
        compared = self._compared()
        for target in dict.fromkeys([*map(self._reference, compared), *compared]):
            seconds = quality_seconds(target, self.settings)
            self._steps.add(Step(StepKind.QUALITY, target), seconds)

    def _open_targets(self) -> list[Target]:
        waiting = {Target.of_row(row) for row in self.writer.open_rows()}
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
            self.check()
            self.say(f"Preparing {artifact.label}.")
            with (
                caught("The model could not be prepared") as failure,
                self._steps.doing(Step(StepKind.PREPARE, artifact)),
                self.monitor.running(),
            ):
                self._ready[artifact] = prepare_artifact(
                    artifact,
                    self.settings,
                    on_progress=lambda message, _fraction: self.say(message),
                    cancel=self._cancel,
                )
            targets = [each for each in self._open_targets() if Artifact.of(each) == artifact]
            for target in targets:
                if failure.reason is None:
                    self._begin_rows(target, self._ready[artifact])
                else:
                    self._fail_target(target, failure.reason)
            if failure.reason is not None:
                self._absent[artifact] = failure.reason

    def _begin_rows(self, target: Target, ready: PreparedArtifact) -> None:
        """Record the weights of a target; discard rounds of other weights, and close the rows whose
        prompt and answer exceed the model's context length."""
        now = (ready.disk_bytes, ready.int4)
        stale = [
            row
            for row in self.writer.open_rows(target)
            if row.rounds and (row.disk_bytes, row.int4) != now
        ]
        self.writer.change(stale, rounds=(), figures=None, quality=None)
        if stale:
            self._plan_rounds([target], *range(self.plan.rounds))
        self.writer.change(
            self.writer.open_rows(target),
            disk_bytes=ready.disk_bytes,
            weights=ready.weights,
            int4=ready.int4,
        )
        for row in self.writer.open_rows(target):
            prompt, new = row.configuration.prompt_tokens, row.configuration.new_tokens
            if ready.positions and prompt + new > ready.positions:
                self.writer.fail(
                    [row],
                    f"{prompt} prompt tokens and {new} new tokens exceed the context length of "
                    f"{row.configuration.title}, which is {ready.positions}. Choose fewer.",
                )
        if not self.writer.open_rows(target):
            self._steps.drop(StepKind.MEASURE, target)

    # Measuring

    def _measure_bandwidth(self, number: int) -> None:
        """Measure before each round and keep the best: other programs can only make it look
        slower."""
        self.say("Measuring the memory read bandwidth.")
        step = Step(StepKind.BANDWIDTH, None, number)
        try:
            with self._steps.doing(step), self.monitor.running(measured=True):
                found = read_bandwidth_apart()
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
            for row in self.writer.open_rows()
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
            targets = self.plan.targets()
            first = number % len(targets)
            for target in (*targets[first:], *targets[:first]):
                self.check()
                # The shortest first: buffers of a long prompt remain, and would count in the peak
                # of a short one.
                rows = sorted(
                    self._rows_of_round(target, number),
                    key=lambda row: row.configuration.prompt_tokens,
                )
                if rows:
                    self._measure_target(target, rows, number)
        self._steps.drop(StepKind.BANDWIDTH, None)  # of rounds without rows

    def _plan_rounds(self, targets: Iterable[Target], *numbers: int) -> None:
        """Plan rounds of these targets."""
        for target in targets:
            for number in numbers:
                seconds = measure_seconds(target, self.plan, number, self.settings)
                self._steps.add(Step(StepKind.MEASURE, target, number), seconds)

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
        prompts: list[int | None] = [None]  # the last one is under way
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
                memory_limit_bytes=self.plan.memory_limit_bytes,
                nearest_ns=self._nearest_ns,
            )
            step = Step(StepKind.MEASURE, target, number)
            with self._steps.doing(step), self.monitor.running(measured=True) as activity:
                outcome = measure_in_process(
                    job,
                    on_progress=lambda message: self.say(f"{place}: {message}"),
                    cancel=self._cancel,
                    on_prompt=prompts.append,
                )
            answers = (sample for one in outcome.rounds.values() for sample in one.samples)
            self._nearest_ns = nearest_of(answers, self._nearest_ns)
            self.writer.put(
                self._with_round(row, outcome, disturbed=activity.contended) for row in rows
            )
        if failure.reason is not None:
            failed = [row for row in rows if row.configuration.prompt_tokens == prompts[-1]]
            self._after_failure(target, rows, failed, number, failure.reason)

    def _after_failure(
        self,
        target: Target,
        rows: Sequence[Measurement],
        failed: Sequence[Measurement],
        number: int,
        reason: str,
    ) -> None:
        """Close the row that failed, and measure the other prompt lengths without it.

        A long prompt may need more memory than there is while a short one works. A failure before
        the first prompt applies to all of them.
        """
        if not failed:
            self._fail_target(target, reason)
            return
        self._fail(failed, reason)
        others = [row for row in rows if row not in failed]
        if others:
            self.check()
            self._measure_target(target, others, number)
        elif not self.writer.open_rows(target):
            self._steps.drop(StepKind.MEASURE, target)

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
            versions=library_versions(),
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
        for label in dict.fromkeys(Target.of_row(row).label for row in whole):
            self.problems.append(f"An extra round of {label} failed: {reason}")
        self.writer.fail([row for row in rows if row not in whole], reason)

    def _fail_target(self, target: Target, reason: str) -> None:
        self._fail(self.writer.open_rows(target), reason)
        self._steps.drop(StepKind.MEASURE, target)

    # Quality

    def _compared(self) -> list[Target]:
        """Return the targets whose quality is requested and unknown."""
        if not self.plan.quality:
            return []
        missing = {
            Target.of_row(row)
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
                    compared = self._judge(target, judged[1])
                    if compared is not None:
                        rows = [row for row in self.writer.rows() if Target.of_row(row) == target]
                        self.writer.change(rows, quality=compared[0])
                self._steps.drop(StepKind.QUALITY, target)

    def _judge(
        self, target: Target, reference: Reference | None
    ) -> tuple[Quality, Reference] | None:
        """Return the quality of one target; on failure None, with an entry in ``problems``."""
        self.check()
        artifact, result = Artifact.of(target), None
        with caught("The quality measurement failed") as failure:
            if artifact in self._absent:
                raise GenerationError(self._absent[artifact])
            ready = self._ready[artifact]
            check_memory(target.label, ready, self.settings)
            step = Step(StepKind.QUALITY, target)
            with self._steps.doing(step), self.monitor.running():
                result = quality_in_process(
                    ready.folder,
                    target.spec,
                    reference,
                    on_progress=self.say,
                    cancel=self._cancel,
                    memory_limit_bytes=self.plan.memory_limit_bytes,
                )
        if failure.reason is not None:
            self.problems.append(f"The quality of {target.label} is missing: {failure.reason}")
        return result


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
