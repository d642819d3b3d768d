"""HTTP client of a remote server, based on the ``openai`` package, with readable errors.

The API key is sent to this server only: redirects are not followed, and only the headers that HTTP
and the protocol need are sent. Responses are not trusted: their size is limited, and a quoted error
message is shortened and never contains the key. Compressed responses are rejected, so that the size
limit applies to the actual data.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx2
import openai

from core.errors import NoModelListError, RemoteError
from core.remotes.chunks import ProtocolError, ServerError
from core.remotes.registry import Remote

MODEL_LIST_TIMEOUT_S = 5.0
"""Seconds in which a model list must arrive."""
_MAX_MODEL_LIST = 4 * 2**20
_MAX_ANSWER = 64 * 2**20
"""Bytes of a streamed answer; 1,000 tokens take well below 1 MB."""
_MAX_MESSAGE = 200
_MAX_MODELS = 500
_HEADERS = frozenset({"host", "accept", "connection", "content-type", "content-length"})
_IDENTITY = "identity"
_NO_MODEL_LIST = (404, 405, 501)
_LISTS = ("data", "models")
_REASONS = ("message", "msg", "detail", "error")


class RemoteTransport(httpx2.AsyncBaseTransport):
    """Transport to one server: adds the key, limits the response size, measures connections."""

    def __init__(self, remote: Remote, key: str | None) -> None:
        self.proxy = proxy_for(remote)
        """Address of the proxy for this server, from the environment."""
        self._inner = httpx2.AsyncHTTPTransport(proxy=self.proxy)
        self._origin = _origin(httpx2.URL(remote.url))
        self._key = key
        self.connect_ms: float | None = None
        """Milliseconds to open the latest new connection, including name resolution."""
        self.round_trip_ms: float | None = None
        """Milliseconds from sending the latest model list request to the response headers."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to this server; requests to other hosts are rejected."""
        if _origin(request.url) != self._origin:
            raise httpx2.UnsupportedProtocol("not the remote server's host", request=request)
        headers = [(name, value) for name, value in request.headers.items() if name in _HEADERS]
        headers += [("user-agent", "Paddock"), ("accept-encoding", _IDENTITY)]
        if self._key is not None:
            headers.append(("authorization", f"Bearer {self._key}"))
        timing = _Timing(self, request.method)
        sent = httpx2.Request(
            request.method,
            request.url,
            headers=headers,
            stream=request.stream,
            extensions={**request.extensions, "trace": timing.note},
        )
        try:
            response = await self._inner.handle_async_request(sent)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
            if timing.connected:
                raise
            # The server had closed a kept-alive connection, which is not an error.
            response = await self._inner.handle_async_request(sent)
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", _IDENTITY):
            await response.aclose()
            raise ProtocolError("compressed data, which was not requested")
        limit = _MAX_MODEL_LIST if request.method == "GET" else _MAX_ANSWER
        response.stream = _Bounded(response.stream, limit)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


def proxy_for(remote: Remote) -> str | None:
    """Return the proxy that the environment names for a server; None for one on this machine.

    The variables are ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in upper or
    lower case; on
    Windows and macOS the system's settings apply too.

    Raises:
        RemoteError: it is not an HTTP proxy.
    """
    url = httpx2.URL(remote.url)
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    bypassed = proxy_bypass(remote.host) or _in_no_proxy(url.host, proxies.get("no", ""))
    if not proxy or remote.on_this_machine or bypassed:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        scheme = httpx2.URL(proxy).scheme
    except httpx2.InvalidURL:
        scheme = None
    if scheme not in ("http", "https"):
        raise RemoteError(
            f"The proxy that the environment names for {remote.host} is not an HTTP proxy. Set "
            f"{url.scheme.upper()}_PROXY to an http:// address, or list the host in NO_PROXY."
        )
    return proxy


def _in_no_proxy(host: str, no_proxy: str) -> bool:
    """Return whether NO_PROXY has the host in a form that Python's own check does not know: a
    network such as ``10.0.0.0/8``, an IPv6 address, or ``*.domain``."""
    for part in map(str.strip, no_proxy.split(",")):
        if part.startswith("*.") and host.endswith(part[1:].lower()):
            return True
        with suppress(ValueError):  # not an address
            if ip_address(host) in ip_network(part, strict=False):
                return True
    return False


