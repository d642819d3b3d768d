"""Runs GenAI's models in processes of their own, so that the pages never wait for a model's step.

The process runs :mod:`core.runtimes.subprocess_worker`. Prompts are tokenised and answers decoded
on this side; only token ids cross. When the process dies, only its own answers fail.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import queue
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.errors import GenerationError
from core.hardware.devices import ProcessMemory
from core.runtimes.base import (
    Conditions,
    InterruptedGeneration,
    LoadedModel,
    OnToken,
    StampedId,
)
from core.runtimes.genai import DEFAULT_AT_ONCE, loaded_by_optimum, readable_tokenizer
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.serialization import (
    loaded_conditions,
    loaded_error,
    loaded_memory,
    plain_request,
    plain_spec,
)
from core.runtimes.spec import ModelSpec, TokenRequest
from core.runtimes.tokenizer import is_plain
from core.runtimes.transformers_generate import TRANSFORMERS, spared_from_collections
from core.store.library_env import quick_imports
from core.workers.process import ChildProcess

logger = logging.getLogger(__name__)

_PROCESS = "core.runtimes.subprocess_worker"

_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PADDOCK_DATABASE_URL")
"""Variables that a process which only computes has no use for."""


class ApartRuntime:
    """See :class:`core.runtimes.base.Runtime`: :class:`core.runtimes.genai.GenAIRuntime`, apart.

    What GenAI cannot run, Optimum does, in this process; the loaded model's conditions say so.
    """

    def __init__(self, at_once: int = DEFAULT_AT_ONCE) -> None:
        """
        Args:
            at_once: answers that one model gives at the same time, at most.
        """
        self._at_once = at_once
        self._optimum = OptimumRuntime()
        self._turn = threading.Lock()
        self._spare: _Process | None = None
        """One that has its libraries and no model yet."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        with self._turn:
            if self._spare is None or not self._spare.alive:
                self._spare = _Process(self._at_once)
            spare = self._spare
        with spared_from_collections("tokenizers"):
            import tokenizers  # noqa: F401
        if folder is not None and not is_plain(folder):
            with spared_from_collections(TRANSFORMERS), quick_imports():
                import transformers

                _ = transformers.AutoTokenizer  # imported lazily, at the first use of the name
        spare.wait_until_prepared()

    def load(self, folder: Path, spec: ModelSpec) -> LoadedModel:
        """Load ``folder`` on the device of ``spec``, with its hints."""
        with self._turn:
            process, self._spare = self._spare, None
        if process is None or not process.alive:
            process = _Process(self._at_once)
        try:
            tokenizer = readable_tokenizer(folder, spec)
            ready = process.load(folder.resolve(), spec)
            if ready["event"] == "ready":
                return ProcessModel(process, tokenizer, ready)
        except BaseException:  # whatever it was, no process stays behind
            process.end()
            raise
        process.end()
        return loaded_by_optimum(self._optimum, folder, spec, ready["why"])

    def close(self) -> None:
        """End the process that waits for a model."""
        with self._turn:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.end()


class _Waiting:
    """One answer that the process gives; whoever asked waits for :attr:`ended`."""

    def __init__(self, request: TokenRequest, on_token: OnToken) -> None:
        self.request = request
        self.ended = threading.Event()
        self.interrupted = False
        self.error: Exception | None = None
        """What the runtime, or whoever received the tokens, raised."""
        self._on_token = on_token

    def take(self, token_id: StampedId) -> bool:
        """Hand a token on; False where no more are wanted."""
        try:
            return self._on_token(token_id)
        except Exception as error:  # noqa: BLE001 - raised again where the answer was asked for
            self.error = error
            return False


