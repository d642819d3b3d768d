"""Identifies the process that wrote a row, and whether it is still running."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import psutil
from sqlalchemy import Table, select, update

from core.db.database import Database
from core.db.rows import batches, from_row, to_row

START_TOLERANCE_S = 2.0
"""Start times closer than this belong to the same process: the system derives them from the boot
time, which it reports in whole seconds and shifts when the clock is set. A process id is not reused
within that time."""

OTHER_HOST_TIMEOUT = timedelta(hours=24)
"""Time since the last write after which a running row of another machine counts as interrupted: its
process cannot be checked from here, and no answer, round or result takes a day."""


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


def this_process() -> dict[str, Any]:
    """Return the columns that identify the current process."""
    return to_row(current_instance(), "instance_")


def instance_of(row: Mapping[Any, Any]) -> Instance:
    """Return the process that wrote a row."""
    return from_row(Instance, row, "instance_")


def mark_interrupted(database: Database, table: Table, written_at: str) -> int:
    """Mark running rows whose process has ended as interrupted, and return their number.

    Rows of this process and of other running processes stay. Those of another machine stay for
    :data:`OTHER_HOST_TIMEOUT`.

    Args:
        written_at: column with the time of the latest write.
    """
    running = table.c.state == "running"
    columns = (c for c in table.c if c.name in ("id", written_at) or c.name.startswith("instance_"))
    rows = database.rows(select(*columns).where(running))
    ended = [row["id"] for row in rows if not is_alive(row, row[written_at])]
    statement = update(table).where(running).values(state="interrupted")
    return sum(database.change(statement.where(table.c.id.in_(ids))) for ids in batches(ended))


def is_alive(row: Mapping[Any, Any], written_at: datetime) -> bool:
    """Return whether the process that wrote a row, at this time at last, is probably running."""
    instance = instance_of(row)
    if instance.local:
        return instance.alive()
    return datetime.now(UTC) - written_at <= OTHER_HOST_TIMEOUT


@cache
def _instance(pid: int) -> Instance:
    return Instance(host=platform.node(), pid=pid, started=psutil.Process(pid).create_time())
