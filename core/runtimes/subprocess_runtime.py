"""Runs GenAI models in their own processes, so that pages never wait for a generation step.

GenAI steps its batch while holding the interpreter lock: in the app's process all pages would block
during every token, and for seconds during a large model's prefill. The app's process tokenizes
prompts and decodes answers; only token ids are exchanged. If the other process dies, only its own
answers fail.

The process of a model runs this module with ``python -m``. The first request (see
:mod:`core.workers.child`) has the maximum number of concurrent answers; the libraries are then
imported. Each further one is a command::

    {"do": "load", "folder": …, "spec": …}        → ready, elsewhere, or error
    {"do": "answer", "id": 1, "request": …}       → tokens, tokens, …, end
    {"do": "stop", "id": 1}                         send no more tokens
    {"do": "interrupt", "id": 1}                    end it, unless it has its first token
    {"do": "growth"}                              → growth
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from core.errors import GenerationError, PaddockError
from core.hardware.devices import ProcessMemory, process_memory
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
    GenAIRuntime,
    NotForGenAI,
    load_with_optimum,
    readable_tokenizer,
)
from core.runtimes.spec import ModelSpec, TokenRequest
from core.runtimes.tokenizer import import_tokenizers
from core.store.library_env import quieten_libraries
from core.workers.child import Channel, from_json, open_channel
from core.workers.process import Event, WorkerProcess, error_from_json

logger = logging.getLogger(__name__)

MODULE = "core.runtimes.subprocess_runtime"
"""Name of this module, which is ``__main__`` in the process of a model."""

SEND_EVERY_S = 0.02
"""Tokens generated within this interval are sent in one message: each message wakes the app, which
takes CPU time from the model. Each token keeps its own timestamp."""


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
        self._spare: ProcessModel | None = None
        """A process that has imported its libraries and has no model yet."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        with self._lock:
            if self._spare is None or not self._spare.alive:
                self._spare = ProcessModel(self._at_once)
            spare = self._spare
        import_tokenizers(folder)
        spare.prepared.wait()

    def load(self, folder: Path, spec: ModelSpec) -> LoadedModel:
        """Load ``folder`` on the device of ``spec``, with its hints."""
        with self._lock:
            model, self._spare = self._spare, None
        if model is None or not model.alive:
            model = ProcessModel(self._at_once)
        try:
            model.tokenizer = readable_tokenizer(folder, spec)
            reason = model.load(folder.resolve(), spec)
        except BaseException:  # leave no process behind
            model.close()
            raise
        if reason is None:
            return model
        model.close()
        return load_with_optimum(folder, spec, reason)

    def close(self) -> None:
        """End the prepared process, if there is one."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()


class _Answer(PendingAnswer):
    """One answer of the process."""

    def take(self, token_id: StampedId) -> bool:
        """Pass a token to ``on_token``; return False to end the answer."""
        try:
            return self._on_token(token_id)
        except Exception as error:  # noqa: BLE001 - raised again in the answer's caller
            self.error = error
            return False


class ProcessModel(GenAIBase):
    """A process and the model in it: see :class:`core.runtimes.base.LoadedModel`.

    A thread receives the events of the process.
    """

    def __init__(self, at_once: int) -> None:
        """Start a process without a model, which imports its libraries."""
        self._ended = threading.Event()
        self.prepared = threading.Event()
        """Whether it has imported its libraries, or has ended; the next command then fails."""
        self._replies: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._pending: dict[int, _Answer] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        request = {"at_once": at_once}
        self._child = WorkerProcess(MODULE, request, on_event=self._on_event)

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def load(self, folder: Path, spec: ModelSpec) -> str | None:
        """Load a model; return why another runtime must run it, or None.

        Raises:
            PaddockError: it cannot be loaded.
        """
        self._child.send(do="load", folder=str(folder), spec=spec)
        reply = self._reply(f"loading {spec.label}")
        if reply["event"] == "elsewhere":
            return reply["why"]
        self.end_ids = frozenset(reply["end_ids"])
        self.positions = reply["positions"]
        self.conditions = from_json(Conditions, reply["conditions"])
        self.at_once = reply["at_once"]
        return None

    def growth(self) -> ProcessMemory:
        self._child.send(do="growth")
        return from_json(ProcessMemory, self._reply("measuring its memory")["memory"])

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`.

        ``on_token`` is called in another thread.
        """
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
        """Cancel the prefill of this request object; the current step ends first."""
        with self._lock:
            numbers = [key for key, each in self._pending.items() if each.request is request]
        for number in numbers:
            self._child.send(do="interrupt", id=number)

    def close(self) -> None:
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


