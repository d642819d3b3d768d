"""Which process wrote a row, and whether that process is still alive."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache

import psutil

START_TOLERANCE_S = 2.0
"""Two start times closer than this are the same process: the system derives them from the boot
time, which it reports in whole seconds and shifts when the clock is set. A process number is not
given out twice within that time."""


@dataclass(frozen=True)
class Instance:
    """One process on one machine, told apart from a later one that got the same number."""

    host: str
    pid: int
    started: float
    """Start time of the process in seconds since the epoch."""

    @property
    def local(self) -> bool:
        """Whether it ran on this machine, so that :meth:`alive` can know."""
        return self.host == platform.node()

    def alive(self) -> bool:
        """Whether the process runs on this machine now; False for one of another machine.

        A process that has ended and waits for its parent (a zombie) is not alive. One that may
        not be looked at is taken to be alive: a row wrongly left running is the lesser harm.
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
    """This process."""
    return _instance(os.getpid())


@cache
def _instance(pid: int) -> Instance:
    return Instance(host=platform.node(), pid=pid, started=psutil.Process(pid).create_time())
