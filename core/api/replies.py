"""Responses in OpenAI's format: whole answers, and chunks of streamed ones."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.api.errors import SERVER, ApiError, api_error
from core.api.service import ModelCard
from core.inference.answer import Answer, StopReason

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients ignore; keeps proxies from closing the connection."""


def model_object(card: ModelCard) -> dict[str, Any]:
    """Return OpenAI's model object, with title and context length in addition."""
    return {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": card.owned_by,
        "title": card.title,
        "max_model_len": card.positions,
    }


def model_list(cards: Sequence[ModelCard]) -> dict[str, Any]:
    """Return OpenAI's list object of all models."""
    return {"object": "list", "data": [model_object(card) for card in cards]}


def finish_reason(reason: StopReason) -> str:
    """Return OpenAI's ``finish_reason``; an answer that timed out is "length", too."""
    return "length" if reason in (StopReason.LENGTH, StopReason.TIMEOUT) else "stop"


def usage(answer: Answer) -> dict[str, int]:
    """Return OpenAI's usage object; the end token is counted."""
    timings = answer.timings
    prompt = (timings.prompt_tokens or 0) if timings else 0
    new = timings.new_tokens if timings else 0
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def failure(answer: Answer, param: str) -> ApiError | None:
    """Return the error of an answer that failed or was cancelled, or None if it is complete."""
    if answer.error is not None:
        return api_error(answer.error, param=param)
    if answer.stop_reason is StopReason.CANCELLED:
        return ApiError(
            503, "The generation was cancelled on the server.", kind=SERVER, code="cancelled"
        )
    return None


@dataclass(frozen=True)
class Reply:
    """Builds the response to one request."""

    answer_id: str
    model: str
    """Model name as sent."""
    chat: bool
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def _id(self) -> str:
        return f"{'chatcmpl' if self.chat else 'cmpl'}-{self.answer_id}"

    def whole(self, text: str, answer: Answer) -> dict[str, Any]:
        """Return the response to a request without ``stream``."""
        content = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if self.chat
            else {"text": text}
        )
        return {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": [
                {
                    "index": 0,
                    **content,
                    "logprobs": None,
                    "finish_reason": finish_reason(answer.stop_reason),
                }
            ],
            "usage": usage(answer),
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }


class Chunks:
    """Events of a streamed answer; the parts common to all are serialized once."""

    def __init__(self, reply: Reply, *, include_usage: bool) -> None:
        self._chat = reply.chat
        self._include_usage = include_usage
        kind = "chat.completion.chunk" if reply.chat else "text_completion"
        head = _json(reply._head(kind))[:-1]
        self._start = f'data: {head},"choices":['
        self._end = '],"usage":null}\n\n' if include_usage else "]}\n\n"
        before = '{"index":0,"delta":{"content":' if reply.chat else '{"index":0,"text":'
        after = "}" if reply.chat else ""
        self._before = self._start + before
        self._after = f'{after},"logprobs":null,"finish_reason":null}}{self._end}'

    def first(self) -> bytes:
        """Return the chunk with the role; completions have none."""
        if not self._chat:
            return b""
        choice = '{"index":0,"delta":{"role":"assistant","content":""},'
        return f'{self._start}{choice}"logprobs":null,"finish_reason":null}}{self._end}'.encode()

    def text(self, text: str) -> bytes:
        """Return the chunk with a piece of the answer."""
        return f"{self._before}{json.dumps(text)}{self._after}".encode()

    def last(self, answer: Answer) -> bytes:
        """Return the chunk with the finish reason, the usage if requested, and ``[DONE]``."""
        content: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        reason = finish_reason(answer.stop_reason)
        choice = _json({"index": 0, **content, "logprobs": None, "finish_reason": reason})
        ends = f"{self._start}{choice}{self._end}"
        if self._include_usage:
            ends += f'{self._start}],"usage":{_json(usage(answer))}}}\n\n'
        return ends.encode() + DONE


def error_event(error: ApiError) -> bytes:
    """Return the event of an error after the stream has started; it is the last one."""
    return f"event: error\ndata: {_json(error.body)}\n\n".encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
