"""The download thread and the thread that waits for it: stopping, errors, reported progress."""

from __future__ import annotations

import threading
import time

import pytest

from core.errors import StoppedError
from core.store.progress import Transfer
from core.store.transfer import DownloadState, run_in_thread


def never_stop() -> None:
    """The user does not stop."""


def ignore(_message: str, _transfer: Transfer | None) -> None:
    """Progress is not shown."""


def test_result_and_failure_come_from_the_thread() -> None:
    worker = run_in_thread(lambda _state: threading.current_thread(), ignore, never_stop)
    assert worker is not threading.current_thread()

    def fail(_state: DownloadState) -> None:
        raise LookupError("as it was raised")

    with pytest.raises(LookupError, match="as it was raised"):
        run_in_thread(fail, ignore, never_stop)


def test_stop_before_the_start_starts_nothing() -> None:
    begun = threading.Event()

    def stop() -> None:
        raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        run_in_thread(lambda _state: begun.set(), ignore, stop)
    assert not begun.wait(0.2)


def test_stopped_thread_changes_nothing_any_more() -> None:
    changes: list[float] = []
    begun = threading.Event()

    def work(state: DownloadState) -> None:
        for _ in range(2_000):  # does not check whether it is stopped
            with state.writing():
                changes.append(time.monotonic())
            begun.set()
            time.sleep(0.001)

    def stop() -> None:
        if begun.is_set():
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        run_in_thread(work, ignore, stop)
    count = len(changes)
    time.sleep(0.1)
    assert 0 < count == len(changes) < 2_000


def test_stop_waits_for_a_change_under_way() -> None:
    inside, log = threading.Event(), []

    def work(state: DownloadState) -> None:
        with state.writing():
            inside.set()
            time.sleep(0.3)
            log.append("changed")

    def stop() -> None:
        if inside.is_set():
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        run_in_thread(work, ignore, stop)
    assert log == ["changed"]


def test_thread_that_hangs_is_abandoned() -> None:
    released = threading.Event()
    began = time.monotonic()

    def stop() -> None:
        if time.monotonic() - began > 0.2:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        run_in_thread(lambda _state: released.wait(30), ignore, stop)
    assert time.monotonic() - began < 20
    released.set()


def test_wait_ends_when_stopped() -> None:
    ended = threading.Event()
    began = time.monotonic()

    def work(state: DownloadState) -> None:
        try:
            state.wait(30)
        finally:
            ended.set()

    def stop() -> None:
        if time.monotonic() - began > 0.2:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        run_in_thread(work, ignore, stop)
    assert ended.wait(20)


def test_rate_counts_received_bytes_and_not_those_of_an_earlier_attempt() -> None:
    reported: list[Transfer] = []

    def work(state: DownloadState) -> None:
        state.message, state.total = "Downloading.", 11_000_000
        for step in range(1, 16):
            state.received += 100_000
            state.set_size("file", 5_000_000 + step * 100_000)
            time.sleep(0.1)
        time.sleep(1.5)  # nothing is received, which is reported too

    run_in_thread(work, lambda _message, transfer: reported.append(transfer), never_stop)
    assert reported[0].rate is None and reported[0].seconds_left is None
    rates = [transfer.rate for transfer in reported if transfer.rate is not None]
    assert 200_000 < max(rates) < 1_500_000
    assert rates[-1] < max(rates)
    assert reported[-1].done == 6_500_000
