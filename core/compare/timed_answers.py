"""Which answers of a side its timings are taken from, where one alone is too short to time.

An embedded model answers in a twentieth of a second: a page that is drawn meanwhile, or a host that
moves the machine's cores apart, halves its rate. Such a side answers the same again a few times,
unseen, and the medians count. Definitions are those of :mod:`core.inference.timing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from core.compare.core_latency import CORES
from core.inference.answer import Answer, StopReason

SHORTEST_S = 1.0
"""Seconds of answers over which a side is timed, at the least; a longer answer is given once."""

MOST_ANSWERS = 15
"""Answers at the most for that. An odd number has a middle one."""

_PATIENCE = 3
"""Times as many answers, or seconds, after which it is enough even with the cores apart."""

_BY_ITSELF = (StopReason.END_OF_TEXT, StopReason.STOP_MARKER, StopReason.LENGTH)


@dataclass(frozen=True)
class TimedAnswer:
    """One answer, and how far the cores were from each other meanwhile."""

    answer: Answer
    core_distance_ns: float | None
    """See :mod:`core.compare.core_latency`; None where it does not matter or cannot be told."""

    @property
    def whole(self) -> bool:
        """Whether it ended by itself, with tokens."""
        timings = self.answer.timings
        known = timings is not None and timings.tpot_ms is not None
        return known and self.answer.stop_reason in _BY_ITSELF

    @property
    def seconds(self) -> float:
        """How long the work took."""
        timings = self.answer.timings
        return timings.total_ms / 1000 if timings is not None else 0.0

    @property
    def cores_apart(self) -> bool:
        """Whether the cores were apart."""
        return CORES.apart(self.core_distance_ns)


@dataclass(frozen=True)
class Timing:
    """What the timings of one side rest on."""

    answers: tuple[Answer, ...]
    cores_apart: bool
    """Whether they were given with the cores apart, for want of others."""

    def applied_to(self, shown: Answer) -> Answer:
        """The answer that is shown, with the medians for its timings.

        With an even number of answers a median lies midway between the middle two; the rates follow
        from the medians of the times.
        """
        if shown.timings is None:
            return shown
        known = [each.timings for each in self.answers if each.timings is not None]
        timings = replace(
            shown.timings,
            ttft_ms=_median(each.ttft_ms for each in known),
            tpot_ms=_median(each.tpot_ms for each in known),
            total_ms=median(each.total_ms for each in known),
        )
        contended = any(each.contended for each in self.answers)
        return replace(shown, timings=timings, contended=contended)

    @property
    def typical(self) -> Answer:
        """The one that took the middle time."""
        return sorted(self.answers, key=_total_ms)[(len(self.answers) - 1) // 2]


def timing_of(timed: Sequence[TimedAnswer]) -> Timing:
    """What counts of these; the first is the one that is shown.

    Those given with the cores near; where there are none, those given with the cores apart. Where
    something else was generating all the time, the one that is shown.
    """
    alone = [each for each in timed if not each.answer.contended]
    near = [each for each in alone if not each.cores_apart]
    if counting := near or alone:
        return Timing(tuple(each.answer for each in counting), cores_apart=not near)
    return Timing((timed[0].answer,), timed[0].cores_apart)


def suffice(timed: Sequence[TimedAnswer]) -> bool:
    """Whether a side was timed long enough, or cannot be: somebody else asks for answers, say."""
    if not timed or not timed[-1].whole or timed[-1].answer.contended:
        return True
    near = [each for each in timed if not each.cores_apart]
    return _enough(near, 1) or _enough(timed, _PATIENCE)


def _enough(timed: Sequence[TimedAnswer], times: int) -> bool:
    return (
        len(timed) >= times * MOST_ANSWERS
        or sum(each.seconds for each in timed) >= times * SHORTEST_S
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _total_ms(answer: Answer) -> float:
    return answer.timings.total_ms if answer.timings is not None else 0.0


def is_long_enough(answer: Answer | None) -> bool:
    """Whether one answer alone says how fast a side is."""
    times_ms = answer.token_times_ms if answer is not None else ()
    return len(times_ms) > 1 and times_ms[-1] - times_ms[0] >= 1000 * SHORTEST_S
