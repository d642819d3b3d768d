"""Whether a host had moved this machine's cores apart while a side answered.

See :mod:`core.benchmark.core_latency`: a small model then answers at two thirds of its rate, which
would be put down to the model. Which answers then count, :mod:`core.compare.timed_answers` says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.benchmark.core_latency import CoreLatency
from core.metrics.figures import are_apart

Look = Callable[[], float | None]
"""The cores' distance now, in nanoseconds; None where it cannot be told."""


class Cores:
    """Remembers the shortest distance that was seen; from any thread."""

    def __init__(self) -> None:
        self._nearest_ns: float | None = None
        self._lock = threading.Lock()

    @contextmanager
    def watched(self) -> Iterator[Look]:
        """Gives what measures the distance, in a millisecond or two, within the ``with`` block."""
        with CoreLatency() as distance:
            yield lambda: self.note(distance.nanoseconds())

    def note(self, distance_ns: float | None) -> float | None:
        """Remember a distance, and return it."""
        with self._lock:
            if distance_ns is not None:
                self._nearest_ns = min(distance_ns, self._nearest_ns or distance_ns)
        return distance_ns

    def apart(self, distance_ns: float | None) -> bool:
        """Whether that is much farther than the shortest; False where it is not known."""
        return are_apart(distance_ns, self._nearest_ns)


CORES = Cores()
"""Of this machine, for all matches of the process."""