class _Process:
    """The process, and a thread that hears it."""

    def __init__(self, at_once: int) -> None:
        self._ended = threading.Event()
        self._prepared = threading.Event()
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._waiting: dict[int, _Waiting] = {}
        self._numbers = itertools.count(1)
        self._turn = threading.Lock()
        self._speaking = threading.Lock()
        self._child = ChildProcess(
            _PROCESS,
            (),
            _environment(),
            first_line=json.dumps({"at_once": at_once}),
            on_event=self._hear,
        )

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def wait_until_prepared(self) -> None:
        """Wait until it has its libraries, or has ended: what is asked of it then tells."""
        self._prepared.wait()

    def load(self, folder: Path, spec: ModelSpec) -> dict[str, Any]:
        """Load a model; returns ``ready``, or ``elsewhere`` where another runtime must run it.

        Raises:
            PaddockError: it cannot be loaded.
        """
        self._tell(do="load", folder=str(folder), spec=plain_spec(spec))
        return self._reply(f"{spec.label} was loaded")

    def growth(self) -> ProcessMemory:
        self._tell(do="growth")
        found = self._reply("its memory was looked at")
        return loaded_memory({key: value for key, value in found.items() if key != "event"})

    def answer(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`."""
        answer, number = _Waiting(request, on_token), next(self._numbers)
        with self._turn:
            if not self.alive:
                raise self._gone("it was asked")
            self._waiting[number] = answer
        self._tell(do="answer", id=number, request=plain_request(request))
        answer.ended.wait()
        if answer.interrupted:
            raise InterruptedGeneration
        if answer.error is not None:
            raise answer.error

    def interrupt(self, request: TokenRequest) -> None:
        with self._turn:
            numbers = [key for key, each in self._waiting.items() if each.request is request]
        for number in numbers:
            self._tell(do="interrupt", id=number)

    def end(self) -> None:
        """Kill it."""
        self._child.end()

    # What follows runs in the thread that hears it.

    def _hear(self, event: dict[str, Any] | None) -> None:
        match (event or {}).get("event"):
            case "tokens":
                self._take(event["id"], map(StampedId, event["tokens"], event["stamps_s"]))
            case "end":
                self._finish(event)
            case "prepared":
                self._prepared.set()
            case str():
                self._replies.put(event)
            case _ if event is None:
                self._all_over()

    def _take(self, number: int, token_ids: Iterable[StampedId]) -> None:
        answer = self._waiting.get(number)
        if answer is None or all(map(answer.take, token_ids)):
            return
        self._tell(do="stop", id=number)
        with self._turn:
            self._waiting.pop(number, None)
        answer.ended.set()

    def _finish(self, event: dict[str, Any]) -> None:
        with self._turn:
            answer = self._waiting.pop(event["id"], None)
        if answer is None:
            return
        answer.interrupted = event.get("interrupted", False)
        if error := event.get("error"):
            answer.error = loaded_error(*error)
        answer.ended.set()

    def _all_over(self) -> None:
        self._child.wait_for_exit()
        with self._turn:
            self._ended.set()
            left = list(self._waiting.values())
            self._waiting.clear()
        self._prepared.set()
        self._replies.put(None)
        for answer in left:
            answer.error = self._gone("it answered")
            answer.ended.set()

    # Both sides.

    def _tell(self, **command: Any) -> None:
        with self._speaking:
            self._child.write_line(json.dumps(command))

    def _reply(self, what: str) -> dict[str, Any]:
        reply = self._replies.get()
        if reply is None:
            self._replies.put(None)  # for whoever asks next
            raise self._gone(what)
        if reply["event"] == "error":
            raise loaded_error(reply["type"], reply["message"])
        return reply

    def _gone(self, when: str) -> GenerationError:
        return GenerationError(
            f"The process of the model ended while {when} ({self._child.exit_reason()}); ask "
            "again, and it is loaded anew. Should it end again, choose a lower precision or a "
            "smaller model."
        )


class ProcessModel:
    """See :class:`core.runtimes.base.LoadedModel` and :class:`core.runtimes.base.ApartModel`."""

    def __init__(self, process: _Process, tokenizer: Any, ready: dict[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.end_ids = frozenset(ready["end_ids"])
        self.positions: int | None = ready["positions"]
        self.conditions: Conditions = loaded_conditions(ready["conditions"])
        self.at_once: int = ready["at_once"]
        self._process = process

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`; tokens come in another thread."""
        self._process.answer(request, on_token)

    def interrupt(self, request: TokenRequest) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.interrupt`; the piece under way ends first."""
        self._process.interrupt(request)

    def close(self) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.close`."""
        self._process.end()

    @property
    def alive(self) -> bool:
        """See :attr:`core.runtimes.base.ApartModel.alive`."""
        return self._process.alive

    def growth(self) -> ProcessMemory:
        """See :meth:`core.runtimes.base.ApartModel.growth`."""
        return self._process.growth()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    # Everything it needs lies in the folder it is given.
    return kept | {"HF_HUB_OFFLINE": "1"}
