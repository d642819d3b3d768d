"""Decides when a prompt has been answered often enough for a meaningful median.

That is at least the requested number of answers, and at least a second of them. If a host moves the
virtual cores (:mod:`core.benchmark.core_latency`), answers given while the latency was high do not
count, unless it stays high for long: then they do, and :mod:`core.metrics.figures` reports it.
"""

from __future__ import annotations

import math

from core.metrics.figures import are_apart

SHORTEST_S = 1.0
"""Minimum duration of timed answers for each prompt length and process: more than requested if an
answer takes a tenth of a second, because the median of two says little."""

MOST_ANSWERS = 50
"""Number of timed answers after which that minimum no longer applies."""

PATIENCE_S = 6.0
"""Seconds of answers with high core-to-core latency after which those count, too. On the shared
machine where this was observed, the latency was low again within five seconds in nineteen of twenty
cases."""

MAX_DISTURBED = 4 * MOST_ANSWERS
"""Number of answers after which the same applies: a fast model gives thousands of them."""

LONGEST_JUDGED_S = 1.0
"""For a longer answer the latency is unknown, because it may have changed meanwhile."""


def latency_during(seconds: float, before_ns: float | None, after_ns: float | None) -> float | None:
    """Return the core-to-core latency during an answer: the higher of before and after.

    Returns:
        None if one of them is unknown, or the answer took too long.
    """
    if before_ns is None or after_ns is None or seconds > LONGEST_JUDGED_S:
        return None
    return max(before_ns, after_ns)


class StoppingRule:
    """Counts the answers of one process to one prompt."""

    def __init__(self, wanted: int, nearest_ns: float | None) -> None:
        """
        Args:
            wanted: requested number of answers.
            nearest_ns: lowest core-to-core latency known of this machine.
        """
        self.nearest_ns = nearest_ns
        """The lowest known latency, including that of these answers."""
        self._wanted = wanted
        self._given: list[tuple[float, float | None]] = []

    @property
    def answers(self) -> int:
        """Number of answers so far, whatever the latency."""
        return len(self._given)

    def add(self, seconds: float, latency_ns: float | None) -> None:
        """Add an answer with its duration and the latency during it."""
        self._given.append((seconds, latency_ns))
        if latency_ns is not None:
            self.nearest_ns = min(latency_ns, self.nearest_ns or math.inf)

    @property
    def reached(self) -> bool:
        """Whether there are enough answers."""
        near = [seconds for seconds, ns in self._given if not are_apart(ns, self.nearest_ns)]
        spent = [seconds for seconds, _ in self._given]
        disturbed_s, disturbed = sum(spent) - sum(near), len(spent) - len(near)
        counting = spent if disturbed_s > PATIENCE_S or disturbed > MAX_DISTURBED else near
        long_enough = sum(counting) >= SHORTEST_S or len(counting) >= MOST_ANSWERS
        return long_enough and len(counting) >= self._wanted
