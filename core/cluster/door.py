"""The door of a cluster's models: one ``/v1`` that knows all of them and hands requests on.

What becomes of a request whose replica dies: as long as nothing of its answer was sent, it is asked
of another replica; after that its stream ends with an error in OpenAI's form. Ray Serve itself
repeats nothing once a replica has taken a request. A client that goes away ends its answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

from core.cluster.openai_errors import JSON_HEADERS, error_event, error_messages

log = logging.getLogger(__name__)

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

APP_PREFIX = "model-"
"""Of the Ray Serve applications that are models; the door is one of its own."""

DOOR_APP = "paddock-door"

DEPLOYMENT = "replica"

MOST_BODY_BYTES = 2**20
"""Of a request: several times the longest text that is taken."""

_ATTEMPTS = 3
"""Replicas that a request is asked of before its client is told."""

_AGAIN_AFTER_S = 0.5
"""Until Ray Serve has noticed that a replica is gone."""

_MODELS_FOR_S = 1.0
"""How long the list of models is taken to be right."""

_ASKING = ("/v1/chat/completions", "/v1/completions")


def app_name(model: str) -> str:
    """The Ray Serve application of a model; its names may not hold every character."""
    return APP_PREFIX + quote(model, safe="")


def model_name(app: str) -> str | None:
    """The model of a Ray Serve application; None for one that is none."""
    return unquote(app.removeprefix(APP_PREFIX)) if app.startswith(APP_PREFIX) else None


def key_hash(key: str) -> str:
    """What is kept of an API key. Keys are long and random, so a fast hash does."""
    return hashlib.sha256(key.encode()).hexdigest()


class Entrance:
    """Builds the door in its replica; Ray Serve makes a deployment of it."""

    def __init__(self, key_hashes: Collection[str]) -> None:
        """
        Args:
            key_hashes: of the keys that open it; none where nobody needs one.
        """
        self._key_hashes = frozenset(key_hashes)

    def __serve_build_asgi_app__(self) -> Door:
        return Door(self._key_hashes, ServeModels())


class ServeModels:
    """The models that Ray Serve runs, as the door uses them."""

    def __init__(self) -> None:
        self._known: Mapping[str, bool] = {}
        self._asked_at = -_MODELS_FOR_S

    async def names(self) -> Mapping[str, bool]:
        """All of them by name, and whether each can answer."""
        if time.monotonic() - self._asked_at >= _MODELS_FOR_S:
            from ray import serve

            status = await asyncio.to_thread(serve.status)
            self._known = {
                model: app.status in ("RUNNING", "DEPLOYING", "UNHEALTHY")
                for name, app in status.applications.items()
                if (model := model_name(name)) is not None
            }
            self._asked_at = time.monotonic()
        return self._known

    async def call(self, model: str, path: str, body: bytes) -> AsyncIterator[Message]:
        """ASGI's messages of an answer by one of its replicas.

        Raises:
            LostReplica: it died, or none can be had.
            TooManyWait: as many requests wait as may.
        """
        from ray import serve
        from ray.exceptions import RayActorError, RayError
        from ray.serve.exceptions import BackPressureError, RayServeException

        handle = serve.get_deployment_handle(DEPLOYMENT, app_name=app_name(model))
        stream = handle.options(stream=True).call.remote(path, body)
        ended = False
        try:
            async for message in stream:
                yield message
            ended = True
        except BackPressureError as error:
            ended = True
            raise TooManyWait from error
        except (RayActorError, RayServeException) as error:
            ended = True
            raise LostReplica(str(error)) from error
        except RayError as error:
            ended = True
            log.exception("a replica of %s failed", model)
            raise LostReplica(str(error)) from error
        finally:
            if not ended:
                stream.cancel()


class LostReplica(Exception):
    """A replica went away with a request; nobody sees this."""


class TooManyWait(Exception):
    """No replica takes another request; nobody sees this."""


class Door:
    """The ASGI application."""

    def __init__(self, key_hashes: frozenset[str], models: ServeModels) -> None:
        """
        Args:
            key_hashes: of the keys that open it; none where nobody needs one.
            models: who answers.
        """
        self._key_hashes = key_hashes
        self._models = models

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send)
            except _Refused as refusal:
                for message in error_messages(refusal.status, str(refusal), code=refusal.code):
                    await send(message)

    async def _answer(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path == "/healthz" and method == "GET":
            return await self._health(send)
        if not path.startswith("/v1/"):
            raise _Refused(404, "There is nothing at this path; the models are below /v1.")
        self._check_key(scope)
        if path in _ASKING and method == "POST":
            body = await _body(receive)
            return await self._ask(await self._model_of(body), path, body, receive, send)
        if method != "GET" or not (path == "/v1/models" or path.startswith("/v1/models/")):
            raise _Refused(404, f"There is no {method} {path[:100]} here.")
        return await self._list(path, send)

    async def _health(self, send: Send) -> None:
        ready = any((await self._models.names()).values())
        await _send_json(send, 200 if ready else 503, {"status": "ok" if ready else "no model"})

    async def _list(self, path: str, send: Send) -> None:
        known = await self._models.names()
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "paddock"}
            for name in sorted(known)
        ]
        if path == "/v1/models":
            return await _send_json(send, 200, {"object": "list", "data": listed})
        wanted = unquote(path.removeprefix("/v1/models/"))
        for each in listed:
            if each["id"] == wanted:
                return await _send_json(send, 200, each)
        raise _no_such_model(wanted, known)

    async def _model_of(self, body: bytes) -> str:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise _Refused(400, "The body is no JSON.") from None
        model = asked.get("model") if isinstance(asked, dict) else None
        if not isinstance(model, str):
            raise _Refused(400, "The body must be a JSON object that names a 'model'.")
        known = await self._models.names()
        if model not in known:
            raise _no_such_model(model, known)
        return model

    async def _ask(self, model: str, path: str, body: bytes, receive: Receive, send: Send) -> None:
        """Hand the request on, and end it as soon as its client has gone."""
        answering = asyncio.create_task(self._hand_on(model, path, body, send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, _Refused):
                    await task

    async def _hand_on(self, model: str, path: str, body: bytes, send: Send) -> None:
        begun = False
        for attempt in range(_ATTEMPTS):
            messages = self._models.call(model, path, body)
            start: Message | None = None
            try:
                async for message in messages:
                    if message["type"] == "http.response.start":
                        start = message  # held back until there is more: so long it can be repeated
                        continue
                    if start is not None:
                        await send(start)
                        start, begun = None, True
                    await send(message)
                return
            except TooManyWait:
                raise _Refused(
                    429, f"Too many requests wait for {model}; try again in a while."
                ) from None
            except LostReplica as error:
                log.warning("a replica of %s was lost, attempt %d: %s", model, attempt + 1, error)
                if begun:
                    await send(error_event(_lost(model)) | {"more_body": False})
                    return
            finally:
                await messages.aclose()
            await asyncio.sleep(_AGAIN_AFTER_S)
        raise _Refused(503, _lost(model))

    def _check_key(self, scope: Mapping[str, Any]) -> None:
        if not self._key_hashes:
            return
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, key = given.partition(" ")
        mine = key_hash(key.strip())
        if kind.lower() != "bearer" or not any(
            hmac.compare_digest(mine, each) for each in self._key_hashes
        ):
            raise _Refused(401, "The API key is missing or wrong.", "invalid_api_key")


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def _no_such_model(model: str, known: Collection[str]) -> _Refused:
    there = ", ".join(sorted(known)) or "none"
    return _Refused(
        404, f"There is no model {model[:200]!r} here; there are: {there}.", "model_not_found"
    )


def _lost(model: str) -> str:
    return f"The replica of {model} that answered was lost; another takes its place, ask again."


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(400, "The request was not sent to its end.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY_BYTES:
            raise _Refused(413, f"The request is larger than {MOST_BODY_BYTES:,} bytes.")
        if not message.get("more_body"):
            return b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_json(send: Send, status: int, value: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": JSON_HEADERS})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def _live(receive: Receive, send: Send) -> None:
    """ASGI's lifespan: nothing is to be started or ended."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
