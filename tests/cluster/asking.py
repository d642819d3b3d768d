"""Clients of a cluster's address, and the processes behind it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from tests.cluster.conftest import LONG_S


@dataclass(frozen=True)
class Asker:
    """Client of one model at one address."""

    address: str
    model: str

    def whole(self, tokens: int, **more: Any) -> httpx.Response:
        """Return a whole answer."""
        return httpx.post(self._url, json=self._body(tokens) | more, timeout=LONG_S)

    def streamed(self, tokens: int, begun: threading.Event) -> list[dict[str, Any]]:
        """Return all events of an answer; the last is ``{}`` if it was complete.

        Args:
            tokens: its length.
            begun: set with the first event.
        """
        events = []
        body = self._body(tokens) | {"stream": True}
        with httpx.stream("POST", self._url, json=body, timeout=LONG_S) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    begun.set()
                    events.append({} if line == "data: [DONE]" else json.loads(line[6:]))
        return events

    @property
    def _url(self) -> str:
        return f"{self.address}/v1/chat/completions"

    def _body(self, tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Where does the river go?"}]
        return {
            "model": self.model,
            "messages": messages,
            "max_tokens": tokens,
            "temperature": 0,
        }


@dataclass
class Crowd:
    """Concurrent users who send one request after another; every answer is kept."""

    answers: list[httpx.Response] = field(default_factory=list)


@contextmanager
def crowd(asker: Asker, people: int, tokens: int) -> Iterator[Crowd]:
    """Send requests from several users during the block; it ends with their last answers."""
    made, enough = Crowd(), threading.Event()

    def ask() -> None:
        while not enough.is_set():
            made.answers.append(asker.whole(tokens))

    with ThreadPoolExecutor(people) as threads:
        asking: list[Future[None]] = [threads.submit(ask) for _ in range(people)]
        try:
            yield made
        finally:
            enough.set()
        for each in asking:
            each.result()


def replicas() -> list[psutil.Process]:
    """Return the processes that Ray Serve started for models; each model's own process is their
    child."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("ServeReplica:model-" in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found