class _Timing:
    """Measures one request: opening its connection, if it needs a new one, and the round trip."""

    def __init__(self, transport: RemoteTransport, method: str) -> None:
        self._transport = transport
        self._for_list = method == "GET"
        self._connecting = self._sending = 0.0
        self.connected = False
        """Whether a new connection was opened."""

    async def note(self, event: str, _: Any) -> None:
        now = time.perf_counter()
        match event:
            case "connection.connect_tcp.started":
                self._connecting = now
            case "connection.connect_tcp.complete":
                self.connected = True
                self._transport.connect_ms = 1000 * (now - self._connecting)
            case "http11.send_request_headers.started":
                self._sending = now
            case "http11.receive_response_headers.complete" if self._for_list:
                self._transport.round_trip_ms = 1000 * (now - self._sending)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: Any, limit: int) -> None:
        self._inner, self._left = inner, limit

    async def __aiter__(self):
        async for piece in self._inner:
            self._left -= len(piece)
            if self._left < 0:
                raise ProtocolError("far more data than was requested")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class RemoteClient:
    """Client of one remote server; its coroutines run by :func:`core.remotes.models.submit`."""

    def __init__(self, remote: Remote, key: str | None, connect_s: float, silence_s: float) -> None:
        """A request fails after ``silence_s`` seconds without data."""
        self.remote = remote
        self._key = key
        self._connect_s, self._silence_s = connect_s, silence_s
        self.refused: dict[str, set[tuple[str, Any]]] = {}
        """Fields that the server rejected, by model, some with their value; not sent again."""
        self.transport = RemoteTransport(remote, key)
        self.client = openai.AsyncOpenAI(
            base_url=remote.url,
            api_key="unused",  # the transport adds the key
            max_retries=0,
            http_client=httpx2.AsyncClient(
                transport=self.transport,
                follow_redirects=False,
                timeout=httpx2.Timeout(silence_s, connect=connect_s, pool=silence_s),
            ),
        )
        _ = self.client.chat.completions  # import now, or the first answer's time would include it

    async def models(self) -> tuple[tuple[str, ...], str | None]:
        """Return the names of the models, and the ``Server`` header.

        Raises:
            NoModelListError: the server is reachable but returned no model list.
            RemoteError: the request failed.
        """
        try:
            async with asyncio.timeout(MODEL_LIST_TIMEOUT_S):
                raw = await self.client.models.with_raw_response.list()
                names = model_names(raw.content)
        except openai.APIStatusError as error:
            if error.status_code == 401:  # 403 may be for the list alone
                raise self.failure(error) from error
            if error.status_code in _NO_MODEL_LIST:
                raise NoModelListError(
                    f"{self.remote.host} does not list its models at {self.remote.url}/models. "
                    "Check the address, which usually ends in /v1, or in /v3 for OpenVINO Model "
                    "Server."
                ) from error
            raise NoModelListError(str(self.failure(error))) from error
        except TimeoutError as error:
            raise NoModelListError(
                f"{self.remote.host} did not list its models within {MODEL_LIST_TIMEOUT_S:.0f} "
                "seconds. It may be overloaded, or the address is not that of its API."
            ) from error
        except FAILURES as error:
            failure = self.failure(error)
            if any(isinstance(cause, httpx2.TransportError | OSError) for cause in _causes(error)):
                raise failure from error
            raise NoModelListError(str(failure)) from error  # it responded in another way
        return names, software(raw.headers)

    def failure(
        self, error: Exception, *, answering: str | None = None, begun: bool = False
    ) -> RemoteError:
        """Return the error for a failed request.

        Args:
            error: what was raised.
            answering: the model, if the request was for an answer.
            begun: whether part of the answer was received.
        """
        return RemoteError(self._sentence(error, answering, begun=begun))

    def broken_off(self) -> RemoteError:
        """Return the error for an incomplete answer."""
        return RemoteError(
            f"{self.remote.host} closed the connection before the answer was complete. The text "
            "received so far is kept. Try again."
        )

    def _sentence(self, error: Exception, model: str | None, *, begun: bool) -> str:
        host = self.remote.host
        if isinstance(error, openai.APIStatusError):
            return self._status_error(error, model)
        causes = list(_causes(error))
        for cause in causes:  # the openai client wraps it in a connection error
            if isinstance(cause, ProtocolError):
                return self._protocol_error(str(cause))
            if isinstance(cause, ServerError):
                return (
                    f"{host} ended the answer with an error{self._quoted(str(cause))}. Try again."
                )
        failed = httpx2.ProxyError | httpx2.ConnectError | httpx2.ConnectTimeout | OSError
        if self.transport.proxy and any(isinstance(cause, failed) for cause in causes):
            proxy = httpx2.URL(self.transport.proxy).netloc.decode()
            return (
                f"{host} cannot be reached through the proxy {proxy}, which the environment names. "
                "Check the address and the proxy, or list the host in NO_PROXY."
            )
        if any(isinstance(cause, httpx2.ConnectTimeout) for cause in causes):
            return (
                f"Connecting to {host} timed out after {self._connect_s:g} seconds. Check the "
                "address, the network and firewalls."
            )
        if any(isinstance(cause, httpx2.TimeoutException) for cause in causes):
            return (
                f"{host} sent no data for {self._silence_s:g} seconds and may be overloaded. Try "
                "again, or increase PADDOCK_REMOTE_SILENCE_S."
            )
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            return f"The host name of {host} cannot be resolved. Check the address."
        for cause in causes:
            if isinstance(cause, ssl.SSLError):
                reason = cause.reason or "TLS error"
                return (
                    f"The TLS connection to {host} failed ({reason.replace('_', ' ').lower()}). "
                    "Check that the server uses HTTPS and that its certificate is trusted here."
                )
        if any(isinstance(cause, httpx2.ConnectError | ConnectionRefusedError) for cause in causes):
            return f"Cannot connect to {host}. Check the address and that the server is running."
        if begun and any(isinstance(cause, httpx2.TransportError) for cause in causes):
            return str(self.broken_off())
        if any(isinstance(cause, httpx2.RemoteProtocolError) for cause in causes):
            return f"{host} closed the connection or does not use HTTP. Check the address."
        if any(isinstance(cause, httpx2.TransportError) for cause in causes):
            return f"The connection to {host} was lost. Try again."
        not_json = isinstance(error, ValueError)  # invalid JSON or UTF-8
        return self._protocol_error("invalid JSON" if not_json else "something else")

    def _protocol_error(self, what: str) -> str:
        return (
            f"{self.remote.host} does not respond like an OpenAI-compatible server (it sent "
            f"{what}). Check the address, which usually ends in /v1 or /v3."
        )

    def _status_error(self, error: openai.APIStatusError, model: str | None) -> str:
        host, status, quoted = self.remote.host, error.status_code, self._quoted(_message(error))
        if status in (401, 403):
            if self._key is None:
                return f"{host} requires an API key{quoted}. Enter one for {self.remote.name}."
            return f"{host} rejected the API key of {self.remote.name}{quoted}. Enter another one."
        if status == 404 and model is not None:
            return (
                f"{host} has no model {model[:_MAX_MESSAGE]!r} at this address{quoted}. Choose "
                "another one."
            )
        if status == 429:
            after = error.response.headers.get("retry-after", "")
            when = f"in {after} seconds" if after.isdecimal() and len(after) < 6 else "later"
            return f"{host} accepts no more requests at the moment{quoted}. Try again {when}."
        if status >= 500:
            return f"{host} failed with status {status}{quoted}. Try again, or see its log."
        if 300 <= status < 400:
            return (
                f"{host} redirects requests (status {status}), which is not followed because the "
                "API key is for this host only. Enter the final address."
            )
        return f"{host} rejected the request with status {status}{quoted}. Check its settings."

    def _quoted(self, text: object) -> str:
        """Return a server's message, shortened and without the key."""
        printed = (c if c.isprintable() else " " for c in text) if isinstance(text, str) else ()
        words = " ".join("".join(printed).split())
        if self._key is not None:
            words = words.replace(self._key, "…")
        if not words or words.startswith("<"):
            return ""
        cut = words if len(words) <= _MAX_MESSAGE else f"{words[:_MAX_MESSAGE]}…"
        return f" (its message: {cut.rstrip('.')})"


