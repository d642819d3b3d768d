"""Identifies the process that wrote a row, and whether it is still running."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache

import psutil

START_TOLERANCE_S = 2.0
"""Start times closer than this belong to the same process: the system derives them from the boot
time, which it reports in whole seconds and shifts when the clock is set. A process id is not reused
within that time."""


@dataclass(frozen=True)
class Instance:
    """A process on a machine, distinguished from a later one with the same process id."""

    host: str
    pid: int
    started: float
    """Start time of the process in seconds since the epoch."""

    @property
    def local(self) -> bool:
        """Whether the process ran on this machine."""
        return self.host == platform.node()

    def alive(self) -> bool:
        """Return whether the process is running now; False for other machines.

        A zombie process is not alive. A process that may not be inspected counts as alive, because
        a row that wrongly stays in state running does less harm than one wrongly interrupted.
        """
        if not self.local:
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.started) <= START_TOLERANCE_S
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


def current_instance() -> Instance:
    """Return the current process."""
    return _instance(os.getpid())


@cache
def _instance(pid: int) -> Instance:
    return Instance(host=platform.node(), pid=pid, started=psutil.Process(pid).create_time())
