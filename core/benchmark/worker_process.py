"""Runs the benchmark's worker on one request, and names what was measured in its errors."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import GenerationError, NotEnoughMemoryError, PaddockError
from core.hardware.devices import ProcessMemory
from core.units import bytes_text
from core.workers.process import Event, WorkerDied, WorkerProcess, WorkerSilent

_WORKER = "core.benchmark.worker"

OnProgress = Callable[[str, float | None], None]
"""Receives a sentence about the current step, and the finished share (0 to 1, or None if
unknown)."""

SILENCE_S = 900.0
"""Timeout for a worker that sends nothing. Loading and warm-up are the longest steps without an
event: minutes for twelve billion parameters on a slow disk."""

_MEMORY_INTERVAL_S = 0.025
"""Interval of reading the worker's memory; each reading takes about 0.1 ms of one core."""

_SIGKILL = getattr(signal, "SIGKILL", 9)
"""Linux sends it when memory runs out, and users send it, too."""


class MemoryPeaks:
    """Peaks of the worker's memory by phase: see :meth:`enter`."""

    def __init__(self) -> None:
        self._phase: int | None = None
        self._peaks: dict[int | None, ProcessMemory] = {}

    def enter(self, phase: int | None) -> None:
        """Start a phase, to which readings belong from now on; None is loading."""
        self._phase = phase

    def add(self, memory: ProcessMemory) -> None:
        """Add a reading to the current phase."""
        self._peaks[self._phase] = _highest(self._of(self._phase), memory)

    def peak(self, phase: int) -> ProcessMemory:
        """Return the maximum of each kind during loading and this phase, without other phases."""
        return _highest(self._of(None), self._of(phase))

    def _of(self, phase: int | None) -> ProcessMemory:
        return self._peaks.get(phase, ProcessMemory(0, 0, 0))


def run_worker(
    request: Mapping[str, Any],
    on_event: Callable[[Event], None],
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
        on_event: receives all events except ``progress``, ``error`` and ``done``, and forty
            readings of its memory a second (see :class:`core.workers.process.WorkerProcess`).
        label: name of the configuration in error texts.

    Raises:
        StoppedError, NotEnoughMemoryError, PaddockError: see
            :func:`core.benchmark.child.measure_in_process`.
    """

    def pass_on(event: Event) -> None:
        if event["event"] == "progress":
            on_progress(event["message"], event["fraction"])
        else:
            on_event(event)

    whole = {**request, "memory_limit_bytes": memory_limit_bytes}
    try:
        with WorkerProcess(_WORKER, whole, memory_interval_s=_MEMORY_INTERVAL_S) as worker:
            worker.follow(
                pass_on,
                cancel=cancel,
                stopped=f"Stopped while measuring {label}.",
                silence_s=silence_s,
                memory_limit_bytes=memory_limit_bytes,
            )
    except WorkerSilent:
        raise GenerationError(
            f"The process that measured {label} did not respond for {silence_s / 60:.0f} "
            "minutes and was ended. Measure it again, with fewer tokens if it is only slow."
        ) from None
    except WorkerDied as death:
        raise _sudden_end(death, label, memory_limit_bytes) from None
    except NotEnoughMemoryError as error:
        if memory_limit_bytes is None:
            raise
        raise _over_limit(label, memory_limit_bytes) from error


def _sudden_end(death: WorkerDied, label: str, limit: int | None) -> PaddockError:
    """Return the error for a worker that ended without an event."""
    if limit is not None and (death.out_of_memory or death.signal not in (None, _SIGKILL)):
        return _over_limit(label, limit)
    if death.out_of_memory:
        return NotEnoughMemoryError(
            f"Out of memory while measuring {label}. Close other programs, or choose a lower "
            "precision or a smaller model."
        )
    if death.signal == _SIGKILL:
        return GenerationError(
            f"The process that measured {label} was killed by signal 9, possibly because memory "
            "ran out. Close other programs, or choose a lower precision or a smaller model."
        )
    return GenerationError(
        f"The process that measured {label} ended unexpectedly ({death}). Measure it again."
    )


def _over_limit(label: str, limit: int) -> NotEnoughMemoryError:
    return NotEnoughMemoryError(
        f"{label} needs more memory than the limit of {bytes_text(limit)} for one "
        "measurement. Raise the limit, or choose a lower precision or a smaller model."
    )


def _highest(one: ProcessMemory, other: ProcessMemory) -> ProcessMemory:
    return ProcessMemory(
        max(one.private_bytes, other.private_bytes),
        max(one.file_backed_bytes, other.file_backed_bytes),
        max(one.rss_bytes, other.rss_bytes),
    )
