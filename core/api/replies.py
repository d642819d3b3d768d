"""Responses in OpenAI's format: whole answers, and chunks of streamed ones."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.api.errors import SERVER, ApiError, api_error
from core.api.service import ModelCard
from core.inference.answer import Answer, StopReason
from core.inference.job import Job
from core.inference.work import LogProbability
from core.runtimes.token_text import TokenText

if TYPE_CHECKING:
    from core.inference.token_probabilities import TokenProbability

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


def usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return OpenAI's usage object; end tokens are counted, and the common prompt once."""
    timings = [each.timings for each in answers if each.timings is not None]
    prompt = max((each.prompt_tokens or 0 for each in timings), default=0)
    new = sum(each.new_tokens for each in timings)
    cached = [each.cached_tokens for each in timings if each.cached_tokens is not None]
    thinking = sum(each.thinking.tokens for each in answers if each.thinking is not None)
    found = {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
    cache = {"prompt_tokens_details": {"cached_tokens": cached[0]}} if cached else {}
    guessed = sum(each.draft_tokens or 0 for each in timings)
    accepted = sum(each.accepted_tokens or 0 for each in timings)
    details = {"reasoning_tokens": thinking} if thinking else {}
    if guessed:  # OpenAI's names for its predicted outputs
        details["accepted_prediction_tokens"] = accepted
        details["rejected_prediction_tokens"] = guessed - accepted
    return found | cache | ({"completion_tokens_details": details} if details else {})


def failure(answer: Answer, param: str) -> ApiError | None:
    """Return the error of an answer that failed or was cancelled, or None if it is complete."""
    if answer.error is not None:
        return api_error(answer.error, param=param)
    if answer.stop_reason is StopReason.CANCELLED:
        return ApiError(
            503, "The generation was cancelled on the server.", kind=SERVER, code="cancelled"
        )
    return None


@dataclass
class Pieces:
    """What one answer has produced since the last time it was read."""

    text: str = ""
    thoughts: str = ""
    log_probabilities: Sequence[LogProbability] = ()
    token_ids: Sequence[int] = ()


class Reader:
    """Reads one answer piece by piece."""

    def __init__(self, job: Job, prefix: str = "") -> None:
        """
        Args:
            prefix: text before the answer, such as the prompt.
        """
        self._job, self._prefix = job, prefix
        self._read = [0, 0, 0, 0]

    def read(self) -> Pieces:
        """Return what is new."""
        texts, self._read[0] = self._job.read(self._read[0])
        thoughts, self._read[1] = self._job.read_thoughts(self._read[1])
        found, self._read[2] = self._job.read_log_probabilities(self._read[2])
        token_ids, self._read[3] = self._job.read_token_ids(self._read[3])
        prefix, self._prefix = self._prefix, ""
        return Pieces(prefix + "".join(texts), "".join(thoughts), found, token_ids)


@dataclass(frozen=True)
class Reply:
    """Builds the response to one request."""

    answer_id: str
    model: str
    """Model name as sent."""
    chat: bool
    logprobs: bool = False
    token_ids: bool = False
    """Whether choices have vLLM's field ``token_ids``."""
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, found: Sequence[tuple[Pieces, Answer]]) -> dict[str, Any]:
        """Return the response to a request without ``stream``, with each whole answer."""
        return {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": [
                {
                    "index": index,
                    **self._content(pieces),
                    "logprobs": self.log_probabilities(pieces),
                    "finish_reason": finish_reason(answer.stop_reason),
                }
                | ({"token_ids": pieces.token_ids} if self.token_ids else {})
                for index, (pieces, answer) in enumerate(found)
            ],
            "usage": usage([answer for _, answer in found]),
        }

    def log_probabilities(self, pieces: Pieces) -> dict[str, Any] | None:
        """Return OpenAI's ``logprobs`` object; None unless it was requested."""
        if not self.logprobs:
            return None
        found = pieces.log_probabilities
        if self.chat:
            return {"content": [_chat_token(each) for each in found], "refusal": None}
        tops = [each.token for each in found if each.token is not None]
        return {
            "tokens": [each.text for each in found],
            "token_logprobs": [each.value for each in found],
            "top_logprobs": [_completion_token(each) for each in tops] or None,
            "text_offset": None,
        }

    def _content(self, pieces: Pieces) -> dict[str, Any]:
        if not self.chat:
            return {"text": pieces.text}
        message = {"role": "assistant", "content": pieces.text, "refusal": None}
        thoughts = pieces.thoughts.strip()
        return {"message": message | ({"reasoning_content": thoughts} if thoughts else {})}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.answer_id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }


