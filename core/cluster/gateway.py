"""Gateway to a cluster's models: one ``/v1`` for all of them, which forwards requests.

If a replica dies, its request is sent to another replica as long as nothing of the response was
sent; after that its stream ends with an error in OpenAI's format. Ray Serve does not repeat a
request that a replica has accepted. Closing the connection cancels the generation.

Without API keys only programs on the same machine are served. Cross-origin requests of a browser
are refused by :mod:`core.server.cross_site`, whatever host name they use.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.api.app import CHAT, COMPLETIONS, MODELS, with_request_id
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
from core.auth.tokens import sha256
from core.server.cross_site import CrossSiteMiddleware

log = logging.getLogger(__name__)

APP_PREFIX = "model-"
"""Prefix of Ray Serve applications that are models; the gateway is another application."""

GATEWAY_APP = "paddock-door"

DEPLOYMENT = "replica"

_ATTEMPTS = 3
"""Replicas that are tried before the client gets an error."""

_AGAIN_AFTER_S = 0.5
"""Time for Ray Serve to notice that a replica has died."""

_MODELS_FOR_S = 1.0
"""Time for which the list of models is cached."""

_GENERATING = (f"/v1/{CHAT}", f"/v1/{COMPLETIONS}")

_LISTING = f"/v1/{MODELS}"

_LATER = {"Retry-After": str(RETRY_AFTER_S)}


def app_name(model: str) -> str:
    """Return the Ray Serve application of a model; not all characters are allowed in its name."""
    return APP_PREFIX + quote(model, safe="")


def model_name(app: str) -> str | None:
    """Return the model of a Ray Serve application; None if it is not a model."""
    return unquote(app.removeprefix(APP_PREFIX)) if app.startswith(APP_PREFIX) else None


class GatewayIngress:
    """Builds the gateway in its replica; a Ray Serve deployment."""

    def __init__(self, key_hashes: Collection[str]) -> None:
        """
        Args:
            key_hashes: SHA-256 of the accepted API keys, which are long and random; empty if no key
                is required.
        """
        self._key_hashes = frozenset(key_hashes)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return gateway_app(self._key_hashes, ServeModels())


def gateway_app(key_hashes: frozenset[str], models: ServeModels) -> ASGIApp:
    """Return the gateway behind the protection against cross-site requests."""
    return CrossSiteMiddleware(
        Gateway(key_hashes, models), is_key=lambda key: bool(key_hashes and key)
    )


class ServeModels:
    """The models of Ray Serve."""

    def __init__(self) -> None:
        self._known: Mapping[str, bool] = {}
        self._listed_at = -_MODELS_FOR_S

    async def names(self) -> Mapping[str, bool]:
        """Return all models by name, and whether each can answer."""
        if time.monotonic() - self._listed_at >= _MODELS_FOR_S:
            from ray import serve

            status = await asyncio.to_thread(serve.status)
            self._known = {
                model: _can_answer(app)
                for name, app in status.applications.items()
                if (model := model_name(name)) is not None
            }
            self._listed_at = time.monotonic()
        return self._known

    async def call(self, model: str, path: str, body: bytes) -> AsyncIterator[Message]:
        """Yield the ASGI messages of a response by one of its replicas.

        Raises:
            ReplicaLostError: the replica died, or there is none.
            QueueFullError: the queue is full.
        """
        from ray import serve
        from ray.exceptions import RayActorError, RayError
        from ray.serve.exceptions import BackPressureError, RayServeException

        handle = serve.get_deployment_handle(DEPLOYMENT, app_name=app_name(model))
        stream = handle.options(stream=True).call.remote(path, body)
        try:
            async for message in stream:
                yield message
        except BackPressureError as error:
            raise QueueFullError from error
        except (RayActorError, RayServeException) as error:
            raise ReplicaLostError(str(error)) from error
        except RayError as error:
            log.exception("A replica of %s failed", model)
            raise ReplicaLostError(str(error)) from error
        except (GeneratorExit, asyncio.CancelledError):
            stream.cancel()
            raise


class ReplicaLostError(Exception):
    """A replica died during a request; internal."""


class QueueFullError(Exception):
    """No replica accepts another request; internal."""


class Gateway:
    """The ASGI application."""

    def __init__(self, key_hashes: frozenset[str], models: ServeModels) -> None:
        self._key_hashes = key_hashes
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
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
                if scope["method"] == "HEAD":
                    response.body = b""
                await response(scope, receive, with_request_id(send, uuid.uuid4().hex))

    async def _answer(self, request: Request, send: Send) -> Response | None:
        """Return the response; None if it was already sent."""
        path = request.url.path
        method = "GET" if request.method == "HEAD" else request.method
        if path == "/healthz" and method == "GET":
            ready = any((await self._models.names()).values())
            return json_response({"status": "ok" if ready else "no model"}, 200 if ready else 503)
        self._check_key(request)
        if path in _GENERATING and method == "POST":
            body = await read_body(request)
            model = parse_body(body).get("model")
            if not isinstance(model, str):
                raise ApiError(400, "'model' must be a string.", code="invalid_type", param="model")
            _refuse_absent(model, await self._models.names())
            await self._forward(model, path, body, request.receive, send)
            return None
        if method == "GET" and (path == _LISTING or path.startswith(f"{_LISTING}/")):
            return await self._list(path.removeprefix(_LISTING).removeprefix("/"))
        raise ApiError(
            404,
            f"{method[:20]} {path[:100]} does not exist. Use GET {_LISTING}, POST "
            f"{' and POST '.join(_GENERATING)}.",
            code="unknown_url",
        )

    async def _list(self, name: str) -> Response:
        known, model = await self._models.names(), unquote(name)
        if not model:
            return json_response(model_list([_card(each) for each in _ready(known)]))
        _refuse_absent(model, known)
        return json_response(model_object(_card(model)))

    async def _forward(
        self, model: str, path: str, body: bytes, receive: Receive, send: Send
    ) -> None:
        """Forward the request, and cancel it as soon as the client disconnects."""
        answering = asyncio.create_task(self._try_replicas(model, path, body, send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, ApiError):
                    await task

    async def _try_replicas(self, model: str, path: str, body: bytes, send: Send) -> None:
        begun = False
        for attempt in range(_ATTEMPTS):
            messages = self._models.call(model, path, body)
            start: Message | None = None
            try:
                async for message in messages:
                    if message["type"] == "http.response.start":
                        start = message  # kept back while it can still be repeated
                        continue
                    if start is not None:
                        await send(start)
                        start, begun = None, True
                    await send(message)
                return
            except QueueFullError:
                raise ApiError(
                    429,
                    f"Too many requests are waiting for {model}. Try again later.",
                    kind=RATE,
                    code="rate_limit_exceeded",
                    headers=_LATER,
                ) from None
            except ReplicaLostError as error:
                log.warning("A replica of %s was lost, attempt %d: %s", model, attempt + 1, error)
                if begun:
                    last = error_event(_lost(model))
                    await send({"type": "http.response.body", "body": last})
                    return
            finally:
                await messages.aclose()
            await asyncio.sleep(_AGAIN_AFTER_S)
        raise _lost(model)

    def _check_key(self, request: Request) -> None:
        if not self._key_hashes:
            if not is_loopback_host(request.headers.get("host", "")):
                raise ApiError(
                    403,
                    "Without API keys only programs on the same machine are served, at localhost "
                    "or 127.0.0.1.",
                    kind=PERMISSION,
                    code="forbidden",
                )
            return
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        given = sha256(key.strip())
        known = any(hmac.compare_digest(given, each) for each in self._key_hashes)
        if kind.lower() != "bearer" or not known:
            raise ApiError(
                401,
                "Incorrect API key. Send it in the header `Authorization: Bearer KEY`.",
                kind=AUTHENTICATION,
                code="invalid_api_key",
            )


def _can_answer(app: Any) -> bool:
    """Return whether it answers now or soon; after a failed update the previous replicas still
    do."""
    if app.status == "DEPLOY_FAILED":
        return any(each.replica_states.get("RUNNING", 0) for each in app.deployments.values())
    return app.status in ("RUNNING", "DEPLOYING", "UNHEALTHY")


def _card(model: str) -> ModelCard:
    return ModelCard(model, model, 0, "paddock")


def _ready(known: Mapping[str, bool]) -> list[str]:
    return sorted(model for model, ready in known.items() if ready)


def _refuse_absent(model: str, known: Mapping[str, bool]) -> None:
    if model not in known:
        there = ", ".join(_ready(known)) or "none"
        raise ApiError(
            404,
            f"The model {model[:200]!r} does not exist. Available models: {there}.",
            code="model_not_found",
            param="model",
        )
    if not known[model]:
        raise ApiError(
            503,
            f"{model} failed to start. `python -m core serve --status` shows why.",
            kind=SERVER,
            code="unavailable",
            headers=_LATER,
        )


def _lost(model: str) -> ApiError:
    return ApiError(
        503,
        f"The replica of {model} that was answering was lost and is being replaced. Send the "
        "request again.",
        kind=SERVER,
        code="replica_lost",
        headers=_LATER,
    )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    """Handle ASGI's lifespan; there is nothing to start or stop."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
