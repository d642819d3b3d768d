"""Read a streamed chat completion chunk by chunk, in the shapes that servers send.

Content is a text, or a list of parts (Mistral); thoughts come as ``reasoning_content`` (DeepSeek,
vLLM), ``reasoning`` (OpenRouter, newer vLLM), ``thinking`` (Ollama) or as parts. Chunks without
choices carry usage, filter results or nothing. Some servers send the whole answer at once as JSON.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

_THOUGHTS = (
    *("reasoning_content", "reasoning", "thinking", "reasoning_text"),
    *("reasoning_details", "thinking_blocks"),
)
"""Fields of a delta; only the first that is present is read, as some servers repeat the text."""
_TEXTS = ("text", "content", "value", "refusal", "thinking", "reasoning", "summary")
"""Fields of a part that hold its text, or parts of it."""
_DEEPEST = 5


@dataclass(frozen=True)
class Chunk:
    """What a chunk says."""

    text: str = ""
    thoughts: str = ""
    refusal: str = ""
    tools: tuple[str, ...] = ()
    """Names of tools that the model asks to call; empty strings where a name is missing."""
    finish: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that the server took from its prefix cache."""


class ProtocolError(Exception):
    """A server violated the protocol; the text says what it sent."""


class ServerError(Exception):
    """A server sent an error in place of the next chunk; the text is its message."""


async def read_stream(kind: str, content: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
    """Yield the chunks of a response with this media type to a request for a streamed answer.

    Raises:
        ProtocolError: there are no chunks.
        ServerError: the server reports an error.
        ValueError: invalid JSON or UTF-8.
    """
    from openai._streaming import SSEDecoder  # the client's own loop stops at the first odd event

    head = await _head(content)
    if kind == "application/json" or (kind != "text/event-stream" and head[:1] == b"{"):
        chunk = read_chunk(json.loads(head + b"".join([piece async for piece in content])))
        if chunk is None:
            raise ProtocolError("JSON instead of a stream")
        yield chunk if chunk.finish else replace(chunk, finish="stop")
        return
    if kind not in ("", "text/event-stream", "text/plain", "application/octet-stream"):
        raise ProtocolError(f"{kind[:40]} instead of a stream")
    begun = events = ended = False
    async for event in SSEDecoder().aiter_bytes(_events(head, content)):
        if event.data.strip() == "" or ended:
            continue
        if event.data.startswith("[DONE]"):
            ended = True  # what follows is read, so that the connection can be used again
            if begun:
                yield Chunk(finish="stop")  # some servers name no reason before
            continue
        events = True
        chunk = read_chunk(_parsed(event.data, event.event))
        begun = begun or chunk is not None
        if chunk is not None:
            yield chunk
    if events and not begun:
        raise ProtocolError("chunks without choices")


async def _head(content: AsyncIterator[bytes]) -> bytes:
    """Read the beginning of a response, and return it without a byte order mark and white space."""
    head = b""
    async for piece in content:
        head = (head + piece).lstrip()
        if len(head) > len(codecs.BOM_UTF8):
            break
    return head.removeprefix(codecs.BOM_UTF8).lstrip()


async def _events(head: bytes, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in content:
        yield piece
    yield b"\n\n"  # ends the last event, if the server did not


def _parsed(data: str, kind: str | None) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        if kind == "error":
            raise ServerError(data) from None
        raise


def read_chunk(chunk: Any) -> Chunk | None:
    """Return what a chunk says; what is missing or null is empty.

    Returns:
        None if it is no chunk of a chat completion, such as a server's sign of life.

    Raises:
        ProtocolError: its content is not text.
        ServerError: it is an error.
    """
    _check_no_error(chunk)
    usage, choices = _get(chunk, "usage"), _get(chunk, "choices")
    if usage is None and not (isinstance(chunk, Mapping) and "choices" in chunk):
        return None
    choices = choices if isinstance(choices, list) else [choices]
    choice = next((each for each in choices if not _get(each, "index")), None)
    delta = _get(choice, "delta")
    if delta is None:
        delta = _get(choice, "message")
    content = delta if isinstance(delta, str) else _get(delta, "content")
    text, thoughts, refusal, tools = _content(content)
    told = next((found for name in _THOUGHTS if (found := _get(delta, name))), None)
    finish = _get(choice, "finish_reason")
    return Chunk(
        text=text or _text(_get(choice, "text")),
        thoughts=thoughts + _text(told),
        refusal=refusal + _text(_get(delta, "refusal")),
        tools=(*_tools(delta), *tools),
        finish=str(finish).lower() if finish else None,
        prompt_tokens=_count(_get(usage, "prompt_tokens")),
        new_tokens=_count(_get(usage, "completion_tokens")) or None,
        cached_tokens=_count(_get(_get(usage, "prompt_tokens_details"), "cached_tokens")),
    )


def _check_no_error(chunk: Any) -> None:
    if not isinstance(chunk, Mapping):
        return
    error = _get(chunk, "error")
    if not error and _get(chunk, "choices") is None:
        plain = _get(chunk, "object") == "error" or set(chunk) <= {"message", "code", "type"}
        error = _get(chunk, "detail") or (_get(chunk, "message") if plain else None)
    if error:
        raise ServerError(_text(_get(error, "message") or error))


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _content(content: Any) -> tuple[str, str, str, tuple[str, ...]]:
    """Return text, thoughts, refusal and called tools of a delta's content.

    Raises:
        ProtocolError: it is neither text nor parts.
    """
    if content is None or isinstance(content, str | int | float):
        return "" if content is None else str(content), "", "", ()
    text = thoughts = refusal = ""
    tools: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        kind = _get(part, "type")
        if not isinstance(part, str | Mapping) and kind is None:
            raise ProtocolError("chunks whose content is not text")
        if isinstance(kind, str) and ("thinking" in kind or "reasoning" in kind):
            thoughts += _text(part)
        elif kind == "refusal":
            refusal += _text(part)
        elif isinstance(kind, str) and "tool" in kind:
            tools.append(_name(part))
        else:
            text += _text(part)
    return text, thoughts, refusal, tuple(tools)


def _text(value: Any, depth: int = 0) -> str:
    """Return the text of a text, a part, or a list of them."""
    if isinstance(value, str):
        return value
    if depth == _DEEPEST:
        return ""
    if isinstance(value, list):
        return "".join(_text(each, depth + 1) for each in value)
    found = next((field for name in _TEXTS if (field := _get(value, name))), None)
    return "" if found is None else _text(found, depth + 1)


def _tools(delta: Any) -> tuple[str, ...]:
    calls = _get(delta, "tool_calls")
    called = [_get(call, "function") for call in calls] if isinstance(calls, list) else []
    if (call := _get(delta, "function_call")) is not None:
        called.append(call)
    return tuple(map(_name, called))


def _name(tool: Any) -> str:
    return name if isinstance(name := _get(tool, "name"), str) else ""


def _count(value: object) -> int | None:
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if valid else None
