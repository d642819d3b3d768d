"""The process of one model that runs apart from the app: ``python -m`` this module.

GenAI's batch is stepped under the interpreter's lock: in the app's own process every page of every
person would stand still from one token to the next, and for seconds while a large model reads a
prompt. The other side is :mod:`core.runtimes.subprocess_runtime`.

The first line of standard input tells how many answers are given at once; the libraries are
imported then. Every further line is one thing to do::

    {"do": "load", "folder": …, "spec": …}        → ready, elsewhere, or error
    {"do": "answer", "id": 1, "request": …}       → tokens, tokens, …, end
    {"do": "stop", "id": 1}                         no more tokens are wanted
    {"do": "interrupt", "id": 1}                    it ends unless its first token has come
    {"do": "growth"}                              → growth
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from core.errors import PaddockError
from core.hardware.devices import process_memory
from core.runtimes.base import InterruptedGeneration, LoadedModel
from core.runtimes.genai import GenAIRuntime, NotForGenAI
from core.runtimes.serialization import loaded_request, loaded_spec
from core.runtimes.spec import TokenRequest
from core.store.library_env import quieten_libraries
from core.workers.child import Channel, open_channel

SEND_EVERY_S = 0.01
"""Tokens that come faster than this go over together: each message wakes the app, which takes its
time from a core that the model computes on. The stamps are each token's own."""


def main() -> NoReturn:
    """Work until the parent closes standard input."""
    channel = open_channel()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_hear, args=(lines.put,), daemon=True).start()
    quieten_libraries()
    runtime = GenAIRuntime(json.loads(lines.get())["at_once"])
    runtime.prepare()
    channel.say(event="prepared")
    server = _Server(channel, runtime)
    while True:
        server.obey(json.loads(lines.get()))


def _hear(take: Callable[[bytes], None]) -> None:
    """Take the parent's lines, and end with it in whatever is under way."""
    for line in iter(sys.stdin.buffer.readline, b""):
        take(line)
    os._exit(1)


class _Server:
    """Does what it is told; answers in threads of their own."""

    def __init__(self, channel: Channel, runtime: GenAIRuntime) -> None:
        self._channel = channel
        self._runtime = runtime
        self._before = process_memory()
        self._model: LoadedModel | None = None
        self._answers: dict[int, _Answer] = {}

    def obey(self, command: dict[str, Any]) -> None:
        match command["do"]:
            case "load":
                self._load(Path(command["folder"]), command["spec"])
            case "growth":
                self._channel.say(event="growth", **asdict(process_memory().beyond(self._before)))
            case "answer":
                answer = _Answer(self._channel, command["id"], loaded_request(command["request"]))
                self._answers[answer.id] = answer
                threading.Thread(target=self._give, args=(answer,), daemon=True).start()
            case "stop" if answer := self._answers.get(command["id"]):
                answer.wanted = False
            case "interrupt" if answer := self._answers.get(command["id"]):
                assert self._model is not None, "it answers"
                self._model.interrupt(answer.request)

    def _load(self, folder: Path, spec: dict[str, Any]) -> None:
        self._before = process_memory()
        try:
            model = self._runtime.load_here(folder, loaded_spec(spec), None)
        except PaddockError as error:
            self._channel.say(event="error", type=type(error).__name__, message=str(error))
            return
        except NotForGenAI as why:
            self._channel.say(event="elsewhere", why=str(why))
            return
        self._model = model
        self._channel.say(
            event="ready",
            end_ids=sorted(model.end_ids),
            positions=model.positions,
            conditions=asdict(model.conditions),
            at_once=model.at_once,
        )

    def _give(self, answer: _Answer) -> None:
        assert self._model is not None, "nobody asks before it is ready"
        told: dict[str, Any] = {}
        try:
            self._model.generate(answer.request, answer.take)
        except InterruptedGeneration:
            told = {"interrupted": True}
        except Exception as error:  # noqa: BLE001 - raised again where the answer was asked for
            told = {"error": [type(error).__name__, str(error)]}
        del self._answers[answer.id]
        answer.send()
        self._channel.say(event="end", id=answer.id, **told)


class _Answer:
    def __init__(self, channel: Channel, id: int, request: TokenRequest) -> None:
        self.id = id
        self.request = request
        self.wanted = True
        self._channel = channel
        self._tokens: list[int] = []
        self._stamps_s: list[float] = []
        self._sent_s = 0.0

    def take(self, token_id: int) -> bool:
        now = time.perf_counter()
        if self.wanted:
            self._tokens.append(token_id)
            self._stamps_s.append(now)
            if now - self._sent_s >= SEND_EVERY_S:
                self._sent_s = now
                self.send()
        return self.wanted

    def send(self) -> None:
        """Send what is held back; at the end nobody takes any more."""
        if self._tokens and self.wanted:
            self._channel.say(
                event="tokens", id=self.id, tokens=self._tokens, stamps_s=self._stamps_s
            )
        self._tokens, self._stamps_s = [], []


if __name__ == "__main__":
    main()
