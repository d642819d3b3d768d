"""Models of remote servers with an OpenAI-compatible API, through the ``openai`` client.

Nothing is loaded: a lease checks that the server is reachable, and an answer is a streamed chat
completion. The server formats the prompt, tokenizes, applies stop texts and counts tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from core.errors import NoModelListError, RemoteError
from core.remotes import Directory, Listing, Remote, split_name
from core.remotes.event_loop import submit
from core.runtimes.base import Conditions, InterruptedGeneration, OnText, TextEnd
from core.runtimes.pool import Lease, OnProgress
from core.runtimes.spec import ModelSpec, TextRequest
from core.settings import Settings

if TYPE_CHECKING:
    from core.remotes.client import RemoteClient

_POLL_S = 0.02
_TRUST_S = 15.0
"""Seconds for which a server counts as reachable after it responded."""
_OPTIONAL_FIELDS = ("stream_options", "seed", "top_k", "repetition_penalty")
"""Request fields that some servers reject; the request is then sent again without them."""
_WORDS = {"seed": "the seed", "top_k": "top-k", "repetition_penalty": "the repetition penalty"}


@dataclass
class _Reply:
    """State of an answer, without its text."""

    begun: bool = False
    finish: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None


class RemoteModel:
    """One model of a remote; see :class:`core.runtimes.base.TextModel`."""

    def __init__(self, wire: RemoteClient, model: str, listing: Listing, at_once: int) -> None:
        self.at_once = at_once
        self.conditions = _conditions(wire.remote, listing)
        self._wire = wire
        self._model = model
        self._running: dict[int, Future[_Reply]] = {}
        self._lock = threading.Lock()
        self._refused = wire.refused.setdefault(model, set())

    def answer(self, request: TextRequest, on_text: OnText) -> TextEnd:
        """See :class:`core.runtimes.base.TextModel`."""
        pieces: SimpleQueue[str | None] = SimpleQueue()
        future = submit(self._stream(request, pieces.put))
        future.add_done_callback(lambda _: pieces.put(None))
        with self._lock:
            self._running[id(request)] = future
        count, wanted = 0, True
        try:
            while (piece := pieces.get()) is not None:
                count += 1
                if wanted and not on_text(piece):
                    wanted = False
                    future.cancel()
            reply = future.result()
        except CancelledError as error:
            raise InterruptedGeneration from error
        finally:
            with self._lock:
                self._running.pop(id(request), None)
        return TextEnd(
            length=reply.finish == "length",
            prompt_tokens=reply.prompt_tokens,
            new_tokens=reply.new_tokens,
            conditions=self._conditions_of(request, reply),
        )

    def interrupt(self, request: TextRequest) -> None:
        """See :class:`core.runtimes.base.TextModel`."""
        with self._lock:
            future = self._running.get(id(request))
        if future is not None:
            future.cancel()

    def _conditions_of(self, request: TextRequest, reply: _Reply) -> Conditions:
        notes = [self.conditions.note or ""]
        if reply.new_tokens is None:
            notes.append("tokens counted by received chunks, as the server reports no usage")
        left_out = [_WORDS[name] for name in _WORDS if name in self._refused & _optional(request)]
        if left_out:
            notes.append(f"without {' and '.join(left_out)}, which the server rejects")
        return replace(self.conditions, note="; ".join(notes))

    # The following methods run in the remotes' thread.

    async def _stream(self, request: TextRequest, on_text: Callable[[str], None]) -> _Reply:
        """
        Raises:
            RemoteError: the server cannot be reached, rejected the request, failed, or violated
                the protocol.
        """
        from core.remotes.client import FAILURES

        reply = _Reply()
        try:
            stream = await self._request(request)
            try:
                async for chunk in stream:
                    _read_chunk(chunk, reply, on_text)
            finally:
                await stream.close()
        except FAILURES as error:
            failure = self._wire.failure(error, answering=self._model, begun=reply.begun)
            raise failure from error
        if reply.finish is None:
            raise self._wire.broken_off()
        if reply.finish == "content_filter":
            raise RemoteError(f"{self._wire.remote.host} withheld the rest of the answer.")
        return reply

    async def _request(self, request: TextRequest) -> Any:
        """Send the request and return the stream; retry without fields that the server rejects."""
        import openai

        from core.remotes.client import ProtocolError

        while True:
            body = self._body(request)
            try:
                raw = await self._wire.client.chat.completions.with_raw_response.create(**body)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = _refused_fields(error, _sent(body))
                if not refused:
                    raise
                self._refused |= refused
                continue
            kind = raw.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "text/event-stream":
                await raw.http_response.aclose()
                raise ProtocolError(f"{kind[:40] or 'something'} instead of a stream")
            return raw.parse()

    def _body(self, request: TextRequest) -> dict[str, Any]:
        sampling = request.sampling
        wanted = _optional(request) - self._refused
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": role, "content": text} for role, text in request.turns],
            "max_tokens": sampling.max_new_tokens,
            "temperature": 0 if sampling.greedy else sampling.temperature,
            "stream": True,
        }
        if not sampling.greedy:
            body["top_p"] = sampling.top_p
        if request.stop:
            body["stop"] = list(request.stop)
        if "seed" in wanted:
            body["seed"] = sampling.seed
        if "stream_options" in wanted:
            body["stream_options"] = {"include_usage": True}
        extra = {
            name: getattr(sampling, name)
            for name in ("top_k", "repetition_penalty")
            if name in wanted
        }
        return body | ({"extra_body": extra} if extra else {})


def _optional(request: TextRequest) -> set[str]:
    """Return the optional fields of this request; disabled settings are not sent."""
    sampling, fields = request.sampling, {"stream_options"}
    if sampling.repetition_penalty != 1.0:
        fields.add("repetition_penalty")
    if not sampling.greedy:
        fields.add("seed")
        if sampling.top_k:
            fields.add("top_k")
    return fields


def _sent(body: dict[str, Any]) -> set[str]:
    return (body.keys() | body.get("extra_body", {}).keys()) & set(_OPTIONAL_FIELDS)


def _refused_fields(error: Any, sent: set[str]) -> set[str]:
    """Return the sent fields that the server's error names."""
    message = f"{error.message} {error.body} {error.param}"
    return {name for name in sent if name in message}


def _read_chunk(chunk: Any, reply: _Reply, on_text: Callable[[str], None]) -> None:
    """Read one chunk, which the client has not validated.

    Raises:
        ProtocolError: it is not a chat completion chunk.
    """
    from core.remotes.client import ProtocolError

    usage = getattr(chunk, "usage", None)
    if usage is not None:
        reply.prompt_tokens = _count(getattr(usage, "prompt_tokens", None))
        reply.new_tokens = _count(getattr(usage, "completion_tokens", None)) or None
    choices = getattr(chunk, "choices", None)
    if not isinstance(choices, list):
        if usage is None:
            raise ProtocolError("chunks without choices")
        return
    for choice in choices[:1]:
        delta = getattr(choice, "delta", None)
        text = getattr(delta, "content", None)
        reasoning = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        if isinstance(text, str) and text:
            reply.begun = True
            on_text(text)
        elif isinstance(reasoning, str) and reasoning:
            on_text("")
        elif text is not None and not isinstance(text, str):
            raise ProtocolError("chunks whose content is not text")
        finish = getattr(choice, "finish_reason", None)
        if isinstance(finish, str) and finish:
            reply.finish = finish


def _count(value: object) -> int | None:
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if valid else None


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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


class RemotePool:
    """Leases remote models; those of one server share a queue. See :class:`Pool`."""

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
