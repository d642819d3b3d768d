"""Models of remote servers with an OpenAI-compatible API, through the ``openai`` client.

Nothing is loaded: a lease checks that the server is reachable, and an answer is a streamed chat
completion. The server formats the prompt, tokenizes, applies stop texts and counts tokens.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from core.errors import NoModelListError, RemoteError
from core.remotes import Directory, Listing, Remote, split_name
from core.remotes.chunks import Chunk, read_stream
from core.remotes.models import submit
from core.runtimes.base import Conditions, InterruptedGeneration
from core.runtimes.pool import Lease, OnProgress
from core.runtimes.spec import ModelSpec, TextRequest
from core.settings import Settings
from core.units import listed

if TYPE_CHECKING:
    from core.remotes.client import RemoteClient

_POLL_S = 0.02
_TRUST_S = 15.0
"""Seconds for which a server counts as reachable after it responded."""
_LIMIT, _NEW_LIMIT = "max_tokens", "max_completion_tokens"
"""OpenAI's reasoning models reject the field that all other servers know."""
_NOT_OPENAIS = ("top_k", "repetition_penalty", "chat_template_kwargs")
"""Fields that are not part of OpenAI's API."""
_LENGTH = ("length", "max_tokens", "max_length", "model_length")
_WITHHELD = ("content_filter", "safety", "recitation", "blocklist", "prohibited_content")
"""Finish reasons of servers that pass on those of their own APIs, in lower case."""
_TOOLS = ("tool_calls", "function_call", "tool_use")
"""Finish reasons of an answer that asks for a tool."""
_POLICY = ("content_policy_violation", "content_filter")
"""Error codes of a rejected text, whose message may quote anything."""
_NAMING = ("param", "loc", "message", "msg", "detail", "error", "errors")
"""Fields of an error that name a rejected field; others may repeat the request."""
_WORDS = {
    "stream": "streaming",
    "seed": "the seed",
    "temperature": "the temperature",
    "top_p": "top-p",
    "top_k": "top-k",
    "repetition_penalty": "the repetition penalty",
    "chat_template_kwargs": "the variables of the chat template",
}


OnText = Callable[[str, str], bool]
"""Called with each piece of the answer and of the thoughts as soon as it arrives, one of them or
both empty; returning False ends the generation."""


