"""Answers in OpenAI's form: whole ones, and the chunks of streamed ones."""

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
STILL_THERE = b": still there\n\n"
"""A comment, which every client passes over; keeps proxies from hanging up."""


def model_object(card: ModelCard) -> dict[str, Any]:
    """One model, with its title and positions beside OpenAI's fields."""
    return {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": card.owned_by,
        "title": card.title,
        "max_model_len": card.positions,
    }


def model_list(cards: Sequence[ModelCard]) -> dict[str, Any]:
    """All models."""
    return {"object": "list", "data": [model_object(card) for card in cards]}


def finish_reason(reason: StopReason) -> str:
    """OpenAI's word for the end of an answer; one that took too long is cut off, too."""
    return "length" if reason in (StopReason.LENGTH, StopReason.TIMEOUT) else "stop"


def usage(answer: Answer) -> dict[str, int]:
    """Tokens in and out; an end token counts."""
    timings = answer.timings
    prompt = (timings.prompt_tokens or 0) if timings else 0
    new = timings.new_tokens if timings else 0
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def failure(answer: Answer, param: str) -> ApiError | None:
    """What a program is told of an answer that failed or was stopped here; None of a good one."""
    if answer.error is not None:
        return api_error(answer.error, param=param)
    if answer.stop_reason is StopReason.CANCELLED:
        return ApiError(503, "The answer was stopped here.", kind=SERVER, code="cancelled")
    return None


@dataclass(frozen=True)
class Reply:
    """Builds what one request is answered with."""

    answer_id: str
    model: str
    """As the program named it."""
    chat: bool
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def _id(self) -> str:
        return f"{'chatcmpl' if self.chat else 'cmpl'}-{self.answer_id}"

    def whole(self, text: str, answer: Answer) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        said = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if self.chat
            else {"text": text}
        )
        return {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": [
                {
                    "index": 0,
                    **said,
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
    """The events of a streamed answer; what all share is written once."""

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
        """Says who speaks; a completion has no such chunk."""
        if not self._chat:
            return b""
        choice = '{"index":0,"delta":{"role":"assistant","content":""},'
        return f'{self._start}{choice}"logprobs":null,"finish_reason":null}}{self._end}'.encode()

    def text(self, text: str) -> bytes:
        """A piece of the answer."""
        return f"{self._before}{json.dumps(text)}{self._after}".encode()

    def last(self, answer: Answer) -> bytes:
        """Why it ended, the usage where it was asked for, and that nothing follows."""
        said: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        reason = finish_reason(answer.stop_reason)
        choice = _json({"index": 0, **said, "logprobs": None, "finish_reason": reason})
        ends = f"{self._start}{choice}{self._end}"
        if self._include_usage:
            ends += f'{self._start}],"usage":{_json(usage(answer))}}}\n\n'
        return ends.encode() + DONE


def error_event(error: ApiError) -> bytes:
    """An error after the answer has begun; nothing follows it."""
    return f"event: error\ndata: {_json(error.body)}\n\n".encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
