"""Measures one configuration in its own process: the parent's side.

The child's side is :mod:`core.benchmark.worker`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from core.benchmark.weights import checkpoint_weight_bytes, weight_bytes
from core.db.measurement_values import Round, Sample
from core.errors import GenerationError, NotEnoughMemoryError
from core.hardware.devices import ProcessMemory
from core.runtimes.base import Conditions
from core.runtimes.kv_cache import kv_bytes_per_position
from core.runtimes.spec import NO_SPECULATION, ModelSpec, RuntimeName, Speculation
from core.store.checkpoint import read_json
from core.units import bytes_text
from core.workers.child import from_json
from core.workers.process import Event, WorkerDied, WorkerProcess, WorkerSilent

_WORKER = "core.benchmark.worker"

OnProgress = Callable[[str], None]
"""Receives a sentence about the current step."""

SILENCE_S = 900.0
"""Timeout for a worker that sends nothing. Loading and warm-up are the longest steps without an
event: minutes for twelve billion parameters on a slow disk."""

_MEMORY_INTERVAL_S = 0.025
"""Interval of reading the worker's memory; each reading takes about 0.1 ms of one core."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One configuration, to be measured in one new process."""

    folder: Path
    """Folder of the OpenVINO IR or of the PyTorch checkpoint."""
    spec: ModelSpec
    prompts: tuple[tuple[int, int], ...]
    """(prompt tokens, number of timed answers) in the order of measurement; each length once."""
    new_tokens: int
    """Length of each answer; the end token does not end it."""
    speculation: Speculation = NO_SPECULATION
    memory_limit_bytes: int | None = None
    """Private memory that the process may use."""
    nearest_ns: float | None = None
    """Lowest core-to-core latency known of this machine."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one process."""

    rounds: Mapping[int, Round]
    """By prompt tokens. Load, compilation and memory after the first generation are equal in all of
    them, because there was one process; peaks are those of loading and of that length alone."""
    conditions: Conditions
    weight_bytes: int | None
    """See :mod:`core.benchmark.weights`; None if the files do not show it."""
    kv_bytes_per_position: int | None


def measure_in_process(
    job: Job,
    *,
    on_progress: OnProgress,
    cancel: threading.Event,
    on_prompt: Callable[[int | None], None] = lambda prompt_tokens: None,
) -> Outcome:
    """Measure one configuration in a new process that does nothing else. Blocks.

    Args:
        on_prompt: receives each prompt length when its measurement begins, and None when it has
            ended, from this thread.

    Raises:
        StoppedError: ``cancel`` was set.
        NotEnoughMemoryError: the process reached its memory limit, or ran out of memory.
        PaddockError: the process was killed, timed out or failed; the text says which.
    """
    listener = _Listener(on_prompt)
    request = {
        "kind": "measure",
        "folder": str(job.folder),
        "spec": job.spec,
        "prompts": job.prompts,
        "new_tokens": job.new_tokens,
        "nearest_ns": job.nearest_ns,
        "speculation": job.speculation,
    }
    run_worker(
        request,
        listener.on_event,
        label=job.spec.label,
        on_progress=on_progress,
        cancel=cancel,
        memory_limit_bytes=job.memory_limit_bytes,
    )
    conditions = listener.conditions
    if conditions is None or len(listener.rounds) != len(job.prompts):
        raise GenerationError(
            f"The process that measured {job.spec.label} returned incomplete results. Measure it "
            "again."
        )
    config = read_json(job.folder / "config.json")
    return Outcome(
        rounds=listener.rounds,
        conditions=conditions,
        weight_bytes=(
            checkpoint_weight_bytes(config, conditions.execution_precision)
            if job.spec.runtime is RuntimeName.PYTORCH
            else weight_bytes(job.folder)
        ),
        kv_bytes_per_position=kv_bytes_per_position(config, conditions.kv_cache_precision),
    )


_SAMPLE = ("ttft_ms", "tpot_ms", "total_ms", "draft_tokens", "core_distance_ns")


