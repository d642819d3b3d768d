"""``/v1`` of one loaded model: chat completions and completions, whole or streamed.

An ASGI application, which a replica runs and the cluster's door hands requests to.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.cluster.openai_errors import error_object
from core.engine import Engine
from core.errors import BadRequestError, PaddockError, PersonMistake
from core.generation.answer import Answer, StopReason
from core.generation.job import Job, Phase
from core.generation.request import GenerationRequest
from core.records import Origin
from core.runtimes.spec import ModelSpec, SamplingSettings

_LOOK_EVERY_S = 0.01
"""How often a stream looks for new tokens."""

_FINISH = {StopReason.LENGTH: "length"}

_ROLES = ("system", "developer", "user", "assistant")


def model_app(engine: Engine, spec: ModelSpec, name: str) -> Starlette:
    """The application.

    Args:
        engine: that has the model.
        spec: of the model.
        name: by which clients ask for it.
    """
    service = _Service(engine, spec, name)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/completions", service.complete, methods=["POST"]),
        ]
    )


class _Service:
    def __init__(self, engine: Engine, spec: ModelSpec, name: str) -> None:
        self._engine = engine
        self._spec = spec
        self._name = name

    async def chat(self, request: Request) -> Response:
        """``POST /v1/chat/completions``."""
        return await self._answer(request, chat=True)

    async def complete(self, request: Request) -> Response:
        """``POST /v1/completions``; the prompt is an instruction."""
        return await self._answer(request, chat=False)

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        try:
            body = _object(await request.body())
            asked = _request(body, chat=chat)
            job = self._engine.answer(
                self._engine.pool.handle(self._spec), asked, origin=Origin.API
            )
        except PaddockError as error:
            return _refusal(error)
        form = _Form(self._name, chat=chat)
        if body.get("stream") is True:
            try:
                await _begun(job)
            except asyncio.CancelledError:
                job.cancel()
                raise
            if job.answer is not None and job.answer.error is not None and not job.text:
                return _refusal(job.answer.error)
            options = body.get("stream_options")
            usage = isinstance(options, dict) and options.get("include_usage") is True
            return StreamingResponse(form.events(job, usage=usage), media_type="text/event-stream")
        try:
            while not job.done:
                if await request.is_disconnected():
                    break
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            job.cancel()
        answer = await asyncio.to_thread(_ended, job)
        return _refusal(answer.error) if answer.error else JSONResponse(form.whole(answer))


class _Form:
    """One answer in OpenAI's form."""

    def __init__(self, model: str, *, chat: bool) -> None:
        self._chat = chat
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The whole answer."""
        kind = "chat.completion" if self._chat else "text_completion"
        content = (
            {"message": {"role": "assistant", "content": answer.text}}
            if self._chat
            else {"text": answer.text}
        )
        choice = {"index": 0, "finish_reason": _finish(answer), "logprobs": None} | content
        return self._head | {"object": kind, "choices": [choice], "usage": _usage(answer)}

    async def events(self, job: Job, *, usage: bool) -> AsyncIterator[str]:
        """Server-sent events as the tokens come; an error is the last of them."""
        read = 0
        try:
            if self._chat:
                yield self._event({"role": "assistant", "content": ""}, None)
            while True:
                done = job.done
                pieces, read = job.read(read)
                if text := "".join(pieces):
                    yield self._event({"content": text} if self._chat else text, None)
                if done:
                    break
                await asyncio.sleep(_LOOK_EVERY_S)
            answer = _ended(job)
            if answer.error is not None:
                yield _data(error_object(_sentence(answer.error), "server_error"))
                return
            yield self._event({} if self._chat else "", _finish(answer))
            if usage:
                yield _data(self._with_object() | {"choices": [], "usage": _usage(answer)})
            yield "data: [DONE]\n\n"
        finally:
            job.cancel()

    def _event(self, content: dict[str, str] | str, finish: str | None) -> str:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        choice["delta" if self._chat else "text"] = content
        return _data(self._with_object() | {"choices": [choice]})

    def _with_object(self) -> dict[str, Any]:
        return self._head | {"object": "chat.completion.chunk" if self._chat else "text_completion"}


async def _begun(job: Job) -> None:
    """Wait for the first token or the end: an error before it can still have a status."""
    while not job.done and job.snapshot().phase is not Phase.ANSWERING:
        await asyncio.sleep(_LOOK_EVERY_S)


def _request(body: Mapping[str, Any], *, chat: bool) -> GenerationRequest:
    """
    Raises:
        BadRequestError: something in it cannot be used.
    """
    instruction, context = _folded(body) if chat else (_prompt(body), "")
    if body.get("stop") or body.get("n", 1) not in (None, 1):
        raise BadRequestError("This server takes neither 'stop' nor an 'n' other than 1 here.")
    temperature = _number(body, "temperature", 0.8)
    most = body.get("max_completion_tokens")
    sampling = SamplingSettings(
        max_new_tokens=_whole(body, "max_tokens", 256)
        if most is None
        else _whole(body, "max_completion_tokens", 256),
        temperature=temperature or 0.8,
        top_p=_number(body, "top_p", 0.92),
        top_k=_whole(body, "top_k", 0),
        greedy=temperature == 0,
        seed=None if body.get("seed") is None else _whole(body, "seed", 0),
    )
    return GenerationRequest(instruction, context, sampling).validated()


def _folded(body: Mapping[str, Any]) -> tuple[str, str]:
    """The last message of the user, and all before it as its context."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("'messages' must be a list with at least one message.")
    turns = [_turn(message) for message in messages]
    role, instruction = turns[-1]
    if role != "user":
        raise BadRequestError("The last message must be the user's.")
    return instruction, "\n\n".join(text for _, text in turns[:-1])


def _turn(message: Any) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in _ROLES:
        raise BadRequestError(f"Each message needs a role, one of {', '.join(_ROLES)}.")
    content = message.get("content")
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) else None for p in content]
        content = "\n".join(parts) if all(isinstance(p, str) for p in parts) else None
    if not isinstance(content, str):
        raise BadRequestError("The content of each message must be text.")
    return role, content


def _prompt(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequestError("'prompt' must be one text.")
    return prompt


def _number(body: Mapping[str, Any], name: str, usual: float) -> float:
    value = body.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequestError(f"'{name}' must be a number.")
    try:
        return float(value)
    except OverflowError:
        raise BadRequestError(f"'{name}' is too large.") from None


def _whole(body: Mapping[str, Any], name: str, usual: int) -> int:
    value = body.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequestError(f"'{name}' must be a whole number.")
    return value


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequestError("The body is no JSON.") from None
    if not isinstance(found, dict):
        raise BadRequestError("The body must be a JSON object.")
    return found


def _ended(job: Job) -> Answer:
    job.wait()
    assert job.answer is not None, "the job has ended"
    return job.answer


def _finish(answer: Answer) -> str:
    return _FINISH.get(answer.stop_reason, "stop")


def _usage(answer: Answer) -> dict[str, int]:
    prompt = answer.timings.prompt_tokens if answer.timings else 0
    new = len(answer.token_ids)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def _refusal(error: Exception) -> JSONResponse:
    mistake = isinstance(error, PersonMistake)
    kind = "invalid_request_error" if mistake else "server_error"
    return JSONResponse(error_object(_sentence(error), kind), 400 if mistake else 503)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, PaddockError) else "The answer failed unexpectedly."


def _data(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
