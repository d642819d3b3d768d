"""Starts the worker, hears it out, watches its memory, and says in a sentence how it ended."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import psutil

from core.errors import GenerationError, NotEnoughMemoryError, PaddockError, StoppedError
from core.hardware.devices import ProcessMemory, process_memory
from core.runtimes.serialization import OUT_OF_MEMORY_SIGNS, error_from_json
from core.units import bytes_text
from core.workers.process import ChildEnded, ChildProcess

WORKER = "core.benchmark.worker"

OnProgress = Callable[[str, float | None], None]
"""Told what is happening, as a sentence, and how much of it is done (0 to 1, None: unknown)."""

SILENCE_S = 900.0
"""How long the worker may say nothing. Loading and warming up are the longest steps without a
word: minutes for twelve billion parameters on a slow disk."""

MEMORY_INTERVAL_S = 0.025
"""How often the worker's memory is looked at; each look takes about 0.1 ms of one core."""

_POLL_S = 0.05
"""How often is looked whether it was cancelled."""

_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PADDOCK_DATABASE_URL")
"""Variables that a process which only measures has no use for."""

_KILLED = 9
"""SIGKILL, by which Linux ends processes when memory runs out, and people those they are tired of.
"""


class MemoryWatch:
    """Samples another process's memory from a thread of its own, as a context manager.

    Peaks are kept by phase: see :meth:`enter`. They are of that process alone; those it starts are
    not in them, and the worker starts none.
    """

    def __init__(self, pid: int, limit_bytes: int | None = None) -> None:
        self.over_limit = threading.Event()
        """Set when the private memory has passed the limit."""
        self._pid = pid
        self._limit = limit_bytes
        self._phase: int | None = None
        self._peaks: dict[int | None, ProcessMemory] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch worker", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def enter(self, phase: int | None) -> None:
        """From now on the samples belong to this phase; None is loading."""
        self._phase = phase

    def add(self, memory: ProcessMemory) -> None:
        """Take a reading that somebody else made into the present phase."""
        with self._lock:
            before = self._peaks.get(self._phase, ProcessMemory(0, 0, 0))
            self._peaks[self._phase] = _highest(before, memory)

    def peak(self, phase: int) -> ProcessMemory:
        """Highest of each kind while loading and in this phase, not in the other ones."""
        nothing = ProcessMemory(0, 0, 0)
        with self._lock:
            return _highest(self._peaks.get(None, nothing), self._peaks.get(phase, nothing))

    def _run(self) -> None:
        while not self._ended.wait(MEMORY_INTERVAL_S):
            with suppress(psutil.Error):  # it has just ended
                now = process_memory(self._pid)
                self.add(now)
                if self._limit is not None and now.private_bytes > self._limit:
                    self.over_limit.set()


def run_worker(
    request: Mapping[str, Any],
    on_event: Callable[[dict[str, Any], MemoryWatch], None],
    *,
    label: str,
    on_progress: OnProgress,
    cancel: threading.Event,
    memory_limit_bytes: int | None,
    silence_s: float = SILENCE_S,
) -> None:
    """Run the worker on one request to its end. Blocks.

    Args:
        request: see :mod:`core.benchmark.worker`; the limit is added.
        on_event: receives all but ``progress``, ``error`` and ``done``.
        label: names in sentences what is measured.

    Raises:
        StoppedError, NotEnoughMemoryError, PaddockError: see
            :func:`core.benchmark.child.measure_in_process`.
    """
    whole = {**request, "memory_limit_bytes": memory_limit_bytes}
    child = ChildProcess(WORKER, (), _environment(), first_line=json.dumps(whole))
    try:
        with MemoryWatch(child.pid, memory_limit_bytes) as watch:
            _follow(child, watch, on_event, label, on_progress, cancel, silence_s)
    except ChildEnded:
        child.end()
        raise _sudden_end(child, label, memory_limit_bytes) from None
    except _OverLimit:
        raise _over_limit(label, memory_limit_bytes) from None
    except NotEnoughMemoryError as error:
        if memory_limit_bytes is None:
            raise
        raise _over_limit(label, memory_limit_bytes) from error
    finally:
        child.end()


class _OverLimit(Exception):
    pass


def _follow(
    child: ChildProcess,
    watch: MemoryWatch,
    on_event: Callable[[dict[str, Any], MemoryWatch], None],
    label: str,
    on_progress: OnProgress,
    cancel: threading.Event,
    silence_s: float,
) -> None:
    spoke_at = time.monotonic()
    while True:
        if cancel.is_set():
            raise StoppedError(f"Stopped while {label} was measured.")
        if watch.over_limit.is_set():
            raise _OverLimit
        event = child.next_event(_POLL_S)
        now = time.monotonic()
        if event is None:
            if now - spoke_at > silence_s:
                raise GenerationError(
                    f"The process that measured {label} said nothing for "
                    f"{silence_s / 60:.0f} minutes and was ended; measure it again, with fewer "
                    "tokens if it is merely slow."
                )
            continue
        spoke_at = now
        match event.get("event"):
            case "progress":
                on_progress(event["message"], event["fraction"])
            case "error":
                raise error_from_json(event["type"], event["message"])
            case "done":
                return
            case str():
                on_event(event, watch)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    # Everything it needs lies in the folder it is given.
    return kept | {"HF_HUB_OFFLINE": "1"}


def _sudden_end(child: ChildProcess, label: str, limit: int | None) -> PaddockError:
    """What to say of a worker that ended without a last word."""
    how = child.exit_reason()
    code = child.exit_code or 0
    starved = any(sign in line.lower() for line in child.log for sign in OUT_OF_MEMORY_SIGNS)
    if limit is not None and (starved or (code < 0 and code != -_KILLED)):
        return _over_limit(label, limit)
    if starved:
        return NotEnoughMemoryError(
            f"The memory ran out while {label} was measured; close other programs, or choose a "
            "lower precision or a smaller model."
        )
    if code == -_KILLED:
        return GenerationError(
            f"The process that measured {label} was killed by signal 9, perhaps for want of "
            "memory; close other programs, or choose a lower precision or a smaller model."
        )
    return GenerationError(
        f"The process that measured {label} ended unexpectedly ({how}); measure it again."
    )


def _over_limit(label: str, limit: int | None) -> NotEnoughMemoryError:
    return NotEnoughMemoryError(
        f"{label} needs more than the {bytes_text(limit or 0)} of memory that one measurement was "
        "allowed; raise the limit, or choose a lower precision or a smaller model."
    )


def _highest(one: ProcessMemory, other: ProcessMemory) -> ProcessMemory:
    return ProcessMemory(
        max(one.private_bytes, other.private_bytes),
        max(one.file_backed_bytes, other.file_backed_bytes),
        max(one.rss_bytes, other.rss_bytes),
    )
