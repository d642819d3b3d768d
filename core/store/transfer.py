"""Run a download in a thread of its own, so that the caller can stop it at any moment.

A read from a slow server cannot be interrupted, and the Stop button must not wait for it: the
thread is abandoned, and from then on changes nothing on disk.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from core.store.progress import Transfer

if TYPE_CHECKING:
    import httpx

_POLL_S = 0.1
"""Interval at which the calling thread checks whether to stop."""
_RATE_WINDOW_S = 5.0
_RATE_FIRST_S = 1.0
"""No rate is reported before this time has passed."""
_GRACE_S = 0.3
"""Time to wait for a stopped thread; after that it can do no harm."""

T = TypeVar("T")


class Cancelled(Exception):
    """The download was stopped; ends the work of its thread."""


class DownloadState:
    """State shared by the thread that downloads and the thread that waits for it."""

    def __init__(self) -> None:
        self.message = ""
        """Current step, shown to the user."""
        self.total = 0
        """Bytes of all files; 0 until the hub has listed them."""
        self.received = 0
        """Bytes received over the network in this attempt."""
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._response: httpx.Response | None = None

    @property
    def done(self) -> int:
        """Bytes on disk."""
        return sum(list(self._sizes.values()))

    def set_size(self, name: str, size: int) -> None:
        """Record how many bytes of a file are on disk."""
        self._sizes[name] = size

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock for every change on disk; after :meth:`stop` nothing is changed.

        Raises:
            Cancelled: the download was stopped.
        """
        with self._lock:
            if self._stopped.is_set():
                raise Cancelled
            yield

    def wait(self, seconds: float) -> None:
        """Wait, and raise ``Cancelled`` as soon as the download is stopped."""
        if self._stopped.wait(seconds):
            raise Cancelled

    @contextmanager
    def receiving(self, response: httpx.Response) -> Iterator[None]:
        """Let :meth:`stop` close the connection of this response."""
        with self.writing():
            self._response = response
        try:
            yield
        finally:
            self._response = None

    def stop(self) -> None:
        """Stop the download; when this returns, its thread changes nothing on disk any more."""
        with self._lock:
            self._stopped.set()
            response = self._response
        stream = response.extensions.get("network_stream") if response else None
        connection = stream.get_extra_info("socket") if stream else None
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)  # ends a read that waits for the server
            except OSError:
                return


def run_in_thread(
    work: Callable[[DownloadState], T],
    report: Callable[[str, Transfer | None], None],
    check_stop: Callable[[], None],
) -> T:
    """Run ``work`` in a thread, report progress several times a second, and return its result.

    Args:
        work: downloads, and updates the state that it is given.
        report: called with each change, from the calling thread.
        check_stop: called ten times a second; raises if the download shall be stopped.

    Raises:
        BaseException: whatever ``work``, ``report`` or ``check_stop`` raised; the work has ended.
    """
    state = DownloadState()
    results: list[T] = []
    failures: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            results.append(work(state))
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="paddock-download", daemon=True)
    reporter = _Reporter(state, report)
    check_stop()
    thread.start()
    try:
        while not ended.wait(_POLL_S):
            check_stop()
            reporter.update()
        reporter.update(last=True)
    finally:
        state.stop()
        thread.join(_GRACE_S)
    if failures:
        raise failures[0]
    return results[0]


class _Reporter:
    """Measures the rate and reports changes."""

    _INTERVAL_S = 0.25
    _LONGEST_INTERVAL_S = 1.0

    def __init__(
        self, state: DownloadState, report: Callable[[str, Transfer | None], None]
    ) -> None:
        self._state = state
        self._report = report
        self._samples: deque[tuple[float, int]] = deque()
        self._reported: tuple[str, int] = ("", -1)
        self._reported_at = float("-inf")

    def update(self, *, last: bool = False) -> None:
        state, now = self._state, time.monotonic()
        if not state.message or (not last and now - self._reported_at < self._INTERVAL_S):
            return
        current = (state.message, state.done)
        transfer = self._transfer(now) if state.total else None
        recent = now - self._reported_at < self._LONGEST_INTERVAL_S
        if current == self._reported and (last or recent):
            return
        self._reported, self._reported_at = current, now
        self._report(state.message, transfer)

    def _transfer(self, now: float) -> Transfer:
        samples = self._samples
        samples.append((now, self._state.received))
        while now - samples[0][0] > _RATE_WINDOW_S:
            samples.popleft()
        (began, before), (_, after) = samples[0], samples[-1]
        seconds = now - began
        rate = (after - before) / seconds if seconds >= _RATE_FIRST_S else None
        return Transfer(self._state.done, self._state.total, rate)
