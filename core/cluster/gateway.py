"""The door of a cluster's models: one ``/v1`` that knows all of them and hands requests on.

What becomes of a request whose replica dies: as long as nothing of its answer was sent, it is asked
of another replica; after that its stream ends with an error in OpenAI's form. Ray Serve itself
repeats nothing once a replica has taken a request. A client that goes away ends its answer.

Without keys it is for programs of its own machine, and no page of another site may ask through
somebody's browser, whatever name it goes by.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from core.api.app import CHAT, COMPLETIONS, MODELS
from core.api.body import parse_body, read_body
from core.api.errors import (
    AUTHENTICATION,
    PERMISSION,
    RATE,
    RETRY_AFTER_S,
    SERVER,
    ApiError,
    json_response,
)
from core.api.replies import error_event, model_list, model_object
from core.api.service import ModelCard
from core.auth.permissions import is_loopback_host
from core.server.forms import from_this_site, opened_directly

log = logging.getLogger(__name__)

APP_PREFIX = "model-"
"""Of the Ray Serve applications that are models; the door is one of its own."""

DOOR_APP = "paddock-door"

DEPLOYMENT = "replica"

_ATTEMPTS = 3
"""Replicas that a request is asked of before its client is told."""

_AGAIN_AFTER_S = 0.5
"""Until Ray Serve has noticed that a replica is gone."""

_MODELS_FOR_S = 1.0
"""How long the list of models is taken to be right."""

_ASKING = (f"/v1/{CHAT}", f"/v1/{COMPLETIONS}")

_LISTING = f"/v1/{MODELS}"

_LATER = {"Retry-After": str(RETRY_AFTER_S)}


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
                model: _can_answer(app)
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            request = Request(scope, receive)
            try:
                response = await self._answer(request, send)
            except ClientDisconnect:
                return
            except ApiError as error:
                response = error.response()
            if response is not None:
                await response(scope, receive, send)

    async def _answer(self, request: Request, send: Send) -> Response | None:
        """The answer; None where it was sent already."""
        path, method = request.url.path, request.method
        if path == "/healthz" and method == "GET":
            ready = any((await self._models.names()).values())
            return json_response({"status": "ok" if ready else "no model"}, 200 if ready else 503)
        self._check_key(request)
        if path in _ASKING and method == "POST":
            body = await read_body(request)
            model = parse_body(body).get("model")
            if not isinstance(model, str):
                raise ApiError(400, "Name a 'model', as text.", code="invalid_type", param="model")
            _refuse_absent(model, await self._models.names())
            await self._ask(model, path, body, request.receive, send)
            return None
        if method == "GET" and (path == _LISTING or path.startswith(f"{_LISTING}/")):
            return await self._list(path.removeprefix(_LISTING).removeprefix("/"))
        raise ApiError(
            404,
            f"There is no {method[:20]} {path[:100]} here; there are GET {_LISTING}, "
            f"POST {' and POST '.join(_ASKING)}.",
            code="unknown_url",
        )

    async def _list(self, name: str) -> Response:
        known, model = await self._models.names(), unquote(name)
        if not model:
            return json_response(model_list([_card(each) for each in _ready(known)]))
        _refuse_absent(model, known)
        return json_response(model_object(_card(model)))

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
                with suppress(asyncio.CancelledError, ApiError):
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
                raise ApiError(
                    429,
                    f"Too many requests wait for {model}; try again in a while.",
                    kind=RATE,
                    code="rate_limit_exceeded",
                    headers=_LATER,
                ) from None
            except LostReplica as error:
                log.warning("a replica of %s was lost, attempt %d: %s", model, attempt + 1, error)
                if begun:
                    last = error_event(_lost(model))
                    await send({"type": "http.response.body", "body": last})
                    return
            finally:
                await messages.aclose()
            await asyncio.sleep(_AGAIN_AFTER_S)
        raise _lost(model)

    def _check_key(self, request: Request) -> None:
        """
        Raises:
            ApiError: it needs a key, and that is none; or nobody needs one, and it does not come
                from this machine.
        """
        if not self._key_hashes:
            host = request.headers.get("host", "")
            if not is_loopback_host(host) or not (
                from_this_site(request) or opened_directly(request)
            ):
                raise ApiError(
                    403,
                    "Without keys this answers programs of its own machine alone, at localhost or "
                    "127.0.0.1, and no other site's page.",
                    kind=PERMISSION,
                    code="forbidden",
                )
            return
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        given = key_hash(key.strip())
        known = any(hmac.compare_digest(given, each) for each in self._key_hashes)
        if kind.lower() != "bearer" or not known:
            raise ApiError(
                401,
                "The API key is missing or wrong; send it as Authorization: Bearer KEY.",
                kind=AUTHENTICATION,
                code="invalid_api_key",
            )


def _can_answer(app: Any) -> bool:
    """Whether it does, or is about to; one that was to be replaced in vain still does."""
    if app.status == "DEPLOY_FAILED":
        return any(each.replica_states.get("RUNNING", 0) for each in app.deployments.values())
    return app.status in ("RUNNING", "DEPLOYING", "UNHEALTHY")


def _card(model: str) -> ModelCard:
    return ModelCard(model, model, 0, "paddock")


def _ready(known: Mapping[str, bool]) -> list[str]:
    return sorted(model for model, ready in known.items() if ready)


def _refuse_absent(model: str, known: Mapping[str, bool]) -> None:
    """
    Raises:
        ApiError: there is no such model, or it did not come up.
    """
    if model not in known:
        there = ", ".join(_ready(known)) or "none"
        raise ApiError(
            404,
            f"There is no model {model[:200]!r} here; there are: {there}.",
            code="model_not_found",
            param="model",
        )
    if not known[model]:
        raise ApiError(
            503,
            f"{model} did not come up; whoever serves it sees why with `serve --status`.",
            kind=SERVER,
            code="unavailable",
            headers=_LATER,
        )


def _lost(model: str) -> ApiError:
    return ApiError(
        503,
        f"The replica of {model} that answered was lost; another takes its place, so ask again.",
        kind=SERVER,
        code="replica_lost",
        headers=_LATER,
    )


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    """ASGI's lifespan: nothing is to be started or ended."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