def _chat_token(found: LogProbability) -> dict[str, Any]:
    """Return OpenAI's object of a token; ``bytes`` is null for special tokens."""
    token = found.token
    return {
        "token": found.text,
        "logprob": found.value,
        "bytes": list(found.text.encode()) if token is None else _bytes(token.token),
        "top_logprobs": [
            {
                "token": each.token.text,
                "logprob": each.log_probability,
                "bytes": _bytes(each.token),
            }
            for each in (token.alternatives if token is not None else ())
        ],
    }


def _completion_token(found: TokenProbability) -> dict[str, float]:
    """Return log probabilities by token: of the likeliest, and as in OpenAI's of the chosen."""
    likeliest = {each.token.text: each.log_probability for each in found.alternatives}
    return likeliest | {found.token.text: found.log_probability}


def _bytes(token: TokenText) -> list[int] | None:
    return None if token.bytes is None else list(token.bytes)


class Chunks:
    """Events of streamed answers; the parts common to all are serialized once."""

    def __init__(self, reply: Reply, *, include_usage: bool) -> None:
        self._reply = reply
        self._include_usage = include_usage
        kind = "chat.completion.chunk" if reply.chat else "text_completion"
        head = _json(reply._head(kind))[:-1]
        self._start = f'data: {head},"choices":['
        self._end = '],"usage":null}\n\n' if include_usage else "]}\n\n"

    def first(self, index: int) -> bytes:
        """Return the chunk with the role; completions have none."""
        if not self._reply.chat:
            return b""
        return self._chunk(index, '"delta":{"role":"assistant","content":""}')

    def pieces(self, index: int, pieces: Pieces) -> bytes:
        """Return the chunk with a part of an answer; empty if there is nothing new."""
        token_ids = pieces.token_ids if self._reply.token_ids else ()
        if not (pieces.text or pieces.thoughts or pieces.log_probabilities or token_ids):
            return b""
        logprobs = _json(self._reply.log_probabilities(pieces))
        if token_ids:
            logprobs += f',"token_ids":{_json(token_ids)}'
        if not self._reply.chat:
            return self._chunk(index, f'"text":{json.dumps(pieces.text)}', logprobs)
        delta = f'"content":{json.dumps(pieces.text)}'
        if pieces.thoughts:
            thoughts = f'"reasoning_content":{json.dumps(pieces.thoughts)}'
            delta = f"{delta},{thoughts}" if pieces.text else thoughts
        return self._chunk(index, f'"delta":{{{delta}}}', logprobs)

    def last(self, answers: Sequence[Answer]) -> bytes:
        """Return the chunks with the finish reasons, the usage if requested, and ``[DONE]``."""
        content = '"delta":{}' if self._reply.chat else '"text":""'
        ends = b"".join(
            self._chunk(index, content, reason=f'"{finish_reason(answer.stop_reason)}"')
            for index, answer in enumerate(answers)
        )
        if self._include_usage:
            ends += f'{self._start}],"usage":{_json(usage(answers))}}}\n\n'.encode()
        return ends + DONE

    def _chunk(
        self, index: int, content: str, logprobs: str = "null", reason: str = "null"
    ) -> bytes:
        choice = f'{{"index":{index},{content},"logprobs":{logprobs},"finish_reason":{reason}}}'
        return f"{self._start}{choice}{self._end}".encode()


def error_event(error: ApiError) -> bytes:
    """Return the event of an error after the stream has started; it is the last one."""
    return f"event: error\ndata: {_json(error.body)}\n\n".encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
