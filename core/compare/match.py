"""Runs one instruction on several models, in background threads that do not depend on a page."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

import psutil

from core.benchmark.stopping import latency_during
from core.compare.setup import LETTERS, Mode, Setup
from core.compare.timed_answers import (
    CORES,
    MeasureLatency,
    TimedAnswer,
    Timing,
    timed_long_enough,
    timing_of,
)
from core.db import Origin
from core.errors import BadRequestError, ModelBusyError, PaddockError
from core.inference.answer import Answer, StopReason
from core.inference.engine import Engine
from core.inference.job import Job
from core.inference.request import GenerationRequest, User
from core.runtimes.spec import ModelSpec

logger = logging.getLogger(__name__)

START_LINE_TIMEOUT_S = 20.0
"""Longest time, in seconds, for which a loaded side of a race waits for the others to load. A
stored model loads in 2 to 16 s; a conversion or download may take longer than this."""
BEGIN_TIMEOUT_S = 3.0
"""Seconds after which a deferred comparison starts by itself: its page may have been closed."""
IDLE_WAIT_S = 2.0
"""Longest wait, in seconds, for an idle machine before each answer of a deferred comparison in fair
mode. The page is redrawn when the comparison starts and when a side ends, by the server and, if it
runs on the same machine, by the browser; this would disturb an answer that takes a tenth of a
second."""
IDLE_CORES = 0.3
"""The machine counts as idle below this number of busy cores; displaying the comparison uses some.
It does not count as idle while its host has the cores apart."""
MAX_PREPARATION_S = 1.0
"""Preparation time of a repeated answer, in seconds, above which no further ones are generated: the
models do not fit into memory together and would be loaded each time, or others are waiting."""
_IDLE_SAMPLE_S = 0.15
_POLL_S = 0.05

_running: set[Match] = set()
_running_lock = threading.Lock()


def running_matches() -> int:
    """Return the number of comparisons running in this process, of all users."""
    with _running_lock:
        return len(_running)


class SideState(StrEnum):
    """State of a side."""

    WAITING = "waiting"
    """The answer has not started: not its turn yet or, in a race, loading."""
    RUNNING = "running"
    DONE = "done"
    """Finished, reached a limit, or stopped by the user."""
    SKIPPED = "skipped"
    """Stopped before it started."""
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the side is finished."""
        return self not in (SideState.WAITING, SideState.RUNNING)


