"""Requests to one remote, through the ``openai`` client; what fails becomes one sentence.

The key goes to this server alone, whatever it answers: redirects are not followed, and no header
but those that HTTP and the protocol need leaves this machine. A server can send nonsense of any
kind and length; whatever it says in an error is short, and without the key, when a person reads it.
Nothing that comes compressed is read, so that the bytes are as many as are counted.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai

from core.errors import NoListingError, RemoteError
from core.remotes.registry import Remote

LISTING_S = 5.0
"""Seconds in which a list of models must have come."""
_LONGEST_LISTING = 4 * 2**20
_LONGEST_ANSWER = 64 * 2**20
"""Bytes of a streamed answer: 1,000 tokens take well below one of these mebibytes."""
_LONGEST_MESSAGE = 200
_MOST_MODELS = 500
_HEADERS = frozenset({"host", "accept", "connection", "content-type", "content-length"})
_IDENTITY = "identity"
_NO_LISTING = (404, 405, 501)


class Line(httpx2.AsyncBaseTransport):
    """The way to one remote's address: adds its key, bounds what it sends, times connections."""

    def __init__(self, remote: Remote, key: str | None) -> None:
        self._inner = httpx2.AsyncHTTPTransport()
        self._origin = _origin(httpx2.URL(remote.url))
        self._key = key
        self.connect_ms: float | None = None
        """Milliseconds that the latest new connection took, the look-up of its name included."""
        self.round_trip_ms: float | None = None
        """Milliseconds from sending the latest request for a list to the head of its answer."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to this remote and to nowhere else."""
        if _origin(request.url) != self._origin:
            raise httpx2.UnsupportedProtocol("another host than the remote's", request=request)
        kept = [(name, value) for name, value in request.headers.items() if name in _HEADERS]
        kept += [("user-agent", "Paddock"), ("accept-encoding", _IDENTITY)]
        if self._key is not None:
            kept.append(("authorization", f"Bearer {self._key}"))
        timing = _Timing(self, request.method)
        sent = httpx2.Request(
            request.method,
            request.url,
            headers=kept,
            stream=request.stream,
            extensions={**request.extensions, "trace": timing.note},
        )
        try:
            response = await self._inner.handle_async_request(sent)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
            if timing.connected:
                raise
            # The server had closed a connection that was kept open; that is nobody's mistake.
            response = await self._inner.handle_async_request(sent)
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", _IDENTITY):
            await response.aclose()
            raise Nonsense("compressed text, which was not asked for")
        limit = _LONGEST_LISTING if request.method == "GET" else _LONGEST_ANSWER
        response.stream = _Bounded(response.stream, limit)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class _Timing:
    """Times one request: its connection, where it needs a new one, and the way there and back."""

    def __init__(self, line: Line, method: str) -> None:
        self._line = line
        self._for_list = method == "GET"
        self._connecting = self._sending = 0.0
        self.connected = False
        """Whether a new connection was made for it."""

    async def note(self, event: str, _: Any) -> None:
        now = time.perf_counter()
        match event:
            case "connection.connect_tcp.started":
                self._connecting = now
            case "connection.connect_tcp.complete":
                self.connected = True
                self._line.connect_ms = 1000 * (now - self._connecting)
            case "http11.send_request_headers.started":
                self._sending = now
            case "http11.receive_response_headers.complete" if self._for_list:
                self._line.round_trip_ms = 1000 * (now - self._sending)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: Any, limit: int) -> None:
        self._inner, self._left = inner, limit

    async def __aiter__(self):
        async for piece in self._inner:
            self._left -= len(piece)
            if self._left < 0:
                raise Nonsense("far more text than was asked for")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class Nonsense(Exception):
    """A server did not keep the protocol; the text says what it sent instead."""


