"""Detects that the host had moved this machine's cores apart while a side was generating.

See :mod:`core.benchmark.core_latency`: a small model then generates at two thirds of its rate,
which would wrongly be attributed to the model. :mod:`core.compare.timed_answers` decides which
answers count in that case.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.benchmark.core_latency import CoreLatency
from core.metrics.figures import are_apart

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
