"""The time of a word between cores is really measured, and its absence harms nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from core.benchmark import core_latency
from core.benchmark.core_latency import CoreDistance

TRIES = 200
"""A machine whose cores are all busy with other tests answers now and then."""

bound = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two processor cores",
)


def echoes() -> list[psutil.Process]:
    """Children of this process that answer on another core."""
    found = []
    for child in psutil.Process().children():
        try:
            if any(part.endswith("core_latency_echo.py") for part in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@bound
def test_a_word_takes_nanoseconds_and_the_thread_is_left_where_it_was():
    cores = os.sched_getaffinity(0)
    with CoreDistance() as distance:
        found = next(ns for _ in range(TRIES) if (ns := distance.nanoseconds()) is not None)
        assert 5 < found < 100_000
        assert os.sched_getaffinity(0) == cores
        (echo,) = echoes()
    assert not echo.is_running() or echo.status() == psutil.STATUS_ZOMBIE
    assert distance.nanoseconds() is None


@bound
def test_a_single_core_is_no_distance_from_itself():
    with one_core(), CoreDistance() as distance:
        assert distance.nanoseconds() is None
        assert echoes() == []


@bound
def test_without_the_other_process_there_is_no_figure_and_no_waiting(monkeypatch):
    with CoreDistance() as distance:
        (echo,) = echoes()
        echo.kill()
        echo.wait(30)
        assert distance.nanoseconds() is None
        monkeypatch.setattr(core_latency, "PATIENCE_S", 1e9)  # nobody is waited for any more
        assert distance.nanoseconds() is None


@bound
@pytest.mark.parametrize("what", ["memfd_create", "ftruncate"])
def test_where_there_is_no_room_there_is_no_figure(monkeypatch, what):
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, what, full)
    with CoreDistance() as distance:
        assert distance.nanoseconds() is None


@bound
def test_nothing_is_left_of_it():
    def open_files() -> int:
        return psutil.Process().num_fds()

    before = open_files()
    with CoreDistance():
        assert open_files() > before
    assert open_files() == before


@bound
def test_the_other_process_ends_with_a_killed_one():
    code = (
        "import os, psutil\n"
        "from core.benchmark.core_latency import CoreDistance\n"
        "with CoreDistance():\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid = int(said.stdout)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(30)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