class Wire:
    """What can be asked of one remote; used in the remotes' thread alone."""

    def __init__(self, remote: Remote, key: str | None, connect_s: float, silence_s: float) -> None:
        """
        Args:
            connect_s: seconds for taking a connection.
            silence_s: seconds without a byte.
        """
        self.remote = remote
        self._key = key
        self._connect_s, self._silence_s = connect_s, silence_s
        self.refused: dict[str, set[str]] = {}
        """Optional fields that it refused, by model: not sent again on this connection."""
        self.line = Line(remote, key)
        self.client = openai.AsyncOpenAI(
            base_url=remote.url,
            api_key="unused",  # the line adds the key, so that nothing else can add another
            max_retries=0,
            http_client=httpx2.AsyncClient(
                transport=self.line,
                follow_redirects=False,
                timeout=httpx2.Timeout(silence_s, connect=connect_s, pool=silence_s),
            ),
        )
        _ = self.client.chat.completions  # imports what would count as the first answer's time

    async def models(self) -> tuple[tuple[str, ...], str | None]:
        """Names of its models, and the software that it says it is.

        Raises:
            NoListingError: it is there and has no list, or failed to make one.
            RemoteError: see :meth:`failure`.
        """
        try:
            async with asyncio.timeout(LISTING_S):
                raw = await self.client.models.with_raw_response.list()
                names = model_names(raw.content)
        except openai.APIStatusError as error:
            failure = self.failure(error)
            if error.status_code in _NO_LISTING:
                raise NoListingError(
                    f"{self.remote.host} does not tell which models it has at {self.remote.url}/"
                    "models; check the address, which usually ends in /v1, and in /v3 for OpenVINO "
                    "Model Server."
                ) from error
            if error.status_code >= 500:  # it may answer all the same
                raise NoListingError(str(failure)) from error
            raise failure from error
        except TimeoutError as error:
            raise RemoteError(
                f"{self.remote.host} did not list its models within {LISTING_S:.0f} seconds; it "
                "may be overloaded, or the address is not that of its API."
            ) from error
        except FAILURES as error:
            raise self.failure(error) from error
        return names, software(raw.headers)

    def failure(
        self, error: Exception, *, answering: str | None = None, begun: bool = False
    ) -> RemoteError:
        """What a person reads of a failed request.

        Args:
            answering: the model, where it was asked for an answer.
            begun: whether a part of the answer has come.
        """
        return RemoteError(self._sentence(error, answering, begun=begun))

    def broken_off(self) -> RemoteError:
        """What a person reads where the end of an answer is missing."""
        return RemoteError(
            f"{self.remote.host} broke off in the middle of the answer; what came until then is "
            "kept. Try again."
        )

    def _sentence(self, error: Exception, model: str | None, *, begun: bool) -> str:
        host = self.remote.host
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error, model)
        causes = list(_causes(error))
        for cause in causes:  # the client wraps it, as if the connection had failed
            if isinstance(cause, Nonsense):
                return self._no_sense(str(cause))
        if any(isinstance(cause, httpx2.ConnectTimeout) for cause in causes):
            return (
                f"{host} did not take a connection within {self._connect_s:g} seconds; check the "
                "address, the network and any firewall between."
            )
        if any(isinstance(cause, httpx2.TimeoutException) for cause in causes):
            return (
                f"{host} sent nothing for {self._silence_s:g} seconds; it may be overloaded. Try "
                "again, or allow more in PADDOCK_REMOTE_SILENCE_S."
            )
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            return f"The name {host} cannot be found in the network; check the address."
        for cause in causes:
            if isinstance(cause, ssl.SSLError):
                reason = cause.reason or "TLS failed"
                return (
                    f"No safe connection to {host} can be made ({reason.replace('_', ' ').lower()}"
                    "); check that it speaks https and that its certificate is trusted here."
                )
        if any(isinstance(cause, httpx2.ConnectError | ConnectionRefusedError) for cause in causes):
            return f"{host} takes no connection; check that the server runs, and its address."
        if begun and any(isinstance(cause, httpx2.TransportError) for cause in causes):
            return str(self.broken_off())
        if any(isinstance(cause, httpx2.RemoteProtocolError) for cause in causes):
            return f"{host} broke off the connection, or does not speak HTTP; try again."
        if any(isinstance(cause, httpx2.TransportError) for cause in causes):
            return f"The connection to {host} broke off; try again."
        if isinstance(error, openai.APIError):  # an error that came as a piece of the answer
            return f"{host} ended the answer with an error{self._quoted(error.message)}."
        no_text = isinstance(error, ValueError)  # broken JSON or UTF-8
        return self._no_sense("something that is no JSON" if no_text else "something else")

    def _no_sense(self, what: str) -> str:
        return (
            f"{self.remote.host} does not answer as an OpenAI-compatible server would (it sent "
            f"{what}); check the address, which usually ends in /v1 or /v3."
        )

    def _refusal(self, error: openai.APIStatusError, model: str | None) -> str:
        host, status, said = self.remote.host, error.status_code, self._quoted(_message(error))
        if status in (401, 403):
            if self._key is None:
                return f"{host} wants a key{said}; give {self.remote.name} one."
            return f"{host} refuses the key of {self.remote.name}{said}; give it another one."
        if status == 404 and model is not None:
            return (
                f"{host} has no model {model[:_LONGEST_MESSAGE]!r} at this address{said}; choose "
                "another one."
            )
        if status == 429:
            after = error.response.headers.get("retry-after", "")
            when = f"in {after} seconds" if after.isdecimal() and len(after) < 6 else "later"
            return f"{host} takes no more requests now{said}; try again {when}."
        if status >= 500:
            return f"{host} failed with status {status}{said}; try again, or look at its log."
        if 300 <= status < 400:
            return (
                f"{host} sends requests elsewhere (status {status}), which is not followed, since "
                "the key is for it alone; give the address at which it answers itself."
            )
        return f"{host} refused the request with status {status}{said}."

    def _quoted(self, text: object) -> str:
        """What a server said, in a few words and without the key."""
        words = " ".join(text.split()) if isinstance(text, str) else ""
        if self._key is not None:
            words = words.replace(self._key, "…")
        if not words or words.startswith("<"):
            return ""
        cut = words if len(words) <= _LONGEST_MESSAGE else f"{words[:_LONGEST_MESSAGE]}…"
        return f" (it says: {cut.rstrip('.')})"


FAILURES = (
    openai.OpenAIError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    OSError,
    Nonsense,
    ValueError,  # broken JSON and UTF-8 among them
    TypeError,  # JSON of another shape, deep within the client
    AttributeError,
    RecursionError,
)
"""What a request can fail with, a server that sends nonsense included."""


def model_names(body: bytes) -> tuple[str, ...]:
    """Names of the models in a list of models.

    Raises:
        Nonsense: it is no such list.
    """
    try:
        rows = json.loads(body)["data"]
        names = [row["id"] for row in rows if isinstance(row["id"], str)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Nonsense("no list of models") from error
    if not isinstance(rows, list):
        raise Nonsense("no list of models")
    sound = (name for name in names if 0 < len(name) <= 300 and name.isprintable())
    return tuple(dict.fromkeys(sound))[:_MOST_MODELS]


def software(headers: Any) -> str | None:
    """What a server says it is: its ``Server`` header, shortened; None where it says nothing."""
    told = " ".join(str(headers.get("server", "")).split())
    return told[:80] if told and told.isprintable() else None


def _message(error: openai.APIStatusError) -> object:
    body = error.body
    if isinstance(body, dict):
        return body.get("message") or body.get("detail") or body.get("error")
    return body


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [each for each in (cause.__cause__, cause.__context__) if each is not None]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
