"""Child processes: events, errors, cancellation, and every way in which one can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import GenerationError, PaddockError, StoppedError, UnknownDeviceError
from core.settings import CHECKOUT
from core.workers.process import Event, WorkerDied, WorkerProcess, WorkerSilent, error_from_json
from tests.waiting import eventually

MODULE = "tests.workers.scripted"
MIB = 2**20


def follow(
    request: dict[str, Any],
    on_event: Callable[[Event], None] = lambda event: None,
    *,
    cancel: threading.Event | None = None,
    silence_s: float | None = None,
    memory_limit_bytes: int | None = None,
    **options: Any,
) -> list[Event]:
    """Follow a worker to its end; return its events, and check that no process remains."""
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        on_event(event)

    try:
        with WorkerProcess(MODULE, request, **options) as worker:
            last = worker.follow(
                note,
                cancel=cancel or threading.Event(),
                silence_s=silence_s,
                memory_limit_bytes=memory_limit_bytes,
            )
    finally:
        assert not running()
    return [*events, last]


def running() -> list[int]:
    """Process ids of the child processes of this one that run the module."""

    def runs(child: psutil.Process) -> bool:
        try:
            return MODULE in child.cmdline()
        except psutil.Error:
            return False

    return [child.pid for child in psutil.Process().children() if runs(child)]


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Events and requests


def test_events_arrive_in_order_and_the_last_is_returned() -> None:
    begun, *events, last = follow({"do": "count", "to": 3})
    assert [event["number"] for event in events] == [0, 1, 2]
    assert begun["event"] == "begun" and last == {"event": "done"}


def test_what_libraries_print_goes_to_the_log() -> None:
    lines: list[str] = []
    events = follow({"do": "print", "log": "a warning"}, on_line=lines.append)
    assert lines == ["a warning", "a library prints"]
    assert [event["event"] for event in events] == ["begun", "done"]


def test_further_requests_are_answered() -> None:
    with WorkerProcess(MODULE, {"do": "answer"}) as worker:
        for number in range(3):
            worker.send(number=number)
            assert worker.follow(cancel=threading.Event())["double"] == 2 * number
    assert not running()


def test_a_request_may_be_longer_than_a_command_line() -> None:
    assert follow({"do": "count", "to": 0, "long": "x" * 500_000})


def test_memory_is_an_event_at_each_interval() -> None:
    cancel, sizes = threading.Event(), []

    def note(event: Event) -> None:
        if event["event"] == "memory":
            sizes.append(event["memory"].rss_bytes)
            if len(sizes) > 5 and sizes[-1] > 5 * MIB:
                cancel.set()

    with pytest.raises(StoppedError):
        follow({"do": "sleep"}, note, cancel=cancel, memory_interval_s=0.01)


def test_the_workers_error_keeps_its_class() -> None:
    with pytest.raises(UnknownDeviceError, match=r"^There is none\.$"):
        follow({"do": "fail", "type": "UnknownDeviceError", "message": "There is none."})


def test_a_librarys_exception_is_described_in_one_line() -> None:
    with pytest.raises(GenerationError, match=r"^RuntimeError: two lines$"):
        follow({"do": "fail", "type": "none", "message": "two\nlines"})


def test_only_paddocks_errors_are_raised_by_name() -> None:
    assert type(error_from_json("UnknownDeviceError", "no")) is UnknownDeviceError
    assert type(error_from_json("ValueError", "no")) is GenerationError
    assert str(error_from_json("Path", "a sentence")) == "a sentence"


# Secrets


def test_secrets_of_the_environment_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PADDOCK_DATABASE_URL"):
        monkeypatch.setenv(name, "hunter2")
    seen = follow({"do": "count", "to": 0})[0]["environment"]
    assert "hunter2" not in seen.values() and seen["HF_HUB_OFFLINE"] == "1"
    given = {**os.environ, "HF_TOKEN": "needed"}
    assert follow({"do": "count", "to": 0}, environment=given)[0]["environment"]["HF_TOKEN"]


def test_a_secret_is_hidden_in_log_errors_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    failing = {"do": "fail", "type": "HubError", "message": "No hunter2.", "log": "got hunter2"}
    with pytest.raises(PaddockError, match=r"^No •••\.$"):
        follow(failing, secret="hunter2", on_line=lines.append)
    assert lines == ["got •••"]
    with pytest.raises(WorkerDied, match=r"^no right for •••$"):
        follow({"do": "exit", "log": "no right for hunter2"}, secret="hunter2")
    assert "hunter2" not in caplog.text


def test_the_request_is_no_argument() -> None:
    with WorkerProcess(MODULE, {"do": "answer", "log": "private"}) as worker:
        worker.send(number=1)
        worker.follow(cancel=threading.Event())
        seen = psutil.Process(running()[0]).cmdline()
    assert MODULE in seen and "private" not in " ".join(seen)


# Cancellation


def test_cancel_kills_the_worker_and_its_children() -> None:
    cancel, pids = threading.Event(), []

    def stop(event: Event) -> None:
        if event["event"] == "child":
            pids.append(event["pid"])
            cancel.set()

    with pytest.raises(StoppedError, match=r"^Stopped\.$"):
        follow({"do": "children"}, stop, cancel=cancel)
    eventually(lambda: has_ended(pids[0]))


def test_an_exception_of_the_listener_ends_the_worker() -> None:
    def fail(event: Event) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        follow({"do": "sleep"}, fail)


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
def test_ctrl_c_in_a_terminal_reaches_only_the_parent() -> None:
    def interrupt(event: Event) -> None:
        if event["event"] == "begun":
            assert os.getpgid(event["pid"]) != os.getpgid(0)
            os.kill(event["pid"], signal.SIGINT)

    # So many events that the worker cannot write them all before the first is read.
    assert follow({"do": "count", "to": 20_000}, interrupt)[-1] == {"event": "done"}


# Death


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_death_by_a_signal_is_named(name: str) -> None:
    number = getattr(signal, name).value
    with pytest.raises(
        WorkerDied, match=f"^killed by signal {number}, possibly because memory ran out$"
    ) as caught:
        follow({"do": "kill", "signal": name, "log": "something else"})
    assert (caught.value.signal, caught.value.out_of_memory) == (number, False)


def test_the_reason_of_an_exit_is_the_last_line_of_the_log() -> None:
    with pytest.raises(WorkerDied, match=r"^terminate called: std::bad_alloc$") as caught:
        follow({"do": "exit", "log": "first\nterminate called: std::bad_alloc"})
    assert caught.value.signal is None and caught.value.out_of_memory
    with pytest.raises(WorkerDied, match=r"^exit code 3$"):
        follow({"do": "exit"})


def test_an_end_in_the_middle_of_a_line_is_an_end() -> None:
    with pytest.raises(WorkerDied, match=r"^exit code 0$"):
        follow({"do": "half"})


def test_a_module_that_cannot_start_is_an_end() -> None:
    with WorkerProcess("core.no_such_module", {}) as worker, pytest.raises(WorkerDied) as caught:
        worker.follow(cancel=threading.Event())
    with pytest.raises(WorkerDied):  # again
        worker.follow(cancel=threading.Event())
    assert "No module named core.no_such_module" in str(caught.value)


def test_silence_is_ended_even_if_its_memory_is_watched() -> None:
    with pytest.raises(WorkerSilent):
        follow({"do": "sleep"}, silence_s=5.0, memory_interval_s=0.05)


def test_exceeded_memory_limit_ends_the_worker() -> None:
    with pytest.raises(WorkerDied, match="memory limit") as caught:
        follow(
            {"do": "take", "bytes": 500 * MIB},
            memory_interval_s=0.02,
            memory_limit_bytes=300 * MIB,
        )
    assert caught.value.out_of_memory and caught.value.signal is None


def test_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import threading\n"
        "from core.workers.process import WorkerProcess\n"
        f"with WorkerProcess({MODULE!r}, {{'do': 'sleep'}}) as worker:\n"
        "    say = lambda event: print(event['pid'], flush=True)\n"
        "    worker.follow(say, cancel=threading.Event())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        parent.kill()
    eventually(lambda: has_ended(pid))
