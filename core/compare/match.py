"""One instruction through several models: begins in threads of its own and lives without a page."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import psutil

from core.benchmark.stopping import latency_during
from core.compare.core_latency import CORES, Look
from core.compare.setup import Mode, Setup
from core.compare.timed_answers import TimedAnswer, Timing, suffice, timing_of
from core.errors import ModelBusyError, PaddockError
from core.inference.answer import Answer, StopReason
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.pool import OnProgress
from core.runtimes.spec import ModelSpec

logger = logging.getLogger(__name__)

LINE_UP_S = 20.0
"""Seconds for which a loaded side of a race waits for the others to load. A stored model takes 2
to 16; whoever converts or downloads first is not waited for to the end."""
HOLD_S = 3.0
"""Seconds after which a held match begins by itself: the page that held it may be gone."""
CALM_S = 2.0
"""Longest wait, in seconds, for a calm machine before each answer of a held match that is fair.
The page is drawn anew when the match begins and when a side ends, here and, where the browser runs
on the same machine, there; what answers in a tenth of a second would be measured against that."""
CALM_CORES = 0.3
"""Cores kept busy below which the machine is calm; looking at the match takes some of them. It is
not calm either while its host has the cores apart."""
LATE_S = 1.0
"""Seconds of getting ready after which nothing is given again for its timings: there is no room for
all models at once, so that each would be loaded anew, or somebody else waits for one."""
_LOOK_S = 0.15
_POLL_S = 0.05

Start = Callable[[ModelSpec, GenerationRequest], Job]
"""Makes and starts a recorded job; a PaddockError that it raises fails its side alone."""

LineUp = Callable[[ModelSpec, OnProgress, threading.Event], AbstractContextManager[Any]]
"""Loads a model and holds it: :meth:`core.engine.Engine.lease`."""


_under_way: set[Match] = set()
_counting = threading.Lock()


def matches_under_way() -> int:
    """How many matches run in this process, whoever asked for them: how many people look on."""
    with _counting:
        return len(_under_way)


class SideState(StrEnum):
    """How far a side is."""

    WAITING = "waiting"
    """Its answer has not begun: not its turn yet or, in a race, being loaded."""
    RUNNING = "running"
    DONE = "done"
    """It ended: by itself, by its limits, or because the person stopped it."""
    SKIPPED = "skipped"
    """Stopped before it began."""
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (SideState.WAITING, SideState.RUNNING)


@dataclass
class _Side:
    """One side in the making; written by its thread, read by anyone."""

    message: str = "Waits for its turn."
    fraction: float | None = None
    job: Job | None = None
    error: str | None = None
    starting: bool = False
    timed: list[TimedAnswer] = field(default_factory=list)
    """Its answer once it has ended, and those that were given again for their timings."""
    cancelled: threading.Event = field(default_factory=threading.Event)

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
        # Once it is starting, its job comes and is cancelled by whoever comes second.
        skipped = self.cancelled.is_set() and not self.starting
        return SideState.SKIPPED if skipped else SideState.WAITING


class Match:
    """One instruction through all sides of a set-up.

    It begins when it is made, in threads of its own: a rerun, a page that is left and a closed tab
    change nothing. Whoever keeps a reference may watch, stop and find it again; whatever the jobs
    record is recorded without one. All methods return at once and may be called from any thread.
    """

    def __init__(
        self,
        setup: Setup,
        start: Start,
        *,
        again: Start | None = None,
        line_up: LineUp | None = None,
        held: bool = False,
        kept: Mapping[int, _Side] | None = None,
    ) -> None:
        """
        Args:
            start: makes and starts the recorded job of a side.
            again: makes and starts a job that nobody sees and nothing records: with it, fair sides
                that answered too fast to be timed do so again (:mod:`core.compare.timed_answers`).
            line_up: loads the models of a race first, so that they start together; without it
                each starts as soon as it is loaded. Used by races alone.
            held: whether it waits for :meth:`begin`, at most :data:`HOLD_S`. A page that draws
                itself anew would slow the first side, and that side alone.
            kept: sides that are taken over, ended, from an earlier match (:meth:`regenerate`).
        """
        self.id = uuid.uuid4().hex
        self.setup = setup
        self.asked_at = datetime.now(UTC)
        kept = kept or {}
        self._start, self._again = start, again
        self._line_up, self._held = line_up, held
        self._begun = threading.Event()
        self._sides = [kept.get(index) or _Side() for index in range(len(setup.sides))]
        self._own = [index for index in range(len(setup.sides)) if index not in kept]
        self._ended, self._stopped = threading.Event(), threading.Event()
        self._repeats = again is not None and setup.mode is Mode.FAIR
        self._repeating: Job | None = None
        threading.Thread(target=self._run, name=f"match {self.id}", daemon=True).start()

    # What can be watched

    @property
    def jobs(self) -> tuple[Job | None, ...]:
        """The answer of each side; None where it has not begun and where it never will."""
        return tuple(side.job for side in self._sides)

    @property
    def answers(self) -> tuple[Answer | None, ...]:
        """The ended answer of each side; None where there is none (yet)."""
        return tuple(job.answer if job is not None else None for job in self.jobs)

    @property
    def answered(self) -> bool:
        """Whether every side has ended, failed or been skipped."""
        return all(side.state.ended for side in self._sides)

    @property
    def done(self) -> bool:
        """Whether nothing more will happen: all have answered, and are timed."""
        return self.answered and not self._repeats

    @property
    def running(self) -> bool:
        """Whether an answer is under way or still to come, or is given again to be timed."""
        return not self.done

    def state(self, side: int) -> SideState:
        """How far a side is."""
        return self._sides[side].state

    def error(self, side: int) -> str | None:
        """The sentence about a failed side; None where it did not fail."""
        found = self._sides[side]
        if found.job is not None:
            answer = found.job.answer
            return answer.error_sentence if answer is not None else None
        return found.error

    def message(self, side: int) -> str:
        """What is happening on a side, as a sentence."""
        found = self._sides[side]
        if found.job is not None:
            return found.job.snapshot().message
        if found.error is not None:
            return found.error
        return "Was not asked." if found.state is SideState.SKIPPED else found.message

    def fraction(self, side: int) -> float | None:
        """Share of a side's preparation that is done, 0 to 1; None where it cannot be known."""
        found = self._sides[side]
        return found.job.snapshot().fraction if found.job is not None else found.fraction

    def timing(self, side: int) -> Timing | None:
        """What the figures of an ended side rest on; None where it gave no answer (yet)."""
        found = self._sides[side]
        if found.timed:
            return timing_of(found.timed)
        answer = found.job.answer if found.job is not None else None
        return None if answer is None else Timing((answer,), cores_apart=False)

    def request(self, side: int) -> GenerationRequest:
        """What this side was asked; a kept answer may have another seed than the set-up."""
        job = self._sides[side].job
        return self.setup.request_of(side) if job is None else job.request

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False where the time ran out first."""
        return self._ended.wait(timeout_s)

    # What can be done

    def begin(self) -> None:
        """Let a held match begin; the page that shows it has been drawn."""
        self._begun.set()

    def stop(self, side: int | None = None) -> None:
        """Stop a side, or all: in line, while it loads, in prefill or after the current token.

        The text so far is kept. A side that has not begun is skipped, and the next has its turn.
        """
        self._stopped.set()
        self._repeats = False
        for found in self._sides if side is None else [self._sides[side]]:
            found.cancelled.set()
            if found.job is not None:
                found.job.cancel()
        if (repeating := self._repeating) is not None:
            repeating.cancel()
        self.begin()  # so that a held match ends

    def regenerate(self, side: int | None = None, seed: int | None = None) -> Match:
        """Ask the same again, on one side or on all; this match stays as it is.

        Args:
            side: the only one to answer anew, beside the others' kept answers; None: all.
            seed: of the new answers; None draws a fresh one.

        Raises:
            ModelBusyError: this match is still running.
            BadRequestError: the seed is out of range.
        """
        if not self.done:
            raise ModelBusyError("The models are still answering; stop them or wait for their end.")
        sampling = replace(self.setup.request.sampling, seed=seed)
        setup = replace(self.setup, request=replace(self.setup.request, sampling=sampling))
        kept = {} if side is None else dict(enumerate(self._sides))
        if side is not None:
            del kept[side]
        return Match(
            setup,
            self._start,
            again=self._again,
            line_up=self._line_up,
            held=self._held,
            kept=kept,
        )

    # What follows runs in the match's own threads.

    def _run(self) -> None:
        with _counting:
            _under_way.add(self)
        try:
            watched = self._held and self._begun.wait(HOLD_S)
            if self.setup.mode is Mode.FAIR:
                with CORES.watched() as look:
                    for index in self._own:
                        if watched and not self._sides[index].state.ended:
                            _await_calm(look)
                        with self._timed(index, look):
                            self._play(index)
                    self._time_again(look)
            else:
                self._race()
        finally:
            with _counting:
                _under_way.discard(self)
            self._repeats = False
            self._ended.set()

    @contextmanager
    def _timed(self, index: int, look: Look) -> Iterator[None]:
        """Keep the answer that a side gives meanwhile, with the cores' distance."""
        side = self._sides[index]
        before_ns, asked_s = look(), time.monotonic()
        yield
        seconds, after_ns = time.monotonic() - asked_s, look()
        job = self._repeating or side.job
        answer = job.answer if job is not None else None
        if answer is None:
            return
        distance_ns = None
        if answer.conditions is not None and answer.conditions.on_cpu_alone:
            distance_ns = latency_during(seconds, before_ns, after_ns)
        side.timed.append(TimedAnswer(answer, distance_ns))

    def _time_again(self, look: Look) -> None:
        """By turns, until each side was timed long enough; what fails here touches no answer."""
        elsewhere = any(spec.remote for spec in self.setup.sides)  # may cost, and is not ours
        if self._again is None or elsewhere:
            return
        try:
            while short := [each for each in self._own if not suffice(self._sides[each].timed)]:
                for index in short:
                    if self._stopped.is_set():
                        return
                    asked_s = time.monotonic()
                    with self._timed(index, look):
                        self._repeating = self._again(self.setup.sides[index], self.request(index))
                        if self._stopped.is_set():
                            self._repeating.cancel()
                        self._repeating.wait()
                    timed = self._sides[index].timed
                    if not timed[-1].whole:
                        timed.pop()
                        return
                    if time.monotonic() - asked_s > timed[-1].seconds + LATE_S:
                        return
        except PaddockError as error:
            logger.info("A match is not timed further: %s", error)
        finally:
            self._repeating = None

    def _race(self) -> None:
        line = _StartLine(len(self._own)) if self._line_up and len(self._own) > 1 else None
        threads = [
            threading.Thread(
                target=self._play, args=(index, line), name=f"side {index} {self.id}", daemon=True
            )
            for index in self._own
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _play(self, index: int, line: _StartLine | None = None) -> None:
        """Take one side to its end; nothing that fails here touches another side."""
        side = self._sides[index]
        try:
            if line is None:
                self._answer(index)
            else:
                with self._at_the_start(index, line):
                    self._answer(index)
        except PaddockError as error:
            side.error = str(error)
        except Exception as error:
            logger.exception("A side of a match failed unexpectedly")
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            side.error = f"Something failed before the model could answer ({detail}); try again."

    def _answer(self, index: int) -> None:
        side = self._sides[index]
        side.starting = True
        try:
            if side.cancelled.is_set():
                return
            side.job = self._start(self.setup.sides[index], self.setup.request_of(index))
        finally:
            side.starting = False
        if side.cancelled.is_set():
            side.job.cancel()
        side.job.wait()

    @contextmanager
    def _at_the_start(self, index: int, line: _StartLine) -> Iterator[None]:
        """Hold the side's loaded model, and let it start when the others are loaded too."""
        side, spec = self._sides[index], self.setup.sides[index]

        def report(message: str, fraction: float | None) -> None:
            side.message, side.fraction = message, fraction

        assert self._line_up is not None
        report("Getting ready.", None)
        with line.place() as arrive, self._line_up(spec, report, side.cancelled):
            arrive()
            report("Ready; waits for the others to load.", None)
            line.wait(side.cancelled)
            yield


def _await_calm(look: Look) -> None:
    """Wait until the machine has little to do and its cores near, :data:`CALM_S` at most."""
    deadline = time.monotonic() + CALM_S
    cores = psutil.cpu_count() or 1
    while time.monotonic() < deadline:
        busy = psutil.cpu_percent(interval=_LOOK_S) / 100 * cores
        if busy < CALM_CORES and not CORES.apart(look()):
            return


class _StartLine:
    """Where the sides of a race wait for each other."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[Callable[[], None]]:
        """A side's place; who leaves without having arrived is not waited for."""
        arrived = False

        def arrive() -> None:
            nonlocal arrived
            with self._changed:
                self._missing -= not arrived
                arrived = True
                self._changed.notify_all()

        try:
            yield arrive
        finally:
            arrive()

    def wait(self, cancelled: threading.Event) -> None:
        """Until all have arrived or left, the patience is over, or this side was stopped."""
        deadline = time.monotonic() + LINE_UP_S
        with self._changed:
            while self._missing and not cancelled.is_set() and time.monotonic() < deadline:
                self._changed.wait(_POLL_S)
