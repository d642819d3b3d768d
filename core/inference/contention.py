"""Knows whether other answers, downloads, conversions or loads disturbed an answer's timings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """One piece of work that takes the processor's time."""

    def __init__(self) -> None:
        self.contended = False
        """Whether any other work ran at any time during this one."""


class ActivityMonitor:
    """Counts work that runs at the same time in this process."""

    def __init__(self) -> None:
        self._running: set[Activity] = set()
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Activity]:
        """Announce work for the length of the ``with`` block."""
        activity = Activity()
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


def monitor_beside(place: str | None) -> ActivityMonitor:
    """The monitor of what runs at one place.

    Args:
        place: as :attr:`core.runtimes.base.Conditions.shared_host` has it; None is this process.
    """
    if place is None:
        return MONITOR
    with _monitors_lock:
        return _monitors.setdefault(place, ActivityMonitor())


_monitors: dict[str, ActivityMonitor] = {}
_monitors_lock = threading.Lock()

MONITOR = ActivityMonitor()
"""The process's own: answers on any page, command or route announce themselves here, and so does
what is fetched, converted and loaded for this process."""
