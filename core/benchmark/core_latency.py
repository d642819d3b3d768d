"""How long a word takes from one processor core to another: ``python -m`` this module.

The threads that share a multiplication hand over to each other hundreds of times a token, so for a
small model that time is much of the token's. On bare metal it never changes. On a virtual machine
the host may move virtual cores between processors that share a cache and such that share none,
every few seconds: a word then takes 33 ns or 165, and the same model answers at 2,540 tokens/s or
at 1,660. Nothing inside the virtual machine tells of it but this measurement.

Python measures it: two processes, each bound to a core, answer each other through shared memory.
The interpreter's own time, some 80 ns, is in the figure, which is therefore to be compared with
others of the same machine alone.
"""

from __future__ import annotations

import logging
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import IO

from core.benchmark.core_latency_echo import ANSWER_AT, STOP

log = logging.getLogger(__name__)

MOST_CORES = 8
"""Among which it is measured, each to the next; the mean counts."""

BATCH = 300
"""Words there and back that are timed together."""

BATCHES = 5
"""The fastest counts: whatever disturbs one only makes it slower."""

PATIENCE_S = 0.1
"""For the other side to take part; a machine whose cores are all busy is not waited for."""

_HELLO = STOP - 1
"""The first word; those that are timed lie below."""

_LOOK_AT_CLOCK = 1024
"""Turns in vain after which the clock is looked at."""


class CoreDistance:
    """Measures it again and again with one other process, as a context manager."""

    def __init__(self) -> None:
        self._cores = _allowed_cores()[:MOST_CORES]
        self._stack = ExitStack()
        self._shared: mmap.mmap
        self._ears: IO[bytes] | None = None

    def __enter__(self) -> CoreDistance:
        if len(self._cores) > 1:
            try:
                with ExitStack() as stack:
                    self._start(stack)
                    self._stack = stack.pop_all()
            except OSError as error:  # no room for memory or a process: it is only a condition
                log.warning("the cores' distance is not measured: %s", error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ears = None
        self._stack.close()

    def nanoseconds(self) -> float | None:
        """A word's way from a core to the next, in a millisecond or two for each pair of cores.

        Returns:
            None where it cannot be told: a single core, cores that are busy, or a system that
            binds no thread to a core.
        """
        found = []
        for here, there in pairwise(self._cores):
            time_of_pair = self._between(here, there)
            if time_of_pair is None:
                return None
            found.append(time_of_pair)
        return fmean(found) if found else None

    def _start(self, stack: ExitStack) -> None:
        # Memory without a name: a process that is killed leaves no file behind.
        words = os.memfd_create("words")
        stack.callback(os.close, words)
        os.ftruncate(words, mmap.PAGESIZE)
        shared = stack.enter_context(mmap.mmap(words, mmap.PAGESIZE))
        script = Path(__file__).with_name("core_latency_echo.py")
        echo = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(words,),
        )
        stack.callback(_end, echo)
        self._shared, self._ears = shared, echo.stdin

    def _between(self, here: int, there: int) -> float | None:
        if self._ears is None:
            return None
        try:
            self._shared[0] = self._shared[ANSWER_AT] = 0
            self._ears.write(b"%d\n" % there)
            self._ears.flush()
            with _bound_to(here):
                self._say(_HELLO)
                return min(self._batch() for _ in range(BATCHES))
        except TimeoutError:
            return None
        except OSError as error:  # the other process is gone
            log.warning("the cores' distance is not measured any more: %s", error)
            self._ears = None
            return None
        finally:
            with suppress(TimeoutError):
                self._say(STOP)

    def _batch(self) -> float:
        """Nanoseconds of a word's way in one batch."""
        shared, turns = self._shared, 0
        started = time.perf_counter()
        for number in range(BATCH):
            word = 1 + number % (_HELLO - 1)
            shared[0] = word
            while shared[ANSWER_AT] != word:  # written out: a call would take as long as the word
                turns += 1
                if turns > _LOOK_AT_CLOCK:
                    turns = 0
                    _check(started)
        return 1e9 * (time.perf_counter() - started) / BATCH / 2

    def _say(self, word: int) -> None:
        """Say a word and hear it back.

        Raises:
            TimeoutError: nobody answers.
        """
        shared, started = self._shared, time.perf_counter()
        shared[0] = word
        while shared[ANSWER_AT] != word:
            _check(started)


def _check(started: float) -> None:
    """
    Raises:
        TimeoutError: it has lasted too long since ``started``.
    """
    if time.perf_counter() - started > PATIENCE_S:
        raise TimeoutError("the other core does not answer")


def _end(echo: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        echo.kill()
    echo.communicate()  # closes the pipe, and leaves no zombie


@contextmanager
def _bound_to(core: int) -> Iterator[None]:
    """Keep this thread on a core for the length of the ``with`` block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _allowed_cores() -> list[int]:
    """Those that this thread may run on; empty where it cannot be bound to one of them."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


def main() -> None:
    """Print it twenty times within a second."""
    with CoreDistance() as distance:
        for _ in range(20):
            found = distance.nanoseconds()
            print("not to be told" if found is None else f"{found:.0f} ns")
            time.sleep(0.05)


if __name__ == "__main__":
    main()
