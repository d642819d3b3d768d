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
from core.api.follow import Follower
from core.api.protocol import Asked, parse_chat, parse_completion
from core.api.replies import Reply, failure, model_list, model_object
from core.api.service import Admission, Answering, Caller, Running
from core.api.stream import send_stream
from core.errors import PaddockError

CHAT, COMPLETIONS, MODELS = "chat/completions", "completions", "models"
HUNG_UP = 499
"""Counted for a client that left before it was answered, as nginx does; nobody is sent it."""

CountRequest = Callable[[str, str, int], None]
"""Told the route, the method and the status of every request."""

logger = logging.getLogger(__name__)


class Api:
    """Speaks OpenAI's protocol for one :class:`core.api.service.Answering`."""

    def __init__(
        self,
        answering: Callable[[], Answering],
        admission: Admission,
        *,
        prefix: str = "/v1",
        count: CountRequest = lambda route, method, status: None,
    ) -> None:
        """
        Args:
            answering: asked for with each request, in a thread.
            admission: tells who asks.
            prefix: of all paths, without a slash behind.
            count: told of every request.
        """
        self._answering = answering
        self._admission = admission
        self._prefix = prefix
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        request = Request(scope, receive)
        path = scope["path"].removeprefix(self._prefix).strip("/")
        route = _route(path)
        status = HUNG_UP
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
        caller = await run_in_threadpool(self._admission, request)
        _check_route(request, path, route)
        if route == f"/v1/{MODELS}":
            answering = await run_in_threadpool(self._answering)
            cards = await run_in_threadpool(answering.models)
            return await _send_to(json_response(model_list(cards)), request, send)
        if route.startswith(f"/v1/{MODELS}"):
            name = unquote(path.removeprefix(f"{MODELS}/"))
            answering = await run_in_threadpool(self._answering)
            card = await run_in_threadpool(answering.find, name)
            return await _send_to(json_response(model_object(card)), request, send)
        body = await read_body(request)
        chat = path == CHAT
        asked, running = await run_in_threadpool(self._start, body, caller, chat=chat)
        reply = Reply(running.id, asked.model, chat)
        async with Follower(running, request.receive) as follower:
            if asked.stream:
                return await send_stream(asked, reply, follower, send)
            if not await follower.ended():
                return HUNG_UP
            return await _send_to(_whole(asked, reply, running), request, send)

    def _start(self, body: bytes, caller: Caller, *, chat: bool) -> tuple[Asked, Running]:
        answering = self._answering()
        parse = parse_chat if chat else parse_completion
        asked = parse(parse_body(body), answering.limits, answering.sampling)
        try:
            return asked, answering.start(asked.model, asked.request, caller)
        except PaddockError as error:
            raise api_error(error, param=asked.param) from error


def _whole(asked: Asked, reply: Reply, running: Running) -> Response:
    answer = running.answer
    assert answer is not None, "it has ended"
    if error := failure(answer, asked.param):
        raise error
    text = asked.prefix + "".join(running.read(0)[0])
    return json_response(reply.whole(text, answer))


def _route(path: str) -> str:
    """The route of a path, of which there are few, so that they can be counted."""
    if path in (CHAT, COMPLETIONS, MODELS):
        return f"/v1/{path}"
    return f"/v1/{MODELS}/id" if path.startswith(f"{MODELS}/") else "/v1/unknown"


def _check_route(request: Request, path: str, route: str) -> None:
    """
    Raises:
        ApiError: there is no such path, or another method is meant for it.
    """
    if route == "/v1/unknown":
        raise ApiError(
            404,
            f"There is no /v1/{path[:100]} here; there are /v1/{MODELS}, /v1/{CHAT} and "
            f"/v1/{COMPLETIONS}.",
            code="unknown_url",
        )
    wanted = "POST" if path in (CHAT, COMPLETIONS) else "GET"
    if request.method != wanted:
        raise ApiError(
            405,
            f"Ask {route} with {wanted}.",
            code="method_not_supported",
            headers={"Allow": wanted},
        )


async def _send_to(response: Response, request: Request, send: Send) -> int:
    return await _send(response, request.scope, request.receive, send)


async def _send(response: Response, scope: Scope, receive: Receive, send: Send) -> int:
    await response(scope, receive, send)
    return response.status_code
