"""Ways of answering that are asked by turns, each in a process of its own."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from core.benchmark.speed.notebook import NOTEBOOK, RUNTIME
from core.errors import GenerationError, StoppedError
from core.runtimes.serialization import spec_to_json
from core.runtimes.spec import ModelSpec
from core.workers.process import ChildEnded, ChildProcess

_MODULE = "core.benchmark.speed.notebook"
_POLL_S = 0.2


Medians = Mapping[str, Mapping[str, float]]
"""Of each figure of each way."""


@dataclass(frozen=True)
class Way:
    """One way of answering: a spec's runtime, or the notebook's."""

    name: str
    folder: Path
    """Of the OpenVINO IR, or of the checkpoint for PyTorch."""
    spec: ModelSpec | None = None
    """None is the notebook's way."""


class Contender:
    """A way's process."""

    def __init__(self, way: Way, cancel: threading.Event) -> None:
        self._way = way
        self._cancel = cancel
        request = {
            "way": RUNTIME if way.spec else NOTEBOOK,
            "folder": str(way.folder),
            "spec": spec_to_json(way.spec) if way.spec else None,
        }
        environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1"}
        self._child = ChildProcess(_MODULE, (), environment, first_line=json.dumps(request))
        try:
            self.execution: str | None = self._next()["execution"]
            """Precision that it computes in."""
        except BaseException:  # whatever it was, no process stays behind
            self._child.end()
            raise

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.end()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Have one thing done; see :mod:`core.benchmark.speed.notebook`.

        Raises:
            StoppedError: the suite was stopped.
            GenerationError: the process ended.
        """
        self._child.write_line(json.dumps(command))
        return self._next()

    def _next(self) -> dict[str, Any]:
        while not self._cancel.is_set():
            try:
                event = self._child.next_event(_POLL_S)
            except ChildEnded:
                self._child.end()
                raise GenerationError(
                    f"The process that answered in the way of {self._way.name} ended "
                    f"({self._child.exit_reason()}); measure it again."
                ) from None
            if event and event.get("event") in ("ready", "done"):
                return event
        raise StoppedError("The speed suite was stopped.")


class Duel:
    """Several ways side by side, as a context manager."""

    def __init__(self, ways: Sequence[Way], cancel: threading.Event) -> None:
        self._ways = ways
        self._cancel = cancel
        self._stack = ExitStack()
        self.contenders: dict[str, Contender] = {}

    def __enter__(self) -> Duel:
        with ExitStack() as stack:
            for way in self._ways:
                self.contenders[way.name] = stack.enter_context(Contender(way, self._cancel))
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
    def one(self) -> Contender:
        """The process, where there is but one way."""
        (only,) = self.contenders.values()
        return only

    def medians(self, rounds: int, **command: Any) -> Medians:
        """Ask all ways by turns, in the opposite order every other round; medians of each figure.

        One turn of each goes before, untimed: the first answer of a length is slower.
        """
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in self.contenders}
        for number in range(rounds + 1):
            names = list(self.contenders)
            for name in names if number % 2 else reversed(names):
                answer = self.contenders[name].ask(**command)
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
