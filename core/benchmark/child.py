"""Measures one configuration in its own process: the parent's side.

The child's side is :mod:`core.benchmark.worker`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.benchmark.weights import (
    checkpoint_weight_bytes,
    weight_bytes,
)
from core.benchmark.worker_process import SILENCE_S, MemoryPeaks, OnProgress, run_worker
from core.db.measurement_values import Round, Sample
from core.errors import GenerationError
from core.hardware.devices import library_versions
from core.runtimes.base import Conditions
from core.runtimes.kv_cache import kv_bytes_per_position
from core.runtimes.serialization import conditions_from_json, memory_from_json, spec_to_json
from core.runtimes.spec import ModelSpec
from core.store.checkpoint import read_json
from core.workers.process import Event


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
    checkpoint: bool = False
    """Whether ``folder`` is a PyTorch checkpoint and ``spec`` names PyTorch: the baseline."""
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
    versions: Mapping[str, str]


def measure_in_process(
    job: Job,
    *,
    on_progress: OnProgress,
    cancel: threading.Event,
    on_begin: Callable[[int], None] = lambda prompt_tokens: None,
    on_round: Callable[[int, Round], None] = lambda prompt_tokens, found: None,
    silence_s: float = SILENCE_S,
) -> Outcome:
    """Measure one configuration in a new process that does nothing else. Blocks.

    Args:
        job: what to measure.
        on_progress: called from this thread.
        cancel: when set, the process is killed.
        on_begin: receives each prompt length when its measurement begins, from this thread.
        on_round: receives the round of each prompt length when it is complete, from this thread; a
            later failure does not invalidate it.
        silence_s: timeout for a process that sends nothing.

    Raises:
        StoppedError: ``cancel`` was set.
        NotEnoughMemoryError: the process reached its memory limit, or ran out of memory.
        PaddockError: the process was killed, timed out or failed; the text says which.
    """
    listener = _Listener(on_begin, on_round)
    request = {
        "kind": "measure",
        "folder": str(job.folder),
        "spec": spec_to_json(job.spec),
        "prompts": job.prompts,
        "new_tokens": job.new_tokens,
        "nearest_ns": job.nearest_ns,
    }
    run_worker(
        request,
        listener.on_event,
        label=job.spec.label,
        on_progress=on_progress,
        cancel=cancel,
        memory_limit_bytes=job.memory_limit_bytes,
        silence_s=silence_s,
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
            if job.checkpoint
            else weight_bytes(job.folder)
        ),
        kv_bytes_per_position=kv_bytes_per_position(config, conditions.kv_cache_precision),
        versions=library_versions(),
    )


class _Listener:
    """Builds rounds from the worker's events."""

    def __init__(
        self, on_begin: Callable[[int], None], on_round: Callable[[int, Round], None]
    ) -> None:
        self.rounds: dict[int, Round] = {}
        self.conditions: Conditions | None = None
        self._on_begin = on_begin
        self._on_round = on_round
        self._loaded: Event = {}
        self._samples: list[Sample] = []
        self._peaks = MemoryPeaks()

    def on_event(self, event: Event) -> None:
        """Process an event; see :func:`core.benchmark.measure.measure`."""
        match event["event"]:
            case "memory":
                self._peaks.add(event["memory"])
            case "loaded":
                self._loaded = event
                self.conditions = conditions_from_json(event["conditions"])
                self._peaks.add(memory_from_json(event["memory"]))
            case "begin":
                self._samples = []
                self._peaks.enter(event["prompt_tokens"])
                self._on_begin(event["prompt_tokens"])
            case "sample":
                self._samples.append(_sample(event))
            case "end":
                length = event["prompt_tokens"]
                self.rounds[length] = self._round(event)
                self._on_round(length, self.rounds[length])

    def _round(self, event: Event) -> Round:
        memory = memory_from_json(self._loaded["memory"])
        peak = self._peaks.peak(event["prompt_tokens"])
        return Round(
            load_s=self._loaded["load_s"],
            compile_s=self._loaded["compile_s"],
            memory_private_bytes=memory.private_bytes,
            memory_file_backed_bytes=memory.file_backed_bytes,
            memory_private_peak_bytes=peak.private_bytes,
            memory_file_backed_peak_bytes=peak.file_backed_bytes,
            cpu_cores=event["cpu_cores"],
            other_cpu_cores=event["other_cpu_cores"],
            contended=event["contended"],
            samples=tuple(self._samples),
        )


def _sample(event: Event) -> Sample:
    return Sample(
        ttft_ms=event["ttft_ms"],
        tpot_ms=event["tpot_ms"],
        total_ms=event["total_ms"],
        token_times_ms=tuple(event["token_times_ms"]),
        core_distance_ns=event["core_distance_ns"],
    )
