"""Core-to-core latency is measured for real, and a missing measurement harms nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from core.benchmark import core_latency
from core.benchmark.core_latency import CoreLatency
from tests.waiting import PATIENCE_S, eventually

bound = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two processor cores",
)


def responders() -> list[psutil.Process]:
    """Child processes that respond on another core."""
    found = []
    for child in psutil.Process().children():
        try:
            if any("_respond(" in part for part in child.cmdline()):
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
def test_latency_is_plausible_and_thread_affinity_is_restored():
    cores = os.sched_getaffinity(0)
    with CoreLatency() as latency:
        # On a machine whose cores are busy with other tests only some attempts succeed.
        found = eventually(latency.nanoseconds, "a latency")
        assert 5 < found < 100_000
        assert os.sched_getaffinity(0) == cores
        (responder,) = responders()
    assert not responder.is_running() or responder.status() == psutil.STATUS_ZOMBIE
    assert latency.nanoseconds() is None


@bound
def test_single_core_has_no_latency():
    with one_core(), CoreLatency() as latency:
        assert latency.nanoseconds() is None
        assert responders() == []


@bound
def test_dead_responder_gives_no_figure_and_no_wait(monkeypatch):
    with CoreLatency() as latency:
        (responder,) = responders()
        responder.kill()
        responder.wait(PATIENCE_S)
        assert latency.nanoseconds() is None
        monkeypatch.setattr(core_latency, "TIMEOUT_S", 1e9)  # a further wait would never end
        assert latency.nanoseconds() is None


@bound
@pytest.mark.parametrize("what", ["memfd_create", "ftruncate"])
def test_no_memory_gives_no_figure(monkeypatch, what):
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, what, full)
    with CoreLatency() as latency:
        assert latency.nanoseconds() is None


@bound
def test_file_descriptors_are_closed():
    def open_files() -> int:
        """Number of open pipes and shared memories; other threads may open and close files."""
        found = 0
        for path in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # that of the folder itself is closed
                found += str(path.readlink()).startswith(("pipe:", "/memfd:core-latency"))
        return found

    before = open_files()
    with CoreLatency():
        assert open_files() > before
    eventually(lambda: open_files() == before, "they are closed")


@bound
def test_responder_ends_with_a_killed_process():
    code = (
        "import os, psutil\n"
        "from core.benchmark.core_latency import CoreLatency\n"
        "with CoreLatency():\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S
    )
    pid = int(said.stdout)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(PATIENCE_S)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
