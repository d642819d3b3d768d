"""A small scriptable server on loopback for OpenAI's protocol and violations of it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from core.remotes import client
from tests.waiting import PATIENCE_S

Behaviour = Callable[["Handler"], None]
"""Handles one request for an answer."""
KEY = "sk-a-key-of-the-tests-0123456789"


@dataclass
class ScriptedServer:
    """The server and the requests it received."""

    port: int = 0
    models: tuple[str, ...] = ("tiny", "org/large-model")
    key: str | None = None
    """API key required in each request, if set."""
    answer: Behaviour = field(default=lambda handler: handler.stream(["Hello", ",", " you", "."]))
    listing: Behaviour = field(default=lambda handler: handler.list_models())
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests for an answer."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Headers of every request."""
    disconnected: threading.Event = field(default_factory=threading.Event)
    """Set when a client disconnected before the end of its answer."""
    stopping: threading.Event = field(default_factory=threading.Event)
    connections: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    script: ScriptedServer

    def setup(self) -> None:
        """Remember the connection to close it with the server."""
        super().setup()
        self.script.connections.append(self.connection)

    def version_string(self) -> str:
        """The Server header."""
        return "Scripted/1.0"

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """The list of models."""
        if self._authorized():
            self.script.listing(self)

    def do_POST(self) -> None:
        """An answer."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self._authorized():
            self.script.requests.append(json.loads(body))
            self.script.answer(self)

    def _authorized(self) -> bool:
        self.script.headers.append({k.lower(): v for k, v in self.headers.items()})
        wanted = self.script.key
        if wanted is None or self.headers.get("authorization") == f"Bearer {wanted}":
            return True
        given = self.headers.get("authorization", "").removeprefix("Bearer ")
        self.fail(401, f"Incorrect API key provided: {given}")
        return False

    # What a script can do

    @property
    def body(self) -> dict[str, Any]:
        """The body of this request."""
        return self.script.requests[-1]

    def reply(self, status: int, text: str, kind: str = "application/json", **headers: str) -> None:
        """Send a complete response."""
        content = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def list_models(self) -> None:
        """Send the default model list."""
        rows = [{"id": name, "object": "model"} for name in self.script.models]
        self.reply(200, json.dumps({"object": "list", "data": rows}))

    def fail(self, status: int, message: str, **headers: str) -> None:
        """Send an error in OpenAI's format."""
        self.reply(status, json.dumps({"error": {"message": message}}), **headers)

    def begin(self) -> None:
        """Send the headers of a stream."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def send(self, data: str) -> None:
        """Send one event of a stream."""
        content = f"data: {data}\n\n".encode()
        try:
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            self.wfile.flush()
        except OSError:
            self.script.disconnected.set()
            raise

    def piece(self, text: str | None = None, finish: str | None = None, **more: Any) -> None:
        """Send one chunk of an answer."""
        delta = {} if text is None else {"content": text}
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        self.send(json.dumps({"id": "1", "choices": choices} | more))

    def end(self, usage: tuple[int, int] | None = None) -> None:
        """Send the end of a stream, with the usage if given."""
        if usage is not None:
            counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
            self.send(json.dumps({"id": "1", "choices": [], "usage": counts}))
        self.send("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def stream(
        self,
        pieces: list[str],
        *,
        finish: str = "stop",
        usage: tuple[int, int] | None = (7, 5),
        every_s: float = 0.0,
    ) -> None:
        """Send a complete answer."""
        self.begin()
        self.send(json.dumps({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}))
        for text in pieces:
            self.script.stopping.wait(every_s)
            self.piece(text)
        self.piece(finish=finish)
        self.end(usage)

    def wait(self, seconds: float) -> None:
        """Send nothing, and watch for a disconnect."""
        deadline = time.monotonic() + seconds
        self.connection.settimeout(0.02)
        while time.monotonic() < deadline and not self.script.stopping.is_set():
            try:
                if self.connection.recv(1) == b"":
                    self.script.disconnected.set()
                    break
            except TimeoutError:
                continue
            except OSError:
                self.script.disconnected.set()
                break
        self.close_connection = True

    def hang_up(self) -> None:
        """Close the connection immediately."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Ignore disconnects."""


@contextmanager
def serving(**options: Any) -> Iterator[ScriptedServer]:
    """A running server, which may take its time to list its models on a busy machine."""
    script = ScriptedServer(**options)
    handler = type("ScriptedHandler", (Handler,), {"script": script})
    with (
        pytest.MonkeyPatch.context() as patch,
        _Server(("127.0.0.1", script.port), handler) as server,
    ):
        patch.setattr(client, "MODEL_LIST_TIMEOUT_S", PATIENCE_S)
        script.port = server.server_address[1]
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield script
        finally:
            script.stopping.set()
            server.shutdown()
            for connection in script.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    """An unused loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
