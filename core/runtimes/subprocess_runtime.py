"""Runs GenAI models in their own processes, so that pages never wait for a generation step.

The process runs :mod:`core.runtimes.subprocess_worker`. This process tokenizes prompts and decodes
answers; only token ids are exchanged. If the process dies, only its own answers fail.
"""

from __future__ import annotations

import itertools
import logging
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
    PendingAnswer,
    StampedId,
)
from core.runtimes.genai import (
    DEFAULT_AT_ONCE,
    GenAIBase,
    load_with_optimum,
    readable_tokenizer,
)
from core.runtimes.spec import ModelSpec, TokenRequest
from core.runtimes.tokenizer import import_tokenizers
from core.runtimes.transformers_generate import frozen_imports
from core.store.library_env import quick_imports
from core.workers.child import from_json
from core.workers.process import Event, WorkerProcess, error_from_json

logger = logging.getLogger(__name__)

_PROCESS = "core.runtimes.subprocess_worker"


class SubprocessRuntime:
    """:class:`core.runtimes.genai.GenAIRuntime` in a subprocess; see
    :class:`core.runtimes.base.Runtime`.

    Models that GenAI cannot run are loaded with Optimum in this process; their conditions then
    state the reason.
    """

    def __init__(self, at_once: int = DEFAULT_AT_ONCE) -> None:
        """
        Args:
            at_once: maximum number of concurrent answers per model.
        """
        self._at_once = at_once
        self._lock = threading.Lock()
        self._spare: _Process | None = None
        """A process that has imported its libraries and has no model yet."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        with self._lock:
            if self._spare is None or not self._spare.alive:
                self._spare = _Process(self._at_once)
            spare = self._spare
        with frozen_imports("chat templates"), quick_imports():
            import transformers.utils.chat_template_utils  # noqa: F401
        import_tokenizers(folder)
        spare.prepared.wait()

    def load(self, folder: Path, spec: ModelSpec) -> LoadedModel:
        """Load ``folder`` on the device of ``spec``, with its hints."""
        with self._lock:
            process, self._spare = self._spare, None
        if process is None or not process.alive:
            process = _Process(self._at_once)
        try:
            tokenizer = readable_tokenizer(folder, spec)
            ready = process.load(folder.resolve(), spec)
            if ready["event"] == "ready":
                return ProcessModel(process, tokenizer, ready)
        except BaseException:  # leave no process behind
            process.end()
            raise
        process.end()
        return load_with_optimum(folder, spec, ready["why"])

    def close(self) -> None:
        """End the prepared process, if there is one."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.end()


class _Answer(PendingAnswer):
    """One answer of the process."""

    def take(self, token_id: StampedId) -> bool:
        """Pass a token to ``on_token``; return False to end the answer."""
        try:
            return self._on_token(token_id)
        except Exception as error:  # noqa: BLE001 - raised again in the answer's caller
            self.error = error
            return False


class _Process:
    """The process, and a thread that receives its events."""

    def __init__(self, at_once: int) -> None:
        self._ended = threading.Event()
        self.prepared = threading.Event()
        """Whether it has imported its libraries, or has ended; the next command then fails."""
        self._replies: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._pending: dict[int, _Answer] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._child = WorkerProcess(_PROCESS, {"at_once": at_once}, on_event=self._on_event)

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def load(self, folder: Path, spec: ModelSpec) -> Event:
        """Load a model; return ``ready``, or ``elsewhere`` if another runtime must run it.

        Raises:
            PaddockError: it cannot be loaded.
        """
        self._child.send(do="load", folder=str(folder), spec=spec)
        return self._reply(f"loading {spec.label}")

    def growth(self) -> ProcessMemory:
        self._child.send(do="growth")
        return from_json(ProcessMemory, self._reply("measuring its memory")["memory"])

    def answer(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`."""
        answer, number = _Answer(request, on_token), next(self._numbers)
        with self._lock:
            if not self.alive:
                raise self._ended_error("starting an answer")
            self._pending[number] = answer
        self._child.send(do="answer", id=number, request=request)
        answer.ended.wait()
        if answer.interrupted:
            raise InterruptedGeneration
        if answer.error is not None:
            raise answer.error

    def interrupt(self, request: TokenRequest) -> None:
        with self._lock:
            numbers = [key for key, each in self._pending.items() if each.request is request]
        for number in numbers:
            self._child.send(do="interrupt", id=number)

    def end(self) -> None:
        """Kill the process."""
        self._child.end()

    # The following methods run in the thread that receives events.

    def _on_event(self, event: Event | None) -> None:
        match (event or {}).get("event"):
            case "tokens":
                self._on_tokens(event["id"], map(StampedId, *event["columns"]))
            case "end":
                self._finish(event)
            case "prepared":
                self.prepared.set()
            case str():
                self._replies.put(event)
            case _ if event is None:
                self._on_process_end()

    def _on_tokens(self, number: int, token_ids: Iterable[StampedId]) -> None:
        answer = self._pending.get(number)
        if answer is None or all(map(answer.take, token_ids)):
            return
        self._child.send(do="stop", id=number)
        with self._lock:
            self._pending.pop(number, None)
        answer.ended.set()

    def _finish(self, event: Event) -> None:
        with self._lock:
            answer = self._pending.pop(event["id"], None)
        if answer is None:
            return
        answer.interrupted = event.get("interrupted", False)
        if error := event.get("error"):
            answer.error = error_from_json(*error)
        answer.ended.set()

    def _on_process_end(self) -> None:
        with self._lock:
            self._ended.set()
            pending = list(self._pending.values())
            self._pending.clear()
        self.prepared.set()
        self._replies.put(None)
        for answer in pending:
            answer.error = self._ended_error("generating an answer")
            answer.ended.set()

    # Used by several threads.

    def _reply(self, activity: str) -> Event:
        reply = self._replies.get()
        if reply is None:
            self._replies.put(None)  # for the next caller
            raise self._ended_error(activity)
        if reply["event"] == "error":
            raise error_from_json(reply["type"], reply["message"])
        return reply

    def _ended_error(self, activity: str) -> GenerationError:
        return GenerationError(
            f"The process of the model ended while {activity} ({self._child.exit_reason()}). Try "
            "again; the model is then reloaded. If that fails too, choose a lower precision or a "
            "smaller model."
        )


class ProcessModel(GenAIBase):
    """Model in a subprocess: see :class:`core.runtimes.base.LoadedModel`."""

    def __init__(self, process: _Process, tokenizer: Any, ready: dict[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.end_ids = frozenset(ready["end_ids"])
        self.positions: int | None = ready["positions"]
        self.conditions: Conditions = from_json(Conditions, ready["conditions"])
        self.at_once: int = ready["at_once"]
        self._process = process

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`.

        ``on_token`` is called in another thread.
        """
        self._process.answer(request, on_token)

    def interrupt(self, request: TokenRequest) -> None:
        """Cancel the prefill of this request object; the current step ends first."""
        self._process.interrupt(request)

    def close(self) -> None:
        self._process.end()

    @property
    def alive(self) -> bool:
        return self._process.alive

    def growth(self) -> ProcessMemory:
        return self._process.growth()
