"""The thread that fetches, and the one that waits: who ends whom, and what is told meanwhile."""

from __future__ import annotations

import threading
import time

import pytest

from core.errors import StoppedError
from core.store.progress import Transfer
from core.store.transfer import Courier, carry_out


def nobody_asks() -> None:
    """Nobody wants to stop."""


def tell_nobody(_message: str, _transfer: Transfer | None) -> None:
    """Nobody wants to know."""


def test_result_and_failure_come_from_the_thread() -> None:
    worker = carry_out(lambda _courier: threading.current_thread(), tell_nobody, nobody_asks)
    assert worker is not threading.current_thread()

    def fail(_courier: Courier) -> None:
        raise LookupError("as it was raised")

    with pytest.raises(LookupError, match="as it was raised"):
        carry_out(fail, tell_nobody, nobody_asks)


def test_stop_before_the_start_starts_nothing() -> None:
    begun = threading.Event()

    def stop() -> None:
        raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        carry_out(lambda _courier: begun.set(), tell_nobody, stop)
    assert not begun.wait(0.2)


def test_stopped_thread_changes_nothing_any_more() -> None:
    changes: list[float] = []
    begun = threading.Event()

    def work(courier: Courier) -> None:
        for _ in range(2_000):  # does not look whether it is stopped
            with courier.guard():
                changes.append(time.monotonic())
            begun.set()
            time.sleep(0.001)

    def stop() -> None:
        if begun.is_set():
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        carry_out(work, tell_nobody, stop)
    count = len(changes)
    time.sleep(0.1)
    assert 0 < count == len(changes) < 2_000


def test_stop_waits_for_a_change_under_way() -> None:
    inside, log = threading.Event(), []

    def work(courier: Courier) -> None:
        with courier.guard():
            inside.set()
            time.sleep(0.3)
            log.append("changed")

    def stop() -> None:
        if inside.is_set():
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        carry_out(work, tell_nobody, stop)
    assert log == ["changed"]


def test_thread_that_hangs_is_left_behind() -> None:
    let_go = threading.Event()
    began = time.monotonic()

    def stop() -> None:
        if time.monotonic() - began > 0.2:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        carry_out(lambda _courier: let_go.wait(30), tell_nobody, stop)
    assert time.monotonic() - began < 20
    let_go.set()


def test_rest_ends_when_stopped() -> None:
    ended = threading.Event()
    began = time.monotonic()

    def work(courier: Courier) -> None:
        try:
            courier.rest(30)
        finally:
            ended.set()

    def stop() -> None:
        if time.monotonic() - began > 0.2:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        carry_out(work, tell_nobody, stop)
    assert ended.wait(20)


def test_rate_is_of_what_came_and_not_of_what_was_there() -> None:
    told: list[Transfer] = []

    def work(courier: Courier) -> None:
        courier.message, courier.total = "Fetching.", 11_000_000
        for step in range(1, 16):
            courier.arrived += 100_000
            courier.note("file", 5_000_000 + step * 100_000)
            time.sleep(0.1)
        time.sleep(1.5)  # nothing comes, which is told too

    carry_out(work, lambda _message, transfer: told.append(transfer), nobody_asks)
    assert told[0].rate is None and told[0].seconds_left is None
    rates = [transfer.rate for transfer in told if transfer.rate is not None]
    assert 200_000 < max(rates) < 1_500_000
    assert rates[-1] < max(rates)
    assert told[-1].done == 6_500_000