FAILURES = (
    openai.OpenAIError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    OSError,
    ProtocolError,
    ServerError,
    ValueError,  # includes invalid JSON and UTF-8
    TypeError,  # JSON of another structure, raised inside the openai client
    AttributeError,
    RecursionError,
)
"""Exceptions that a request can raise, also if the server violates the protocol."""


def model_names(body: bytes) -> tuple[str, ...]:
    """Return the names in a model list: ``data`` (OpenAI), ``models`` (Ollama), a bare list, or an
    object by name.

    Raises:
        ProtocolError: it is not a model list.
    """
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("something other than a model list") from error
    for _ in range(2):  # one may be in the other
        if isinstance(rows, dict) and (keys := [key for key in _LISTS if key in rows]):
            rows = next((rows[key] for key in keys if rows[key]), rows[keys[0]])
    by_name = isinstance(rows, dict) and rows and not rows.keys() & {"error", "detail"}
    if by_name and all(isinstance(row, dict) for row in rows.values()):
        rows = list(rows)
    if not isinstance(rows, list):
        raise ProtocolError("something other than a model list")
    names = [_model_name(row) for row in rows]
    if names and not any(names):
        raise ProtocolError("something other than a model list")
    valid = (name for name in names if name and len(name) <= 300 and name.isprintable())
    return tuple(dict.fromkeys(valid))[:_MAX_MODELS]


def _model_name(row: object) -> str | None:
    if isinstance(row, dict):
        row = next((row[key] for key in ("id", "name", "model", "slug") if row.get(key)), None)
    return row if isinstance(row, str) else None


def software(headers: Any) -> str | None:
    """Return the ``Server`` header, shortened, or None if it is missing."""
    value = " ".join(str(headers.get("server", "")).split())
    return value[:80] if value and value.isprintable() else None


def _message(error: openai.APIStatusError) -> object:
    found: Any = error.body
    for _ in range(5):  # FastAPI has a list of objects in an object
        if isinstance(found, list) and found:
            found = found[0]
        elif isinstance(found, dict):
            found = next((found[name] for name in _REASONS if found.get(name)), None)
    return found


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
