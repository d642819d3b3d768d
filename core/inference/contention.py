"""Detects whether other answers, downloads, conversions or loads affect an answer's timings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Work that uses the processor."""

    def __init__(self, measured: bool) -> None:
        self.contended = False
        """Whether other work ran at any time during this one."""
        self.measured = measured
        """Whether it is a measurement, during which no work begins that can wait."""


class ActivityMonitor:
    """Tracks concurrent work in one place."""

    def __init__(self) -> None:
        self._running: set[Activity] = set()
        self._lock = threading.Lock()

    @property
    def measuring(self) -> bool:
        """Whether a measurement of a benchmark or of tuning is running."""
        with self._lock:
            return any(each.measured for each in self._running)

    @contextmanager
    def running(self, *, measured: bool = False) -> Iterator[Activity]:
        """Register work for the duration of the ``with`` block.

        Args:
            measured: see :attr:`Activity.measured`.
        """
        activity = Activity(measured)
        with self._lock:
            if self._running:
                activity.contended = True
                for other in self._running:
                    other.contended = True
            self._running.add(activity)
        try:
            yield activity
        finally:
            with self._lock:
                self._running.discard(activity)


def monitor_for(shared_host: str | None) -> ActivityMonitor:
    """Return the monitor of the work on one host.

    Args:
        shared_host: see :attr:`core.runtimes.base.Conditions.shared_host`; None: this machine.
    """
    if shared_host is None:
        return MONITOR
    with _monitors_lock:
        return _monitors.setdefault(shared_host, ActivityMonitor())


_monitors: dict[str, ActivityMonitor] = {}
_monitors_lock = threading.Lock()

MONITOR = ActivityMonitor()
"""Monitor of this process: answers of pages, commands and API, downloads, conversions and loads."""
