"""When a prompt has been answered often enough for the median of the answers to say something.

That is as many answers as are wanted, and at least a second of them. Where a host moves the
virtual cores (:mod:`core.benchmark.core_latency`), answers given while they were apart do not
count, unless it goes on for long: then they are taken, and :mod:`core.metrics.figures` says so.
"""

from __future__ import annotations

import math

from core.metrics.figures import are_apart

SHORTEST_S = 1.0
"""Seconds of timed answers at the least, for each prompt length and process: more than were asked
for where an answer takes a tenth of a second, and the median of two says little."""

MOST_ANSWERS = 50
"""Timed answers at the most for that."""

PATIENCE_S = 6.0
"""Seconds of answers with the cores apart after which those are taken as they are. On the shared
machine on which it was seen they came together again within five in nineteen of twenty cases."""

MOST_APART = 4 * MOST_ANSWERS
"""Answers after which the same holds: of a model that answers at once they are thousands."""

LONGEST_JUDGED_S = 1.0
"""Of a longer answer nobody can tell whether the cores were apart: they may move meanwhile."""


def distance_during(
    seconds: float, before_ns: float | None, after_ns: float | None
) -> float | None:
    """The cores' distance while an answer was given: the longer of before and after.

    Returns:
        None where either is not known, or the answer took too long.
    """
    if before_ns is None or after_ns is None or seconds > LONGEST_JUDGED_S:
        return None
    return max(before_ns, after_ns)


class Enough:
    """Counts the answers of one process to one prompt."""

    def __init__(self, wanted: int, nearest_ns: float | None) -> None:
        """
        Args:
            wanted: answers at the least.
            nearest_ns: the shortest distance of cores that is known of this machine.
        """
        self.nearest_ns = nearest_ns
        """The same, these answers counted in."""
        self._wanted = wanted
        self._given: list[tuple[float, float | None]] = []

    @property
    def answers(self) -> int:
        """So far, with the cores near or apart."""
        return len(self._given)

    def add(self, seconds: float, distance_ns: float | None) -> None:
        """One more answer, how long it took, and the cores' distance meanwhile."""
        self._given.append((seconds, distance_ns))
        if distance_ns is not None:
            self.nearest_ns = min(distance_ns, self.nearest_ns or math.inf)

    @property
    def reached(self) -> bool:
        """Whether it is enough."""
        near = [seconds for seconds, ns in self._given if not are_apart(ns, self.nearest_ns)]
        spent = [seconds for seconds, _ in self._given]
        apart_s, apart = sum(spent) - sum(near), len(spent) - len(near)
        return self._suffice(spent if apart_s > PATIENCE_S or apart > MOST_APART else near)

    def _suffice(self, spent: list[float]) -> bool:
        return len(spent) >= self._wanted and (
            sum(spent) >= SHORTEST_S or len(spent) >= MOST_ANSWERS
        )
