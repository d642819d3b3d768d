"""A thread that fetches, and the one that waits for it and may leave at any moment.

A read from a slow server cannot be interrupted, and a person's Stop must not wait for it: the
fetching is done in a thread of its own, which is let go of and changes nothing on disk any more.
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

_TICK_S = 0.1
"""How often the waiting thread looks whether it is to stop."""
_RATE_WINDOW_S = 5.0
_RATE_FIRST_S = 1.0
"""No rate is told before so much time has passed."""
_GRACE_S = 0.3
"""How long a stopped thread is waited for; it can do no harm after that."""

T = TypeVar("T")


class Halted(Exception):
    """The thread's work is not wanted any more."""


class Courier:
    """What the thread that fetches and the one that waits for it have in common."""

    def __init__(self) -> None:
        self.message = ""
        """What is being done, for the person."""
        self.total = 0
        """Bytes of all files; 0 until the hub has told."""
        self.arrived = 0
        """Bytes that came over the network in this attempt."""
        self._here: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._response: httpx.Response | None = None

    @property
    def done(self) -> int:
        """Bytes on disk."""
        return sum(list(self._here.values()))

    def note(self, name: str, size: int) -> None:
        """So many bytes of a file are on disk."""
        self._here[name] = size

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Hold whatever changes the disk in this block: after :meth:`stop` nothing does."""
        with self._lock:
            if self._stopped.is_set():
                raise Halted
            yield

    def rest(self, seconds: float) -> None:
        """Wait, unless stopped."""
        if self._stopped.wait(seconds):
            raise Halted

    @contextmanager
    def listening(self, response: httpx.Response) -> Iterator[None]:
        """Let :meth:`stop` close the connection of this answer."""
        with self.guard():
            self._response = response
        try:
            yield
        finally:
            self._response = None

    def stop(self) -> None:
        """End the work; when this returns, the thread changes nothing on disk any more."""
        with self._lock:
            self._stopped.set()
            response = self._response
        stream = response.extensions.get("network_stream") if response else None
        line = stream.get_extra_info("socket") if stream else None
        if line is not None:
            try:
                line.shutdown(socket.SHUT_RDWR)  # wakes a read that would wait for the server
            except OSError:
                return


def carry_out(
    work: Callable[[Courier], T],
    tell: Callable[[str, Transfer | None], None],
    stop_asked: Callable[[], None],
) -> T:
    """Do ``work`` in a thread, tell of it several times a second, and return what it returns.

    Args:
        work: does the fetching, with the courier it is given.
        tell: is told of changes, from the calling thread.
        stop_asked: called ten times a second; raises where the person has asked to stop.

    Raises:
        BaseException: what ``work``, ``tell`` or ``stop_asked`` raised. The work is over then.
    """
    courier = Courier()
    outcome: list[T] = []
    failures: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            outcome.append(work(courier))
        except Halted:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="paddock-download", daemon=True)
    gauge = _Gauge(courier, tell)
    stop_asked()
    thread.start()
    try:
        while not ended.wait(_TICK_S):
            stop_asked()
            gauge.tell()
        gauge.tell(last=True)
    finally:
        courier.stop()
        thread.join(_GRACE_S)
    if failures:
        raise failures[0]
    return outcome[0]


class _Gauge:
    """Measures the rate and passes on what is new."""

    _EVERY_S = 0.25
    _AT_LEAST_EVERY_S = 1.0

    def __init__(self, courier: Courier, tell: Callable[[str, Transfer | None], None]) -> None:
        self._courier = courier
        self._tell = tell
        self._samples: deque[tuple[float, int]] = deque()
        self._told: tuple[str, int] = ("", -1)
        self._told_at = float("-inf")

    def tell(self, *, last: bool = False) -> None:
        courier, now = self._courier, time.monotonic()
        if not courier.message or (not last and now - self._told_at < self._EVERY_S):
            return
        state = (courier.message, courier.done)
        transfer = self._transfer(now) if courier.total else None
        if state == self._told and (last or now - self._told_at < self._AT_LEAST_EVERY_S):
            return
        self._told, self._told_at = state, now
        self._tell(courier.message, transfer)

    def _transfer(self, now: float) -> Transfer:
        samples = self._samples
        samples.append((now, self._courier.arrived))
        while now - samples[0][0] > _RATE_WINDOW_S:
            samples.popleft()
        (began, before), (_, after) = samples[0], samples[-1]
        seconds = now - began
        rate = (after - before) / seconds if seconds >= _RATE_FIRST_S else None
        return Transfer(self._courier.done, self._courier.total, rate)
