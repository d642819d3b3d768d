"""Selects the answers from which a side's timings are taken, if one answer is too short to time.

A demo model answers in a twentieth of a second: redrawing the page at that moment, or a host that
moves the machine's cores apart (:mod:`core.benchmark.core_latency`), halves its rate. Such an
answer is repeated a few times without being shown, and the medians are reported. The definitions
are those of :mod:`core.inference.timing`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

from core.benchmark.core_latency import CoreLatency
from core.inference.answer import Answer, StopReason
from core.metrics.figures import are_apart

SHORTEST_S = 1.0
"""Total seconds of answers over which a side is timed; a longer answer is not repeated."""

MOST_ANSWERS = 15
"""Most answers to reach that. An odd number has a middle value."""

_CORES_APART_FACTOR = 3
"""With the cores apart, stop after this multiple of the answers or seconds above."""

_COMPLETE = (StopReason.END_OF_TEXT, StopReason.STOP_MARKER, StopReason.LENGTH)


MeasureLatency = Callable[[], float | None]
"""Measures the core-to-core latency, in nanoseconds; None where it cannot be measured."""


class Cores:
    """The lowest core-to-core latency seen so far. Thread-safe."""

    def __init__(self) -> None:
        self._lowest_ns: float | None = None
        self._lock = threading.Lock()

    @contextmanager
    def watched(self) -> Iterator[MeasureLatency]:
        """Yield a function that measures the latency in one or two milliseconds."""
        with CoreLatency() as distance:
            yield lambda: self.note(distance.nanoseconds())

    def note(self, latency_ns: float | None) -> float | None:
        """Record a latency and return it."""
        with self._lock:
            if latency_ns is not None:
                self._lowest_ns = min(latency_ns, self._lowest_ns or latency_ns)
        return latency_ns

    def apart(self, latency_ns: float | None) -> bool:
        """Return whether a latency is far above the lowest one seen; False if it is None."""
        return are_apart(latency_ns, self._lowest_ns)


CORES = Cores()
"""The cores of this machine, shared by all comparisons of the process."""


@dataclass(frozen=True)
class TimedAnswer:
    """One answer, and the core-to-core latency while it was generated."""

    answer: Answer
    core_latency_ns: float | None
    """None if irrelevant or unknown."""

    @property
    def complete(self) -> bool:
        """Whether it was neither stopped nor failed, and has timings per token."""
        timings = self.answer.timings
        known = timings is not None and timings.tpot_ms is not None
        return known and self.answer.stop_reason in _COMPLETE

    @property
    def seconds(self) -> float:
        """Duration of the generation."""
        timings = self.answer.timings
        return timings.total_ms / 1000 if timings is not None else 0.0

    @property
    def cores_apart(self) -> bool:
        """Whether the cores were apart."""
        return CORES.apart(self.core_latency_ns)


@dataclass(frozen=True)
class Timing:
    """The answers from which the timings of one side are taken."""

    answers: tuple[Answer, ...]
    cores_apart: bool
    """Whether they were generated with the cores apart, because there are no others."""

    def applied_to(self, shown: Answer) -> Answer:
        """Return the shown answer with the medians as its timings.

        With an even number of answers, the median is the mean of the middle two. Rates are computed
        from the medians of the times.
        """
        if shown.timings is None:
            return shown
        known = [each.timings for each in self.answers if each.timings is not None]
        timings = replace(
            shown.timings,
            ttft_ms=known_median(each.ttft_ms for each in known),
            tpot_ms=known_median(each.tpot_ms for each in known),
            total_ms=median(each.total_ms for each in known),
        )
        contended = any(each.contended for each in self.answers)
        return replace(shown, timings=timings, contended=contended)

    @property
    def typical(self) -> Answer:
        """The answer with the median duration."""
        timed = sorted(
            self.answers, key=lambda each: each.timings.total_ms if each.timings else 0.0
        )
        return timed[(len(timed) - 1) // 2]


def timing_of(timed: Sequence[TimedAnswer]) -> Timing:
    """Select the answers that count; the first of ``timed`` is the one that is shown.

    Answers measured while busy do not count. Of the others, those without the cores apart count, or
    all if there are none. If all were measured while busy, the shown answer counts.
    """
    undisturbed = [each for each in timed if not each.answer.contended]
    near = [each for each in undisturbed if not each.cores_apart]
    if counting := near or undisturbed:
        return Timing(tuple(each.answer for each in counting), cores_apart=not near)
    return Timing((timed[0].answer,), timed[0].cores_apart)


def timed_long_enough(timed: Sequence[TimedAnswer]) -> bool:
    """Return whether no more repetitions are needed, or none are possible, as while busy."""
    if not timed or not timed[-1].complete or timed[-1].answer.contended:
        return True
    near = [each for each in timed if not each.cores_apart]
    return _enough(near, 1) or _enough(timed, _CORES_APART_FACTOR)


def _enough(timed: Sequence[TimedAnswer], times: int) -> bool:
    return (
        len(timed) >= times * MOST_ANSWERS
        or sum(each.seconds for each in timed) >= times * SHORTEST_S
    )


def known_median(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are known; None without one."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def is_long_enough(times_ms: Sequence[float]) -> bool:
    """Return whether one answer, by the times of its tokens, is long enough for a rate."""
    return len(times_ms) > 1 and times_ms[-1] - times_ms[0] >= 1000 * SHORTEST_S


@dataclass(frozen=True)
class Timeline:
    """Tokens of one answer over time: one point at the start, then one per token.

    The number of tokens is constant between two points, so draw it as a step line.
    """

    seconds: tuple[float, ...]
    """Seconds since processing started: prefill included, queueing excluded."""
    tokens: tuple[int, ...]
    """Number of tokens at that time."""
    contended: bool
    """Whether other work ran at the same time, or the cores were apart."""


def timeline(timing: Timing) -> Timeline:
    """Return the timeline of a side's median answer; only the start if it has no tokens.

    A remote server may send several tokens per chunk and report the total at the end: the tokens
    are then divided evenly among the chunks.
    """
    answer = timing.typical
    times = answer.token_times_ms
    reported = answer.timings.new_tokens if answer.timings is not None else 0
    each = reported / len(times) if times and reported else 1.0
    return Timeline(
        seconds=(0.0, *(time_ms / 1000 for time_ms in times)),
        tokens=tuple(round(each * count) for count in range(len(times) + 1)),
        contended=answer.contended or timing.cores_apart,
    )
