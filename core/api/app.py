"""The routes below ``/v1``, as one ASGI application."""

from __future__ import annotations

import logging
from collections.abc import Callable
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.api.body import parse_body, read_body
from core.api.errors import ApiError, api_error, json_response
from core.api.protocol import ParsedRequest, parse_chat, parse_completion
from core.api.replies import Reply, failure, model_list, model_object
from core.api.service import Authenticate, Caller, ModelService, Running
from core.api.stream import Follower, send_stream
from core.errors import PaddockError

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
        """
        Args:
            service: called for each request, in a thread.
            authenticate: identifies the caller of a request.
            prefix: prefix of all paths, without a trailing slash.
            count: called after every request.
        """
        self._service = service
        self._authenticate = authenticate
        self._prefix = prefix
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        request = Request(scope, receive)
        path = scope["path"].removeprefix(self._prefix).strip("/")
        route = _route(path)
        status = CLIENT_CLOSED
        try:
            status = await self._answer(request, path, route, send)
        except ClientDisconnect:
            pass
        except ApiError as error:
            status = await _send(error.response(), scope, receive, send)
        except PaddockError as error:
            status = await _send(api_error(error).response(), scope, receive, send)
        except Exception as error:
            logger.exception("A request to %s failed unexpectedly", route)
            status = await _send(api_error(error).response(), scope, receive, send)
        finally:
            known = request.method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
            self._count(route, request.method if known else "other", status)

    async def _answer(self, request: Request, path: str, route: str, send: Send) -> int:
        caller = await run_in_threadpool(self._authenticate, request)
        _check_route(request, path, route)
        if route == f"/v1/{MODELS}":
            service = await run_in_threadpool(self._service)
            cards = await run_in_threadpool(service.models)
            return await _send_to(json_response(model_list(cards)), request, send)
        if route.startswith(f"/v1/{MODELS}"):
            name = unquote(path.removeprefix(f"{MODELS}/"))
            service = await run_in_threadpool(self._service)
            card = await run_in_threadpool(service.find, name)
            return await _send_to(json_response(model_object(card)), request, send)
        body = await read_body(request)
        chat = path == CHAT
        parsed, running = await run_in_threadpool(self._start, body, caller, chat=chat)
        reply = Reply(running.id, parsed.model, chat)
        async with Follower(running, request.receive) as follower:
            if parsed.stream:
                return await send_stream(parsed, reply, follower, send)
            if not await follower.wait_until_done():
                return CLIENT_CLOSED
            return await _send_to(_whole(parsed, reply, running), request, send)

    def _start(self, body: bytes, caller: Caller, *, chat: bool) -> tuple[ParsedRequest, Running]:
        service = self._service()
        parse = parse_chat if chat else parse_completion
        parsed = parse(parse_body(body), service.limits, service.sampling)
        try:
            return parsed, service.start(parsed.model, parsed.request, caller)
        except PaddockError as error:
            raise api_error(error, param=parsed.param) from error


def _whole(parsed: ParsedRequest, reply: Reply, running: Running) -> Response:
    answer = running.answer
    assert answer is not None, "the answer is complete"
    if error := failure(answer, parsed.param):
        raise error
    text = parsed.prefix + "".join(running.read(0)[0])
    return json_response(reply.whole(text, answer))


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
    if request.method != wanted:
        raise ApiError(
            405,
            f"{route} does not support this method. Use {wanted}.",
            code="method_not_supported",
            headers={"Allow": wanted},
        )


async def _send_to(response: Response, request: Request, send: Send) -> int:
    return await _send(response, request.scope, request.receive, send)


async def _send(response: Response, scope: Scope, receive: Receive, send: Send) -> int:
    await response(scope, receive, send)
    return response.status_code
