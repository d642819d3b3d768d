"""Subprocess that runs one GenAI model, started as ``python -m`` this module.

GenAI steps its batch while holding the interpreter lock: in the app's own process all pages would
block during every token, and for seconds during a large model's prefill. The parent's side is
:mod:`core.runtimes.subprocess_runtime`.

The first request (see :mod:`core.workers.child`) has the maximum number of concurrent answers; the
libraries are then imported. Each further one is a command::

    {"do": "load", "folder": …, "spec": …}        → ready, elsewhere, or error
    {"do": "answer", "id": 1, "request": …}       → tokens, tokens, …, end
    {"do": "stop", "id": 1}                         send no more tokens
    {"do": "interrupt", "id": 1}                    end it, unless it has its first token
    {"do": "growth"}                              → growth
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NoReturn

from core.errors import PaddockError
from core.hardware.devices import process_memory
from core.runtimes.base import InterruptedGeneration, LoadedModel, StampedId
from core.runtimes.genai import GenAIRuntime, NotForGenAI
from core.runtimes.spec import ModelSpec, TokenRequest
from core.store.library_env import quieten_libraries
from core.workers.child import Channel, from_json, open_channel

SEND_EVERY_S = 0.01
"""Tokens generated within this interval are sent in one message: each message wakes the app, which
takes CPU time from the model. Each token keeps its own timestamp."""


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
        self._answers: dict[int, _Answer] = {}

    def run(self, command: dict[str, Any]) -> None:
        match command["do"]:
            case "load":
                self._load(Path(command["folder"]), from_json(ModelSpec, command["spec"]))
            case "growth":
                memory = process_memory().growth_since(self._before)
                self._channel.say(event="growth", memory=memory)
            case "answer":
                request = from_json(TokenRequest, command["request"])
                answer = _Answer(self._channel, command["id"], request)
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

    def _generate(self, answer: _Answer) -> None:
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


class _Answer:
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
