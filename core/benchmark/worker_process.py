"""Starts the worker, processes its events, watches its memory, and reports how it ended."""

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
"""Receives a sentence about the current step, and the finished share (0 to 1, or None if
unknown)."""

SILENCE_S = 900.0
"""Timeout for a worker that sends nothing. Loading and warm-up are the longest steps without an
event: minutes for twelve billion parameters on a slow disk."""

MEMORY_INTERVAL_S = 0.025
"""Interval of reading the worker's memory; each reading takes about 0.1 ms of one core."""

_POLL_S = 0.05
"""Interval of checks for cancellation."""

_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PADDOCK_DATABASE_URL")
"""Environment variables that a measuring process does not need."""

_KILLED = 9
"""SIGKILL, which Linux sends when memory runs out, and which users send, too."""


class MemoryWatch:
    """Context manager that samples another process's memory in its own thread.

    Peaks are kept by phase: see :meth:`enter`. They are those of that process without its children;
    the worker starts none.
    """

    def __init__(self, pid: int, limit_bytes: int | None = None) -> None:
        self.over_limit = threading.Event()
        """Set when the private memory exceeds the limit."""
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
        """Start a phase, to which samples belong from now on; None is loading."""
        self._phase = phase

    def add(self, memory: ProcessMemory) -> None:
        """Add a reading from elsewhere to the current phase."""
        with self._lock:
            before = self._peaks.get(self._phase, ProcessMemory(0, 0, 0))
            self._peaks[self._phase] = _highest(before, memory)

    def peak(self, phase: int) -> ProcessMemory:
        """Return the maximum of each kind during loading and this phase, without other phases."""
        nothing = ProcessMemory(0, 0, 0)
        with self._lock:
            return _highest(self._peaks.get(None, nothing), self._peaks.get(phase, nothing))

    def _run(self) -> None:
        while not self._ended.wait(MEMORY_INTERVAL_S):
            with suppress(psutil.Error):  # the process has just ended
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
    """Run the worker on one request until it ends. Blocks.

    Args:
        request: see :mod:`core.benchmark.worker`; the limit is added.
        on_event: receives all events except ``progress``, ``error`` and ``done``.
        label: name of the configuration in error texts.

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
    heard_at = time.monotonic()
    while True:
        if cancel.is_set():
            raise StoppedError(f"Stopped while measuring {label}.")
        if watch.over_limit.is_set():
            raise _OverLimit
        event = child.next_event(_POLL_S)
        now = time.monotonic()
        if event is None:
            if now - heard_at > silence_s:
                raise GenerationError(
                    f"The process that measured {label} did not respond for {silence_s / 60:.0f} "
                    "minutes and was ended. Measure it again, with fewer tokens if it is only slow."
                )
            continue
        heard_at = now
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
    # Everything it needs is in the given folder.
    return kept | {"HF_HUB_OFFLINE": "1"}


def _sudden_end(child: ChildProcess, label: str, limit: int | None) -> PaddockError:
    """Return the error for a worker that ended without an event."""
    how = child.exit_reason()
    code = child.exit_code or 0
    starved = any(sign in line.lower() for line in child.log for sign in OUT_OF_MEMORY_SIGNS)
    if limit is not None and (starved or (code < 0 and code != -_KILLED)):
        return _over_limit(label, limit)
    if starved:
        return NotEnoughMemoryError(
            f"Out of memory while measuring {label}. Close other programs, or choose a lower "
            "precision or a smaller model."
        )
    if code == -_KILLED:
        return GenerationError(
            f"The process that measured {label} was killed by signal 9, possibly because memory "
            "ran out. Close other programs, or choose a lower precision or a smaller model."
        )
    return GenerationError(
        f"The process that measured {label} ended unexpectedly ({how}). Measure it again."
    )


def _over_limit(label: str, limit: int | None) -> NotEnoughMemoryError:
    return NotEnoughMemoryError(
        f"{label} needs more memory than the limit of {bytes_text(limit or 0)} for one "
        "measurement. Raise the limit, or choose a lower precision or a smaller model."
    )


def _highest(one: ProcessMemory, other: ProcessMemory) -> ProcessMemory:
    return ProcessMemory(
        max(one.private_bytes, other.private_bytes),
        max(one.file_backed_bytes, other.file_backed_bytes),
        max(one.rss_bytes, other.rss_bytes),
    )
