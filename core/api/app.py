"""The routes below ``/v1``, as one ASGI application."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from core.api.body import parse_body, read_body
from core.api.errors import ApiError, api_error, json_response
from core.api.protocol import ParsedRequest, parse_chat, parse_completion
from core.api.replies import Reader, Reply, model_list, model_object
from core.api.service import Authenticate, ModelService
from core.api.stream import Follower, ended, failure_of, send_stream
from core.errors import PaddockError
from core.inference.job import Job
from core.inference.request import User

CHAT, COMPLETIONS, MODELS = "chat/completions", "completions", "models"
CLIENT_CLOSED = 499
"""Status recorded when the client closed the connection before the response, as in nginx."""

CountRequest = Callable[[str, str, int], None]
"""Called with route, method and status of every request."""

logger = logging.getLogger(__name__)


class Api:
    """OpenAI-compatible ASGI application for one :class:`core.api.service.ModelService`."""

    def __init__(
        self,
        service: Callable[[], ModelService],
        authenticate: Authenticate,
        *,
        prefix: str = "/v1",
        count: CountRequest = lambda route, method, status: None,
    ) -> None:
        """``service`` is called for each request, in a thread."""
        self._service = service
        self._authenticate = authenticate
        self._prefix = prefix
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        request, request_id = Request(scope, receive), uuid.uuid4().hex
        send = with_request_id(send, request_id)
        path = scope["path"].removeprefix(self._prefix).strip("/")
        route = _route(path)
        status = CLIENT_CLOSED
        try:
            status = await self._answer(request, path, route, send)
        except ClientDisconnect:
            pass
        except (ApiError, PaddockError) as error:
            status = await _send(api_error(error).response(), request, send)
        except Exception as error:
            logger.exception("Request %s to %s failed unexpectedly", request_id, route)
            status = await _send(api_error(error).response(), request, send)
        finally:
            known = request.method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
            self._count(route, request.method if known else "other", status)

    async def _answer(self, request: Request, path: str, route: str, send: Send) -> int:
        user = await run_in_threadpool(self._authenticate, request)
        _check_route(request, path, route)
        if route == f"/v1/{MODELS}":
            cards = await run_in_threadpool(lambda: self._service().models())
            return await _send(json_response(model_list(cards)), request, send)
        if route.startswith(f"/v1/{MODELS}"):
            name = unquote(path.removeprefix(f"{MODELS}/"))
            card = await run_in_threadpool(lambda: self._service().find(name))
            return await _send(json_response(model_object(card)), request, send)
        body = await read_body(request)
        chat = path == CHAT
        parsed, answers = await run_in_threadpool(self._start, body, user, chat=chat)
        logprobs = parsed.request.options.logprobs
        reply = Reply(answers[0].id, parsed.model, chat, logprobs, parsed.token_ids)
        async with Follower(answers, request.receive) as follower:
            if parsed.stream:
                return await send_stream(parsed, reply, follower, send)
            if not await follower.wait_until_done():
                return CLIENT_CLOSED
            if error := failure_of(answers, parsed.param):
                raise error
            found = [Reader(each, parsed.prefix).read() for each in answers]
            whole = reply.whole(list(zip(found, ended(answers), strict=True)))
            return await _send(json_response(whole), request, send)

    def _start(self, body: bytes, user: User, *, chat: bool) -> tuple[ParsedRequest, list[Job]]:
        service = self._service()
        parse = parse_chat if chat else parse_completion
        parsed = parse(parse_body(body), service.settings, service.sampling)
        answers: list[Job] = []
        try:
            for request in parsed.requests:
                answers.append(service.start(parsed.model, request, user))
        except PaddockError as error:
            for answer in answers:
                answer.cancel()
            raise api_error(error, param=parsed.param) from error
        return parsed, answers


def _route(path: str) -> str:
    """Return the route of a path; there are only a few, so that they can be metric labels."""
    if path in (CHAT, COMPLETIONS, MODELS):
        return f"/v1/{path}"
    return f"/v1/{MODELS}/id" if path.startswith(f"{MODELS}/") else "/v1/unknown"


def _check_route(request: Request, path: str, route: str) -> None:
    """Check that the path exists and supports the method.

    Raises:
        ApiError: it does not.
    """
    if route == "/v1/unknown":
        raise ApiError(
            404,
            f"/v1/{path[:100]} does not exist. Use /v1/{MODELS}, /v1/{CHAT} or /v1/{COMPLETIONS}.",
            code="unknown_url",
        )
    wanted = "POST" if path in (CHAT, COMPLETIONS) else "GET"
    method = "GET" if request.method == "HEAD" else request.method
    if method != wanted:
        raise ApiError(
            405,
            f"{route} does not support this method. Use {wanted}.",
            code="method_not_supported",
            headers={"Allow": wanted},
        )


async def _send(response: Response, request: Request, send: Send) -> int:
    if request.method == "HEAD":  # the headers of the same GET, without its body
        response.body = b""
    await response(request.scope, request.receive, send)
    return response.status_code


def with_request_id(send: Send, request_id: str) -> Send:
    """Return ``send`` with the header ``x-request-id``, which OpenAI's clients show in errors."""

    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["x-request-id"] = request_id
        await send(message)

    return send_with_id
