"""Limits of this process's control groups: how much of the machine a container may use (Linux).

cgroup v2 has one tree for all controllers, cgroup v1 one tree for each.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

MEMBERSHIP, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_headrooms(membership: Path = MEMBERSHIP, root: Path = ROOT) -> Iterator[int]:
    """Yield the bytes left below each memory limit.

    The kernel counts inactive file pages (``inactive_file``) as used but reclaims them at once, so
    they count as free here.
    """
    for group, is_v2 in _groups("memory", membership, root):
        maximum = _number(group / ("memory.max" if is_v2 else "memory.limit_in_bytes"))
        used = _number(group / ("memory.current" if is_v2 else "memory.usage_in_bytes"))
        if maximum is not None and used is not None:
            lines = map(str.split, _text(group / "memory.stat").splitlines())
            statistics = dict(line for line in lines if len(line) == 2)
            inactive = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
            yield maximum - used + int(inactive)


def cpu_quota(membership: Path = MEMBERSHIP, root: Path = ROOT) -> float | None:
    """Return how many processors may be used on average; None if there is no quota."""
    quotas = []
    for group, is_v2 in _groups("cpu", membership, root):
        if is_v2:
            allowed, period = [*_text(group / "cpu.max").split(), "", ""][:2]
        else:
            allowed = _text(group / "cpu.cfs_quota_us").strip()
            period = _text(group / "cpu.cfs_period_us").strip()
        if allowed.isdigit() and period.isdigit() and int(period):  # not "max" and not -1
            quotas.append(int(allowed) / int(period))
    return min(quotas, default=None)


def usable_processors() -> int:
    """Return how many logical processors this process may run on: its affinity."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Windows, macOS
        return psutil.cpu_count() or 1


def threads_for_quota() -> int | None:
    """Return the number of threads for a CPU quota; None if the processors are fewer anyway.

    OpenVINO and PyTorch respect the affinity themselves, but not a quota: with more threads than it
    allows, all of them are stopped for a part of each period.
    """
    quota = cpu_quota()
    threads = None if quota is None else max(1, math.ceil(quota))
    return threads if threads is not None and threads < usable_processors() else None


def _groups(controller: str, membership: Path, root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of a controller's groups, and whether each is of cgroup v2.

    A container may not see the folder of its own group, but that of an outer one.
    """
    for line in _text(membership).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            tree = root
        elif controller in controllers.split(","):
            tree = root / controller
        else:
            continue
        inside = Path(os.path.normpath(path.strip("/") or "."))
        for group in (inside, *inside.parents):
            yield tree / group, controllers == ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:  # no such file, or "max"
        return None
