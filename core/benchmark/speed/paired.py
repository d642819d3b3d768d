"""Variants that are measured in turns, each in its own process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from core.benchmark.speed.paired_worker import NOTEBOOK, RUNTIME
from core.errors import GenerationError
from core.runtimes.serialization import spec_to_json
from core.runtimes.spec import ModelSpec
from core.workers.process import Event, WorkerDied, WorkerProcess

_MODULE = "core.benchmark.speed.paired_worker"

Medians = Mapping[str, Mapping[str, float]]
"""Median of each figure of each variant."""


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
            "spec": spec_to_json(variant.spec) if variant.spec else None,
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


class PairedRun:
    """Context manager that runs several variants side by side."""

    def __init__(self, variants: Sequence[Variant], cancel: threading.Event) -> None:
        self._variants = variants
        self._cancel = cancel
        self._stack = ExitStack()
        self.processes: dict[str, VariantProcess] = {}

    def __enter__(self) -> PairedRun:
        with ExitStack() as stack:
            for variant in self._variants:
                self.processes[variant.name] = stack.enter_context(
                    VariantProcess(variant, self._cancel)
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def only(self) -> VariantProcess:
        """The process, if there is only one variant."""
        (only,) = self.processes.values()
        return only

    def medians(self, rounds: int, **command: Any) -> Medians:
        """Run a command with all variants in turns, in alternating order; return medians of each
        figure.

        A first, untimed turn of each comes before: the first answer of a length is slower.
        """
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in self.processes}
        for number in range(rounds + 1):
            names = list(self.processes)
            for name in names if number % 2 else reversed(names):
                answer = self.processes[name].run(**command)
                if number:
                    found[name].append(answer)
        return {
            name: {
                key: median(each[key] for each in answers)
                for key, value in answers[0].items()
                if isinstance(value, (int, float))
            }
            for name, answers in found.items()
        }