@dataclass
class ServerReply:
    """An answer of a server, without its text."""

    conditions: Conditions
    begun: bool = False
    """Whether text was received."""
    refusal: bool = False
    tools: tuple[str, ...] = ()
    finish: str | None = None
    prompt_tokens: int | None = None
    """As counted by the server, as the following ones; None if it reports no count."""
    new_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens from the server's prefix cache."""

    @property
    def reached_length(self) -> bool:
        """Whether it reached the maximum number of new tokens; otherwise the model ended it."""
        return self.finish in _LENGTH

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk."""
        self.begun |= bool(chunk.text or chunk.refusal)
        self.refusal |= bool(chunk.refusal)
        self.tools += chunk.tools
        self.finish = self.finish or chunk.finish
        if chunk.prompt_tokens is not None:
            self.prompt_tokens = chunk.prompt_tokens
        if chunk.new_tokens is not None:
            self.new_tokens = chunk.new_tokens
        if chunk.cached_tokens is not None:
            self.cached_tokens = chunk.cached_tokens


class _WholeCharacters:
    """Joins the halves of characters that JSON writes as two escapes, also from two chunks."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text without a half at its end; other lone halves become U+FFFD."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class RemoteModel:
    """A model on a remote server, which formats the prompt, tokenizes and decodes.

    It runs up to ``at_once`` concurrent requests.
    """

    def __init__(self, wire: RemoteClient, model: str, listing: Listing, at_once: int) -> None:
        self.at_once = at_once
        self.conditions = _conditions(wire.remote, listing)
        self._wire = wire
        self._model = model
        self._running: dict[int, Future[ServerReply]] = {}
        self._lock = threading.Lock()
        self._refused = wire.refused.setdefault(model, set())

    def answer(self, request: TextRequest, on_text: OnText) -> ServerReply:
        """Generate one answer; returns when the model or the maximum length ended it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` or ``on_text`` ended it.
            PaddockError: the server cannot be reached, rejected the request, or failed.
        """
        pieces: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        future = submit(self._stream(request, lambda *piece: pieces.put(piece)))
        future.add_done_callback(lambda _: pieces.put(None))
        with self._lock:
            self._running[id(request)] = future
        wanted = True
        try:
            while (piece := pieces.get()) is not None:
                if wanted and not on_text(*piece):
                    wanted = False
                    future.cancel()
            return future.result()
        except CancelledError as error:
            raise InterruptedGeneration from error
        finally:
            with self._lock:
                self._running.pop(id(request), None)

    def interrupt(self, request: TextRequest) -> None:
        """Cancel this request object in any phase; can be called from any thread."""
        with self._lock:
            future = self._running.get(id(request))
        if future is not None:
            future.cancel()

    def _accepted(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the server has not rejected."""
        return {k: value for k, value in fields.items() if _key(k, value) not in self._refused}

    def _conditions_of(self, request: TextRequest, reply: ServerReply) -> Conditions:
        notes = [self.conditions.note or ""]
        if reply.new_tokens is None:
            notes.append("tokens counted by received chunks, as the server reports no usage")
        left_out = _optional(request).keys() - self._accepted(_optional(request)).keys()
        words = sorted(_WORDS[name] for name in left_out & _WORDS.keys())
        if words:
            notes.append(f"without {listed(words)}, which the server rejects")
        if (_LIMIT, None) in self._refused:
            notes.append(f"{_NEW_LIMIT} in place of {_LIMIT}, which the server rejects")
        if reply.refusal:
            notes.append("the model refused to answer")
        if reply.tools or reply.finish in _TOOLS:
            notes.append(f"the model asked for a tool{_named(reply.tools)}")
        return replace(self.conditions, note="; ".join(notes))

    # The following methods run in the remotes' thread.

    async def _stream(
        self, request: TextRequest, on_text: Callable[[str, str], None]
    ) -> ServerReply:
        """
        Raises:
            RemoteError: the server cannot be reached, rejected the request, failed, violated the
                protocol, or sent a call of a tool in place of an answer.
        """
        from core.remotes.client import FAILURES

        reply, known = ServerReply(self.conditions), set(self._refused)
        texts, thoughts = _WholeCharacters(), _WholeCharacters()
        try:
            response = await self._request(request)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            try:
                async for chunk in read_stream(kind, response.aiter_bytes()):
                    reply.add(chunk)
                    text = texts.feed(chunk.text + chunk.refusal)
                    thought = thoughts.feed(chunk.thoughts)
                    if text or thought:
                        on_text(text, thought)
            finally:
                await response.aclose()
        except FAILURES as error:
            if not reply.begun and reply.finish is None:  # a field was not the reason
                self._refused &= known
            failure = self._wire.failure(error, answering=self._model, begun=reply.begun)
            raise failure from error
        host = self._wire.remote.host
        if reply.finish is None:
            raise self._wire.broken_off()
        if reply.finish in _WITHHELD:
            raise RemoteError(f"{host} withheld the rest of the answer. Change the instruction.")
        if reply.finish == "error":
            raise RemoteError(f"{host} ended the answer with an error. Try again.")
        if (reply.tools or reply.finish in _TOOLS) and not reply.begun:
            raise RemoteError(
                f"The model asked for a tool{_named(reply.tools)} instead of answering, and "
                f"Paddock offers none. Turn tools off on {host}, or choose another model."
            )
        reply.conditions = self._conditions_of(request, reply)
        return reply

    async def _request(self, request: TextRequest) -> Any:
        """Send the request and return the response, whose content is not read yet.

        A field that the server rejects is left out, or renamed, and the request sent again.
        """
        import openai

        while True:
            body = self._body(request)
            try:
                raw = await self._wire.client.chat.completions.with_raw_response.create(**body)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                sent = self._accepted({_LIMIT: None, **_optional(request)})
                refused = _refused_field(error, sent)
                if refused is None:
                    raise
                self._refused.add(_key(refused, sent[refused]))
                continue
            return raw.http_response

    def _body(self, request: TextRequest) -> dict[str, Any]:
        limit = _NEW_LIMIT if (_LIMIT, None) in self._refused else _LIMIT
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": role, "content": text} for role, text in request.turns],
            limit: request.sampling.max_new_tokens,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        wanted = self._accepted(_optional(request))
        extra = {name: wanted.pop(name) for name in _NOT_OPENAIS if name in wanted}
        return body | wanted | ({"extra_body": extra} if extra else {})


def _key(name: str, value: Any) -> tuple[str, Any]:
    """Return what is noted of a rejected field; of these two, only this value may be rejected."""
    return name, value if name in ("temperature", "top_p") else None


def _named(tools: Iterable[str]) -> str:
    names = [name for name in dict.fromkeys(tools) if name.isprintable() and name][:3]
    return f" ({', '.join(name[:40] for name in names)})" if names else ""


def _optional(request: TextRequest) -> dict[str, Any]:
    """Return the fields that are left out where a server rejects them, with their values."""
    sampling = request.sampling
    fields: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0 if sampling.greedy else sampling.temperature,
    }
    if not sampling.greedy:
        fields |= {"top_p": sampling.top_p, "seed": sampling.seed}
        if sampling.top_k:
            fields["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1.0:
        fields["repetition_penalty"] = sampling.repetition_penalty
    if request.chat_template_kwargs:
        fields["chat_template_kwargs"] = dict(request.chat_template_kwargs)
    return fields


def _refused_field(error: Any, sent: Iterable[str]) -> str | None:
    """Return the sent field that the server's error names, perhaps in camel case."""
    if error.code in _POLICY:
        return None
    text = " ".join(_reasons(error.body))
    named = [word.replace("_", "").lower() for word in re.findall(r"\w+", text)]
    found = {key: name for name in sent if (key := name.replace("_", "")) in named}
    return found[min(found, key=named.index)] if found else None


def _reasons(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _reasons(each)
    elif isinstance(value, dict):
        for name in _NAMING:
            yield from _reasons(value.get(name))


def _conditions(remote: Remote, listing: Listing) -> Conditions:
    hints = {
        "remote": remote.name,
        "server": listing.software,
        "connect_ms": _rounded(listing.connect_ms),
        "round_trip_ms": _rounded(listing.round_trip_ms),
    }
    took = listing.round_trip_ms
    trip = "" if took is None else f", round trip {took:.1f} ms"
    return Conditions(
        execution_precision=None,
        kv_cache_precision=None,
        devices_used=(),
        threads=None,
        hints={name: value for name, value in hints.items() if value is not None},
        note=f"over the network, {remote.host}{trip}",
        host=remote.host,
        shared_host=None if remote.on_this_machine else remote.host,
    )


class RemotePool:
    """Leases remote models; those of one server share a queue."""

    def __init__(self, directory: Directory, settings: Settings) -> None:
        self.directory = directory
        self._settings = settings

    def unload(self, spec: ModelSpec) -> bool:
        """Return False: a remote model takes no memory here."""
        return False

    @contextmanager
    def lease(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> Iterator[Lease | None]:
        """Lease a model after checking that its server is reachable, unless that is known.

        Yields:
            The lease, or None when ``cancelled`` was set before the server responded.

        Raises:
            PaddockError: there is no such remote, or it cannot be reached.
        """
        name, model = split_name(spec.model)
        remote = self.directory.book.get(name)
        listing = self._connect(remote, on_progress, cancelled)
        if listing is None:
            yield None
            return
        wire, at_once = self.directory.wire(remote), self._settings.remote_at_once
        yield Lease(RemoteModel(wire, model, listing, at_once), queue=name)

    def _connect(
        self, remote: Remote, on_progress: OnProgress, cancelled: threading.Event
    ) -> Listing | None:
        known = self.directory.listing(remote)
        if known is not None and known.reachable and known.age_s < _TRUST_S:
            return known
        on_progress(f"Connecting to {remote.host}.", None)
        pending = self.directory.ask(remote)
        while not cancelled.is_set():
            try:
                listing = pending.result(_POLL_S)
            except TimeoutError:
                continue
            error = listing.error
            if error is None or isinstance(error, NoModelListError):
                return listing
            raise type(error)(str(error))  # a copy, since several threads may raise it
        return None


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)
