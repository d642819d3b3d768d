"""Variants that are measured in turns, each in its own process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from core.benchmark.speed.paired_worker import NOTEBOOK, RUNTIME
from core.errors import GenerationError
from core.runtimes.spec import ModelSpec
from core.workers.process import Event, WorkerDied, WorkerProcess

T = TypeVar("T")

_MODULE = "core.benchmark.speed.paired_worker"


def in_turns(rounds: int, runs: Mapping[str, Callable[[int], T]]) -> dict[str, list[T]]:
    """Call each function once a round, in alternating order, and return what each returned.

    The functions receive the number of the round. Round 0 is not counted: the first answer of a
    length is slower.
    """
    found: dict[str, list[T]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            answer = runs[name](number)
            if number:
                found[name].append(answer)
    return found


def median_ratio(one: Sequence[Event], other: Sequence[Event], figure: str) -> float:
    """Return the median ratio of a figure in the answers of one and another, in turn."""
    return median(a[figure] / b[figure] for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class Variant:
    """What is compared: a spec's runtime, or the notebook."""

    name: str
    folder: Path
    """Folder of the OpenVINO IR, or of the checkpoint for PyTorch."""
    spec: ModelSpec | None = None
    """None for the notebook and for peers."""
    peer: Mapping[str, Any] | None = None
    """Request of a peer: ``variant``, ``gguf``, ``speculation`` and ``slots``, see
    :mod:`core.benchmark.speed.peer_runtimes`."""


class VariantProcess(WorkerProcess):
    """Process of a variant."""

    def __init__(self, variant: Variant, cancel: threading.Event) -> None:
        self._variant = variant
        self._cancel = cancel
        request = {
            "variant": RUNTIME if variant.spec else NOTEBOOK,
            "folder": str(variant.folder),
            "spec": variant.spec,
        }
        super().__init__(_MODULE, request | dict(variant.peer or {}))
        try:
            self.execution: str | None = self._next()["execution"]
            """Precision in which it executes."""
        except BaseException:  # leave no process behind
            self.end()
            raise

    def run(self, **command: Any) -> Event:
        """Run a command; see :mod:`core.benchmark.speed.paired_worker`.

        Raises:
            StoppedError: the suite was stopped.
            GenerationError: the process ended.
        """
        self.send(**command)
        return self._next()

    def _next(self) -> Event:
        try:
            return self.follow(cancel=self._cancel, stopped="The speed suite was stopped.")
        except WorkerDied as death:
            raise GenerationError(
                f"The process of the variant {self._variant.name} ended ({death}). Measure it "
                "again."
            ) from None


class PairedRun(ExitStack):
    """Context manager that runs several variants side by side."""

    def __init__(self, variants: Sequence[Variant], cancel: threading.Event) -> None:
        super().__init__()
        self._variants = variants
        self._cancel = cancel
        self.processes: dict[str, VariantProcess] = {}

    def __enter__(self) -> PairedRun:
        try:
            for variant in self._variants:
                process = self.enter_context(VariantProcess(variant, self._cancel))
                self.processes[variant.name] = process
        except BaseException:  # also Ctrl-C: the processes that have started must end
            self.close()
            raise
        return self

    @property
    def only(self) -> VariantProcess:
        """The process, if there is only one variant."""
        (only,) = self.processes.values()
        return only

    def turns(self, rounds: int, **command: Any) -> dict[str, list[Event]]:
        """Run a command with all variants :func:`in_turns`; return the answers of each."""
        return in_turns(
            rounds,
            {
                name: lambda number, process=process: process.run(**command)
                for name, process in self.processes.items()
            },
        )

    def medians(self, rounds: int, **command: Any) -> dict[str, dict[str, float]]:
        """Return the median of each figure of each variant, see :meth:`turns`."""
        return {
            name: {
                key: median(each[key] for each in answers)
                for key, value in answers[0].items()
                if isinstance(value, (int, float))
            }
            for name, answers in self.turns(rounds, **command).items()
        }
