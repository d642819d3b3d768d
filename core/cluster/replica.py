"""Replica of a model on a node, started by Ray Serve.

A replica keeps the model in memory and generates several answers at once (OpenVINO GenAI's
continuous batching). It runs :class:`core.api.app.Api`, as the dashboard does; the gateway forwards
requests to it and receives ASGI messages.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from starlette.types import Message

from core.api.app import Api
from core.api.service import ModelCard
from core.cluster.bench_node import node_settings
from core.db import Origin
from core.errors import GenerationError, UnknownModelError
from core.inference.engine import Engine
from core.inference.job import Job
from core.inference.request import GenerationRequest, User
from core.runtimes.sampling import default_sampling
from core.runtimes.spec import ModelSpec, SamplingSettings


class ModelReplica:
    """One loaded model; a Ray Serve deployment."""

    def __init__(self, spec: ModelSpec, name: str, at_once: int) -> None:
        """Load the model; convert it first if the node does not have it, which may take minutes.

        Clients request it by ``name``, and it generates ``at_once`` answers at once.

        Raises:
            PaddockError: the model cannot be loaded; Ray Serve reports the text.
        """
        settings = node_settings().model_copy(update={"max_at_once": at_once})
        self._engine = Engine(settings)
        self._spec = spec = self._engine.named(spec)
        self._lease = ExitStack()
        # Leased, so that it is never unloaded.
        self._lease.enter_context(
            self._engine.pool.lease(spec, lambda message, fraction: None, threading.Event())
        )
        model = _ReplicaModel(self._engine, spec, name)
        # The gateway has checked the API key.
        self._app = Api(lambda: model, lambda connection: User())

    def check_health(self) -> None:
        """Called by Ray Serve every few seconds, which replaces a replica if this raises.

        Raises:
            GenerationError: the model is no longer loaded.
        """
        if not self._engine.pool.is_loaded(self._spec):
            raise GenerationError("The model is no longer loaded.")

    async def call(self, path: str, body: bytes) -> AsyncIterator[Message]:
        """Respond to one POST request, with its path, such as ``/v1/completions``, and body.

        Yields:
            The messages that ASGI's ``send`` receives. Closing the iterator cancels the generation.
        """
        said: asyncio.Queue[Message | None] = asyncio.Queue()
        gone = asyncio.Event()
        given = False

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            await said.put(message)

        async def run() -> None:
            try:
                await self._app(_scope(path), receive, send)
            finally:
                await said.put(None)

        task = asyncio.create_task(run())
        try:
            while (message := await said.get()) is not None:
                yield message
            await task
        finally:
            gone.set()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task], timeout=1.0)


class _ReplicaModel:
    """The replica's model; see :class:`core.api.service.ModelService`."""

    def __init__(self, engine: Engine, spec: ModelSpec, name: str) -> None:
        self._engine = engine
        self.settings = engine.settings
        self._spec = spec
        self._card = ModelCard(name, name, int(time.time()), "paddock")

    def models(self) -> Sequence[ModelCard]:
        """Return the only model."""
        return [self._card]

    def find(self, name: str) -> ModelCard:
        """Return the model by its name.

        Raises:
            UnknownModelError: another model was requested.
        """
        if name != self._card.id:
            raise UnknownModelError(f"This replica serves {self._card.id}, not {name[:200]}.")
        return self._card

    def sampling(self, name: str) -> SamplingSettings:
        """Return the model's default sampling settings."""
        return default_sampling(self._engine.store, self._spec.model)

    def start(self, name: str, request: GenerationRequest, user: User) -> Job:
        """Start an answer, which is recorded on this node."""
        self.find(name)
        handle = self._engine.handle(self._spec)
        return self._engine.answer(handle, request, origin=Origin.API, user=user)


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": None,
        "server": None,
    }
