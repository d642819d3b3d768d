"""Steps of a benchmark run, their durations, and an estimate of the remaining time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum


class StepKind(StrEnum):
    """What a step does. Estimates of one kind are corrected by the same factor."""

    PREPARE = "prepare"
    BANDWIDTH = "bandwidth"
    MEASURE = "measure"
    QUALITY = "quality"


@dataclass(frozen=True)
class Step:
    """One step of a run."""

    kind: StepKind
    subject: object
    """What the step is about; hashable."""
    number: int = 0
    """Distinguishes repetitions."""


class ProgressTracker:
    """Finished and remaining steps. One thread works; any thread may read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[Step, float] = {}
        self._done = 0
        self._spent = 0.0
        self._expected: dict[StepKind, float] = {}
        self._took: dict[StepKind, float] = {}
        self._now: tuple[Step, float] | None = None

    def add(self, step: Step, seconds: float) -> None:
        """Add a step with its estimated duration."""
        with self._lock:
            self._left[step] = seconds

    def drop(self, kind: StepKind, subject: object) -> None:
        """Remove these steps from the remaining ones."""
        with self._lock:
            for step in [one for one in self._left if (one.kind, one.subject) == (kind, subject)]:
                del self._left[step]

    @contextmanager
    def doing(self, step: Step) -> Iterator[None]:
        """Time a step for the duration of the ``with`` block; a step that fails is finished,
        too."""
        with self._lock:
            self._now = (step, self._clock())
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            with self._lock:
                self._end(step, learn=succeeded)

    @property
    def done(self) -> int:
        """Number of finished steps."""
        return self._done

    @property
    def total(self) -> int:
        """Number of all steps."""
        with self._lock:
            return self._done + len(self._left)

    @property
    def seconds_left(self) -> float | None:
        """Estimated remaining seconds; None until a step has finished."""
        with self._lock:
            return self._rest() if self._done else None

    @property
    def fraction(self) -> float:
        """Elapsed share of the estimated total time, 0 to 1."""
        with self._lock:
            spent, rest = self._spent + self._running_for(), self._rest()
            if not self._left:
                return 1.0
            return spent / (spent + rest) if spent + rest > 0 else 0.0

    # These are called with the lock held.

    def _end(self, step: Step, *, learn: bool) -> None:
        took = self._running_for()
        usual = self._left.pop(step, 0.0)
        self._now = None
        self._done += 1
        self._spent += took
        if learn:  # a failed step says nothing about the others
            self._took[step.kind] = self._took.get(step.kind, 0.0) + took
            self._expected[step.kind] = self._expected.get(step.kind, 0.0) + usual

    def _running_for(self) -> float:
        return self._clock() - self._now[1] if self._now else 0.0

    def _rest(self) -> float:
        seconds = sum(self._estimate(step) for step in self._left)
        if self._now and self._now[0] in self._left:
            seconds -= min(self._running_for(), self._estimate(self._now[0]))
        return seconds

    def _estimate(self, step: Step) -> float:
        """Return the estimate corrected by the pace of its kind."""
        expected = self._expected.get(step.kind, 0.0)
        pace = self._took[step.kind] / expected if expected > 0 else 1.0
        return self._left[step] * pace