# The process of a model


def main() -> NoReturn:
    """Run commands until the parent closes standard input."""
    channel = open_channel()
    quieten_libraries()
    runtime = GenAIRuntime(channel.receive()["at_once"])
    runtime.prepare()
    channel.say(event="prepared")
    server = _Server(channel, runtime)
    while True:
        server.run(channel.receive())


class _Server:
    """Runs commands; each answer in its own thread."""

    def __init__(self, channel: Channel, runtime: GenAIRuntime) -> None:
        self._channel = channel
        self._runtime = runtime
        self._before = process_memory()
        self._model: LoadedModel | None = None
        self._answers: dict[int, _Outgoing] = {}

    def run(self, command: dict[str, Any]) -> None:
        match command["do"]:
            case "load":
                self._load(Path(command["folder"]), from_json(ModelSpec, command["spec"]))
            case "growth":
                memory = process_memory().growth_since(self._before)
                self._channel.say(event="growth", memory=memory)
            case "answer":
                request = from_json(TokenRequest, command["request"])
                answer = _Outgoing(self._channel, command["id"], request)
                self._answers[answer.id] = answer
                threading.Thread(target=self._generate, args=(answer,), daemon=True).start()
            case "stop" if answer := self._answers.get(command["id"]):
                answer.stopped = True
            case "interrupt" if answer := self._answers.get(command["id"]):
                assert self._model is not None, "it is generating an answer"
                self._model.interrupt(answer.request)

    def _load(self, folder: Path, spec: ModelSpec) -> None:
        self._before = process_memory()
        try:
            model = self._runtime.load_here(folder, spec, None)
        except PaddockError as error:
            self._channel.fail(error)
            return
        except NotForGenAI as why:
            self._channel.say(event="elsewhere", why=str(why))
            return
        self._model = model
        self._channel.say(
            event="ready",
            end_ids=sorted(model.end_ids),
            positions=model.positions,
            conditions=model.conditions,
            at_once=model.at_once,
        )

    def _generate(self, answer: _Outgoing) -> None:
        assert self._model is not None, "answers are requested only after the model is loaded"
        outcome: dict[str, Any] = {}
        try:
            self._model.generate(answer.request, answer.take)
        except InterruptedGeneration:
            outcome = {"interrupted": True}
        except Exception as error:  # noqa: BLE001 - raised again in the parent
            outcome = {"error": [type(error).__name__, str(error)]}
        del self._answers[answer.id]
        answer.send()
        self._channel.say(event="end", id=answer.id, **outcome)


class _Outgoing:
    """One answer that is sent."""

    def __init__(self, channel: Channel, id: int, request: TokenRequest) -> None:
        self.id = id
        self.request = request
        self.stopped = False
        self._channel = channel
        self._tokens: list[tuple[Any, ...]] = []
        """Arguments of :class:`core.runtimes.base.StampedId`."""
        self._sent_s = 0.0

    def take(self, token: StampedId) -> bool:
        if not self.stopped:
            now, drafts = token.stamp_s, token.step_drafts
            self._tokens.append((token, now, token.log_probability, drafts, token.cached_tokens))
            if now - self._sent_s >= SEND_EVERY_S:
                self._sent_s = now
                self.send()
        return not self.stopped

    def send(self) -> None:
        """Send the buffered tokens, unless the answer was stopped."""
        if self._tokens and not self.stopped:
            columns = list(zip(*self._tokens, strict=True))
            self._channel.say(event="tokens", id=self.id, columns=columns)
        self._tokens = []


if __name__ == "__main__":
    main()