class _Listener:
    """Builds rounds from the worker's events."""

    def __init__(self, on_prompt: Callable[[int | None], None]) -> None:
        self.rounds: dict[int, Round] = {}
        self.conditions: Conditions | None = None
        self._on_prompt = on_prompt
        self._loaded: Event = {}
        self._samples: list[Sample] = []
        self._peaks = MemoryPeaks()

    def on_event(self, event: Event) -> None:
        """Process an event; see :func:`core.benchmark.worker.measure`."""
        match event["event"]:
            case "memory":
                self._peaks.add(event["memory"])
            case "loaded":
                self._loaded = event
                self.conditions = from_json(Conditions, event["conditions"])
                self._peaks.add(from_json(ProcessMemory, event["memory"]))
            case "begin":
                self._samples = []
                self._peaks.phase = event["prompt_tokens"]
                self._on_prompt(event["prompt_tokens"])
            case "sample":
                figures = {name: event[name] for name in _SAMPLE}
                self._samples.append(
                    Sample(**figures, token_times_ms=tuple(event["token_times_ms"]))
                )
            case "end":
                self.rounds[event["prompt_tokens"]] = self._round(event)
                self._on_prompt(None)

    def _round(self, event: Event) -> Round:
        memory = from_json(ProcessMemory, self._loaded["memory"])
        peak = self._peaks.peak(event["prompt_tokens"])
        return Round(
            load_s=self._loaded["load_s"],
            compile_s=self._loaded["compile_s"],
            memory_private_bytes=memory.private_bytes,
            memory_file_backed_bytes=memory.file_backed_bytes,
            memory_private_peak_bytes=peak.private_bytes,
            memory_file_backed_peak_bytes=peak.file_backed_bytes,
            **{name: event[name] for name in ("cpu_cores", "other_cpu_cores", "contended")},
            samples=tuple(self._samples),
        )


class MemoryPeaks:
    """Peaks of the worker's memory by phase."""

    def __init__(self) -> None:
        self.phase: int | None = None
        """To which readings belong from now on: a prompt length, or None for loading."""
        self._peaks: dict[int | None, ProcessMemory] = {}

    def add(self, memory: ProcessMemory) -> None:
        """Add a reading to the current phase."""
        self._peaks[self.phase] = _highest(self._peaks.get(self.phase, memory), memory)

    def peak(self, phase: int) -> ProcessMemory:
        """Return the maximum of each kind during loading and this phase, without other phases."""
        return _highest(*(self._peaks[each] for each in (None, phase) if each in self._peaks))


def run_worker(
    request: Mapping[str, Any],
    on_event: Callable[[Event], None],
    *,
    label: str,
    on_progress: OnProgress,
    cancel: threading.Event,
    memory_limit_bytes: int | None,
) -> Event:
    """Run the worker on one request until it ends, and return its result. Blocks.

    Args:
        request: see :mod:`core.benchmark.worker`.
        on_event: receives all events except ``progress``, ``error`` and ``done``, and forty
            readings of its memory a second (see :class:`core.workers.process.WorkerProcess`).
        label: name of the configuration in error texts.

    Raises:
        StoppedError, NotEnoughMemoryError, PaddockError: see :func:`measure_in_process`.
    """

    def pass_on(event: Event) -> None:
        if event["event"] == "progress":
            on_progress(event["message"])
        else:
            on_event(event)

    try:
        with WorkerProcess(_WORKER, request, memory_interval_s=_MEMORY_INTERVAL_S) as worker:
            return worker.follow(
                pass_on,
                cancel=cancel,
                stopped=f"Stopped while measuring {label}.",
                silence_s=SILENCE_S,
                memory_limit_bytes=memory_limit_bytes,
            )
    except WorkerSilent:
        raise GenerationError(
            f"The process that measured {label} did not respond for {SILENCE_S / 60:.0f} "
            "minutes and was ended. Measure it again, with fewer tokens if it is only slow."
        ) from None
    except WorkerDied as death:
        if memory_limit_bytes is not None and death.out_of_memory:
            raise NotEnoughMemoryError(
                f"{label} needs more memory than the limit of {bytes_text(memory_limit_bytes)} for "
                "one measurement. Raise the limit, or choose a lower precision or a smaller model."
            ) from None
        if death.out_of_memory:
            raise NotEnoughMemoryError(
                f"Out of memory while measuring {label}. Close other programs, or choose a lower "
                "precision or a smaller model."
            ) from None
        if death.signal == 9:  # Linux sends it when memory runs out, and users send it, too
            raise GenerationError(
                f"The process that measured {label} was killed by signal 9, possibly because "
                "memory ran out. Close other programs, or choose a lower precision or a smaller "
                "model."
            ) from None
        raise GenerationError(
            f"The process that measured {label} ended unexpectedly ({death}). Measure it again."
        ) from None


def _highest(*readings: ProcessMemory) -> ProcessMemory:
    return ProcessMemory(*map(max, zip(*map(astuple, readings), strict=True)))