@dataclass
class _Side:
    """A side while it runs; written by its thread, read by any thread."""

    message: str = "Waiting for its turn."
    fraction: float | None = None
    job: Job | None = None
    error: str | None = None
    starting: bool = False
    timed: list[TimedAnswer] = field(default_factory=list)
    """The finished answer, then the answers repeated for their timings."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    loaded: threading.Event = field(default_factory=threading.Event)
    """In a race: its model is loaded, or it has ended."""

    @property
    def state(self) -> SideState:
        if self.job is not None:
            answer = self.job.answer
            if not self.job.done or answer is None:
                return SideState.RUNNING
            failed = answer.stop_reason is StopReason.ERROR
            return SideState.FAILED if failed else SideState.DONE
        if self.error is not None:
            return SideState.FAILED
        # Once it is starting, the job will exist and be cancelled, by stop() or by _generate().
        skipped = self.cancelled.is_set() and not self.starting
        return SideState.SKIPPED if skipped else SideState.WAITING


class Match:
    """A comparison: one instruction on all sides of a setup.

    It starts when it is created, in background threads: reruns, page switches and closed tabs do
    not affect it, and its jobs are recorded even without a reference to it. All methods except
    ``wait`` return immediately and may be called from any thread.
    """

    def __init__(
        self,
        setup: Setup,
        engine: Engine,
        user: User,
        *,
        repeat: bool = False,
        deferred: bool = False,
        kept: Mapping[int, _Side] | None = None,
        beginning: str = "",
    ) -> None:
        """
        Args:
            user: whose answers they are.
            repeat: whether answers in fair mode that were too fast to time are repeated, neither
                shown nor recorded (:mod:`core.compare.timed_answers`).
            deferred: whether to wait for :meth:`begin`, at most :data:`BEGIN_TIMEOUT_S`. Redrawing
                the page would otherwise slow down the first side only.
            kept: finished sides taken over from an earlier comparison (:meth:`regenerate`).
            beginning: of the new answers, which their models continue.

        Raises:
            BadRequestError: the request exceeds a limit of the settings; nothing was started.
        """
        engine.check_size(setup.request)
        self.id = uuid.uuid4().hex
        self.setup = setup
        self.asked_at = datetime.now(UTC)
        kept = kept or {}
        self._engine, self._user = engine, user
        self._repeat, self._deferred, self._beginning = repeat, deferred, beginning
        self._begun = threading.Event()
        self._sides = [kept.get(index) or _Side() for index in range(len(setup.sides))]
        self._new_sides = [index for index in range(len(setup.sides)) if index not in kept]
        self._finished: list[int] = []
        self._ended, self._stopped = threading.Event(), threading.Event()
        self._timing_pending = repeat and setup.mode is Mode.FAIR
        self._repeated_job: Job | None = None
        threading.Thread(target=self._run, name=f"match {self.id}", daemon=True).start()

    # State

    @property
    def setups(self) -> tuple[Setup, ...]:
        """The setup, as of a list with one instruction (:class:`core.compare.series.Series`)."""
        return (self.setup,)

    @property
    def matches(self) -> tuple[Match, ...]:
        """This comparison, likewise."""
        return (self,)

    @property
    def jobs(self) -> tuple[Job | None, ...]:
        """The job of each side; None if it has not started or never will."""
        return tuple(side.job for side in self._sides)

    @property
    def answers(self) -> tuple[Answer | None, ...]:
        """The finished answer of each side; None if there is none (yet)."""
        return tuple(job.answer if job is not None else None for job in self.jobs)

    @property
    def answered(self) -> bool:
        """Whether every side is done, failed or skipped."""
        return all(side.state.ended for side in self._sides)

    @property
    def done(self) -> bool:
        """Whether all sides are finished and timed."""
        return self.answered and not self._timing_pending

    @property
    def running(self) -> bool:
        """Whether answers are still being generated, or repeated for their timings."""
        return not self.done

    def state(self, side: int) -> SideState:
        """Return the state of a side."""
        return self._sides[side].state

    def error(self, side: int) -> str | None:
        """Return the error message of a failed side; None if it did not fail."""
        found = self._sides[side]
        if found.job is not None:
            answer = found.job.answer
            return answer.error_sentence if answer is not None else None
        return found.error

    def text(self, side: int) -> str:
        """Return a side's whole answer so far: a beginning that it continues, and its own text."""
        job = self._sides[side].job
        if job is None:
            return ""
        return job.request.continues + (job.text if job.answer is None else job.answer.text)

    def place(self, side: int) -> int | None:
        """Return the place, from 1, at which a side of a race finished; None if it did not."""
        return self._finished.index(side) + 1 if side in self._finished else None

    def message(self, side: int) -> str:
        """Return a sentence about what a side is doing."""
        found = self._sides[side]
        if found.job is not None:
            return found.job.snapshot().message
        if found.error is not None:
            return found.error
        return "Not started." if found.state is SideState.SKIPPED else found.message

    def fraction(self, side: int) -> float | None:
        """Return the progress of a side's preparation, 0 to 1; None if unknown."""
        found = self._sides[side]
        return found.job.snapshot().fraction if found.job is not None else found.fraction

    def timing(self, side: int) -> Timing | None:
        """Return the answers that a side's timings are taken from; None if there is none (yet)."""
        found = self._sides[side]
        if found.timed:
            return timing_of(found.timed)
        answer = found.job.answer if found.job is not None else None
        return None if answer is None else Timing((answer,), cores_apart=False)

    def request(self, side: int) -> GenerationRequest:
        """Return the request of a side; a kept answer may have another seed than the setup."""
        job = self._sides[side].job
        return self.setup.request_of(side) if job is None else job.request

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return False on timeout."""
        return self._ended.wait(timeout_s)

    # Control

    def begin(self) -> None:
        """Start a deferred comparison: the page that shows it has been drawn."""
        self._begun.set()

    def stop(self, side: int | None = None) -> None:
        """Stop a side, or all: while queued or loading, in prefill or after the current token.

        The text so far is kept. A side that has not started is skipped, and the next one starts.
        """
        self._stopped.set()
        self._timing_pending = False
        for found in self._sides if side is None else [self._sides[side]]:
            found.cancelled.set()
            if found.job is not None:
                found.job.cancel()
        if (repeated := self._repeated_job) is not None:
            repeated.cancel()
        self.begin()  # so that a deferred comparison ends

    def regenerate(
        self, side: int | None = None, seed: int | None = None, *, beginning: str = ""
    ) -> Match:
        """Generate again on one side or all, as a new comparison; this one does not change.

        Args:
            side: the side to generate again, keeping the others' answers; None for all sides.
            seed: seed of the new answers; None for a new random one.
            beginning: of the new answer of ``side``, which its model continues.

        Raises:
            ModelBusyError: this comparison is still running.
            BadRequestError: the seed is out of range, or a remote model cannot continue an answer.
        """
        if beginning and side is not None and self.setup.sides[side].remote:
            raise BadRequestError(
                f"{LETTERS[side]} runs on a remote server, which does not continue a given "
                "beginning. Regenerate it instead."
            )
        sampling = replace(self.setup.request.sampling, seed=seed)
        setup = replace(self.setup, request=replace(self.setup.request, sampling=sampling))
        kept = {} if side is None else dict(enumerate(self._sides))
        if side is not None:
            del kept[side]
        return self._follow_up(setup, kept, beginning)

    def with_side(self, spec: ModelSpec) -> Match:
        """Generate on one more model, as a new comparison that keeps all answers of this one.

        Raises:
            ModelBusyError: this comparison is still running.
            BadRequestError: there are too many sides.
        """
        setup = replace(
            self.setup,
            sides=(*self.setup.sides, spec),
            formats=(*self.setup.formats, None),
            speculation=(*self.setup.speculation, self.setup.request.speculation),
        )
        return self._follow_up(setup, dict(enumerate(self._sides)))

    def _follow_up(self, setup: Setup, kept: Mapping[int, _Side], beginning: str = "") -> Match:
        if not self.done:
            raise ModelBusyError("The comparison is still running. Stop it or wait for its end.")
        return Match(
            setup,
            self._engine,
            self._user,
            repeat=self._repeat,
            deferred=self._deferred,
            kept=kept,
            beginning=beginning,
        )

    # The methods below run in the comparison's own threads.

    def _run(self) -> None:
        with _running_lock:
            _running.add(self)
        try:
            watched = self._deferred and self._begun.wait(BEGIN_TIMEOUT_S)
            if self.setup.mode is Mode.FAIR:
                with CORES.watched() as measure_latency:
                    for index in self._new_sides:
                        if watched and not self._sides[index].state.ended:
                            _await_idle(measure_latency)
                        with self._timed(index, measure_latency):
                            self._run_side(index)
                    self._repeat_for_timing(measure_latency)
            else:
                self._race()
        finally:
            with _running_lock:
                _running.discard(self)
            self._timing_pending = False
            self._ended.set()

    @contextmanager
    def _timed(self, index: int, measure_latency: MeasureLatency) -> Iterator[None]:
        """Keep the answer that a side generates in the ``with`` block, with the core latency."""
        side = self._sides[index]
        before_ns, start_s = measure_latency(), time.monotonic()
        yield
        seconds, after_ns = time.monotonic() - start_s, measure_latency()
        job = self._repeated_job or side.job
        answer = job.answer if job is not None else None
        if answer is None:
            return
        latency_ns = None
        if answer.conditions is not None and answer.conditions.on_cpu_alone:
            latency_ns = latency_during(seconds, before_ns, after_ns)
        side.timed.append(TimedAnswer(answer, latency_ns))

    def _repeat_for_timing(self, measure_latency: MeasureLatency) -> None:
        """Repeat answers in turn until each side was timed long enough.

        Errors here do not affect the answers.
        """
        # Requests to a remote server may cost money and load somebody else's machine.
        remote = any(spec.remote for spec in self.setup.sides)
        if not self._repeat or remote:
            return
        try:
            while remaining := [
                index
                for index in self._new_sides
                if not timed_long_enough(self._sides[index].timed)
            ]:
                for index in remaining:
                    if self._stopped.is_set():
                        return
                    start_s = time.monotonic()
                    with self._timed(index, measure_latency):
                        self._repeated_job = self._answer(
                            index, self.request(index), recorded=False
                        )
                        if self._stopped.is_set():
                            self._repeated_job.cancel()
                        self._repeated_job.wait()
                    timed = self._sides[index].timed
                    if not timed[-1].complete:
                        timed.pop()
                        return
                    if time.monotonic() - start_s > timed[-1].seconds + MAX_PREPARATION_S:
                        return
        except PaddockError as error:
            logger.info("Repeating the answers of a comparison for their timings failed: %s", error)
        finally:
            self._repeated_job = None

    def _race(self) -> None:
        threads = [
            threading.Thread(
                target=self._run_side, args=(index,), name=f"side {index} {self.id}", daemon=True
            )
            for index in self._new_sides
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run_side(self, index: int) -> None:
        """Run one side to its end; errors do not affect other sides."""
        side = self._sides[index]
        try:
            if self.setup.mode is Mode.RACE and len(self._new_sides) > 1:
                self._generate_together(index)
            else:
                self._generate(index)
        except PaddockError as error:
            side.error = str(error)
        except Exception as error:
            logger.exception("A side of a comparison failed unexpectedly")
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            side.error = f"An unexpected error occurred before generation ({detail}). Try again."
        finally:
            side.loaded.set()

    def _generate(self, index: int) -> None:
        side = self._sides[index]
        side.starting = True
        try:
            if side.cancelled.is_set():
                return
            request = replace(self.setup.request_of(index), continues=self._beginning)
            side.job = self._answer(index, request)
        finally:
            side.starting = False
        if side.cancelled.is_set():
            side.job.cancel()
        side.job.wait()
        raced = self.setup.mode is Mode.RACE and len(self._new_sides) == len(self._sides)
        if raced and side.state is SideState.DONE and not side.cancelled.is_set():
            self._finished.append(index)

    def _answer(self, index: int, request: GenerationRequest, *, recorded: bool = True) -> Job:
        return self._engine.answer(
            self._engine.handle(self.setup.sides[index]),
            request,
            origin=Origin.COMPARE,
            user=self._user,
            recorded=recorded,
        )

    def _generate_together(self, index: int) -> None:
        """Load the side's model, wait until the others are loaded or have failed, and generate."""
        side = self._sides[index]

        def report(message: str, fraction: float | None) -> None:
            side.message, side.fraction = message, fraction

        report("Getting ready.", None)
        with self._engine.lease(self.setup.sides[index], report, side.cancelled):
            side.loaded.set()
            report("Loaded. Waiting for the other models to load.", None)
            deadline = time.monotonic() + START_LINE_TIMEOUT_S
            for other in self._new_sides:
                while not self._sides[other].loaded.wait(_POLL_S):
                    if side.cancelled.is_set() or time.monotonic() > deadline:
                        break
            self._generate(index)


def _await_idle(measure_latency: MeasureLatency) -> None:
    """Wait until the machine is idle and its cores are not apart, at most :data:`IDLE_WAIT_S`."""
    deadline = time.monotonic() + IDLE_WAIT_S
    cores = psutil.cpu_count() or 1
    while time.monotonic() < deadline:
        busy = psutil.cpu_percent(interval=_IDLE_SAMPLE_S) / 100 * cores
        if busy < IDLE_CORES and not CORES.apart(measure_latency()):
            return
