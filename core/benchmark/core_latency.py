"""Measures core-to-core latency: ``python -m core.benchmark.core_latency``.

The threads that share a matrix multiplication synchronise hundreds of times per token, so for a
small model this latency is much of the time per token. On bare metal it is constant. On a virtual
machine the host may move virtual cores, every few seconds, between processors that share a cache
and processors that share none: the latency is then 33 ns or 165 ns, and the same model generates
2,540 tokens/s or 1,660. Inside the virtual machine nothing but this measurement shows it.

It is measured in Python: two processes, each bound to a core, answer each other through shared
memory. The interpreter's own time, about 80 ns, is included, so compare the figure only with
others of the same machine.
"""

from __future__ import annotations

import inspect
import logging
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from statistics import fmean
from typing import IO

log = logging.getLogger(__name__)

MAX_CORES = 8
"""Number of cores that are measured, each with the next; the result is their mean."""

BATCH = 300
"""Round trips that are timed together."""

BATCHES = 5
"""Batches per pair of cores. The fastest counts, since disturbances only make a batch slower."""

TIMEOUT_S = 0.1
"""Longest wait for the other process, so that a machine whose cores are all busy costs no time."""

RESPONSE_OFFSET = 128
"""Byte of the responses: in another cache line than byte 0, and not prefetched together with it."""

STOP = 255
"""Value that ends the responder's loop."""

_FIRST = STOP - 1
"""Value of the first, untimed round trip; timed ones use lower values."""

_CLOCK_EVERY = 1024
"""Polls without a response after which the clock is read."""


def _respond(descriptor: int, offset: int, stop: int) -> None:
    """Copy each value at byte 0 of the shared memory to ``offset``, until standard input ends.

    Runs in the other process, from its source text alone: without Paddock's imports the process
    starts at once and stays small. Each line of standard input is a core to bind to and respond
    on until the value ``stop``, or for half a second in case the measuring process has died.
    """
    import mmap
    import os
    import sys
    import time

    with mmap.mmap(descriptor, mmap.PAGESIZE) as shared:
        for line in sys.stdin:
            os.sched_setaffinity(0, {int(line)})
            ends, polls, last = time.monotonic() + 0.5, 0, 0
            while last != stop:
                value = shared[0]
                if value != last:
                    shared[offset] = last = value
                polls += 1
                if not polls % 4096 and time.monotonic() > ends:
                    break


class CoreLatency(ExitStack):
    """Context manager that measures the latency repeatedly, with one other process."""

    def __init__(self) -> None:
        super().__init__()
        self._cores = _allowed_cores()[:MAX_CORES]
        self._shared: mmap.mmap
        self._commands: IO[bytes] | None = None

    def __enter__(self) -> CoreLatency:
        if len(self._cores) > 1:
            try:
                self._start()
            except OSError as error:  # no memory or process left: a measurement works without it
                self.close()
                log.warning("Core-to-core latency is not measured: %s", error)
        return self

    def nanoseconds(self) -> float | None:
        """Return the mean one-way latency, in one or two milliseconds for each pair of cores.

        Returns:
            None if it cannot be measured: a single core, busy cores, or an operating system that
            does not bind threads to cores.
        """
        found = []
        for here, there in pairwise(self._cores):
            latency = self._between(here, there)
            if latency is None:
                return None
            found.append(latency)
        return fmean(found) if found else None

    def _start(self) -> None:
        # Anonymous memory: a killed process leaves no file behind.
        memory = os.memfd_create("core-latency")
        self.callback(os.close, memory)
        os.ftruncate(memory, mmap.PAGESIZE)
        self._shared = self.enter_context(mmap.mmap(memory, mmap.PAGESIZE))
        code = f"{inspect.getsource(_respond)}\n_respond({memory}, {RESPONSE_OFFSET}, {STOP})"
        responder = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(memory,),
        )
        self.callback(self._end, responder)
        self._commands = responder.stdin

    def _end(self, responder: subprocess.Popen[bytes]) -> None:
        self._commands = None
        responder.kill()
        responder.communicate()  # closes the pipe, and leaves no zombie

    def _between(self, here: int, there: int) -> float | None:
        if self._commands is None:
            return None
        try:
            self._shared[0] = self._shared[RESPONSE_OFFSET] = 0
            self._commands.write(b"%d\n" % there)
            self._commands.flush()
            with _bound_to(here):
                self._round_trip(_FIRST)
                return min(self._batch() for _ in range(BATCHES))
        except TimeoutError:
            return None
        except OSError as error:  # the other process has ended
            log.warning("Core-to-core latency is no longer measured: %s", error)
            self._commands = None
            return None
        finally:
            with suppress(TimeoutError):
                self._round_trip(STOP)

    def _batch(self) -> float:
        """Return the one-way latency of one batch in nanoseconds."""
        shared, polls = self._shared, 0
        started = time.perf_counter()
        for number in range(BATCH):
            value = 1 + number % (_FIRST - 1)
            shared[0] = value
            while shared[RESPONSE_OFFSET] != value:  # inline: a call takes as long as the latency
                polls += 1
                if polls > _CLOCK_EVERY:
                    polls = 0
                    _check_timeout(started)
        return 1e9 * (time.perf_counter() - started) / BATCH / 2

    def _round_trip(self, value: int) -> None:
        """Send a value and wait for it to come back.

        Raises:
            TimeoutError: there was no response.
        """
        shared, started = self._shared, time.perf_counter()
        shared[0] = value
        while shared[RESPONSE_OFFSET] != value:
            _check_timeout(started)


def _check_timeout(started: float) -> None:
    if time.perf_counter() - started > TIMEOUT_S:
        raise TimeoutError("the other core does not respond")


@contextmanager
def _bound_to(core: int) -> Iterator[None]:
    """Bind this thread to a core for the duration of the ``with`` block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _allowed_cores() -> list[int]:
    """Return the cores this thread may run on; empty if it cannot be bound to one."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


def main() -> None:
    """Print twenty measurements within a second."""
    with CoreLatency() as latency:
        for _ in range(20):
            found = latency.nanoseconds()
            print("not measured" if found is None else f"{found:.0f} ns")
            time.sleep(0.05)


if __name__ == "__main__":
    main()
