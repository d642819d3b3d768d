"""Running rows of crashed processes are marked as interrupted, those of live processes are not."""

from __future__ import annotations

import multiprocessing
import os
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from core.db import Instance, RunState, RunStore, current_instance, processes
from core.db.run_values import utc_now
from core.settings import Settings
from tests.db.run_samples import a_result, a_start


def start_a_run_and_hang(home: Path, pipe: Connection) -> None:
    """Code of the other process."""
    pipe.send(RunStore.open(Settings(home=home)).start(a_start(session="other")))
    pipe.recv()


@pytest.fixture
def other_process(tmp_path: Path):
    """A live process with a running run, and the run's id."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=start_a_run_and_hang, args=(tmp_path, theirs), daemon=True
    )
    process.start()
    assert ours.poll(60), "the other process did not start"
    yield process, ours.recv()
    process.kill()
    process.join()


def test_rows_of_a_killed_process_are_marked_and_those_of_live_ones_stay(
    tmp_path: Path, other_process
) -> None:
    process, theirs = other_process
    store = RunStore.open(Settings(home=tmp_path))
    ours = store.start(a_start())

    assert store.mark_interrupted() == 0
    assert store.get(theirs).state is RunState.RUNNING

    process.kill()
    # Not joined yet: on POSIX the process is now a zombie, which still has a process id.
    psutil.wait_procs([psutil.Process(process.pid)], timeout=0.5)
    assert store.mark_interrupted() == 1
    record = store.get(theirs)
    assert (record.state, record.result) == (RunState.INTERRUPTED, None)
    assert record.start == a_start(session="other")
    assert store.get(ours).state is RunState.RUNNING
    assert store.mark_interrupted() == 0

    process.join()
    assert not record.instance.alive()


def test_answer_that_ends_after_being_marked_interrupted_is_done(
    tmp_path: Path, monkeypatch
) -> None:
    store = RunStore.open(Settings(home=tmp_path))
    run_id = store.start(a_start())
    monkeypatch.setattr(Instance, "alive", lambda self: False)
    assert store.mark_interrupted() == 1
    assert store.finish(run_id, a_result())
    assert store.get(run_id).state is RunState.DONE
    assert store.mark_interrupted() == 0


def test_reused_process_id_does_not_count_as_alive() -> None:
    me = current_instance()
    assert me.alive() and me.pid == os.getpid()
    assert not Instance(me.host, me.pid, me.started - 60).alive()
    assert Instance(me.host, me.pid, me.started + 0.5).alive(), "clocks are set now and then"
    assert not Instance("another-host", me.pid, me.started).alive()


def test_process_that_may_not_be_inspected_counts_as_alive(monkeypatch) -> None:
    def refuse(self) -> str:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "status", refuse)
    assert current_instance().alive()


def test_rows_of_another_machine_are_marked_after_a_day(tmp_path: Path, monkeypatch) -> None:
    elsewhere = Instance("another-host", 1, 0.0)
    monkeypatch.setattr(processes, "current_instance", lambda: elsewhere)
    store = RunStore.open(Settings(home=tmp_path))
    fresh = store.start(a_start(started_at=utc_now() - timedelta(hours=1)))
    stale = store.start(a_start(started_at=utc_now() - timedelta(hours=25)))
    assert store.mark_interrupted() == 1
    assert store.get(fresh).state is RunState.RUNNING
    assert store.get(stale).state is RunState.INTERRUPTED
