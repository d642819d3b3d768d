"""Bodies that come slowly or not to their end, over real sockets."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
import uvicorn
from starlette.requests import Request

from core.api import body
from core.api.app import HUNG_UP
from tests.api.stand_ins import StandIn, chat

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat()).encode()
PATIENCE_S = 20.0


class Server:
    """The API on a port of the loopback address, as the web server itself runs it."""

    def __init__(self) -> None:
        self.stand_in = StandIn()
        config = uvicorn.Config(self.stand_in.app(), port=0, lifespan="off", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="server", daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        eventually(lambda: self._server.started)
        self.address = self._server.servers[0].sockets[0].getsockname()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)

    @property
    def idle(self) -> bool:
        """Whether no connection and no request is left."""
        state = self._server.server_state
        return not state.connections and not state.tasks

    def begin(self, sent: bytes) -> socket.socket:
        """Announce the whole body, and send that much of it."""
        client = socket.create_connection(self.address, timeout=PATIENCE_S)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + sent)
        return client

    def ask(self) -> int:
        """The status of a request that is as it should be."""
        url = f"http://{self.address[0]}:{self.address[1]}{CHAT}"
        return httpx.post(url, json=chat(), timeout=PATIENCE_S).status_code


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


@pytest.fixture
def server(caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    """A running server, of which nothing may be logged as a warning or worse."""
    with caplog.at_level(logging.INFO), Server() as running:
        yield running
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_a_body_that_does_not_come_is_refused_in_openai_s_form(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(body, "SLOWEST_S", 0.2)
    with server.begin(BODY[:10]) as client, client.makefile("rb") as answer:
        head, _, said = answer.read().partition(b"\r\n\r\n")  # read to its end: it hangs up
    status, *headers = head.decode().lower().split("\r\n")
    assert status.startswith("http/1.1 408 ") and "connection: close" in headers
    error = json.loads(said)["error"]
    assert error["code"] == "slow" and "did not arrive" in error["message"]
    assert server.stand_in.counted == [(CHAT, "POST", 408)] and server.stand_in.asked == []
    assert server.ask() == 200


@pytest.mark.parametrize("sent", [b"", BODY[:10], BODY[:-1]], ids=["nothing", "some", "most"])
def test_whoever_leaves_before_its_body_has_come_leaves_nothing_behind(
    server: Server, sent: bytes, monkeypatch: pytest.MonkeyPatch
):
    reading = threading.Event()
    stream = Request.stream

    def noted(self: Request) -> AsyncIterator[bytes]:
        reading.set()
        return stream(self)

    monkeypatch.setattr(Request, "stream", noted)
    with server.begin(sent):
        assert reading.wait(PATIENCE_S)
    eventually(lambda: server.idle)
    assert server.stand_in.counted == [(CHAT, "POST", HUNG_UP)] and server.stand_in.asked == []
    assert server.ask() == 200
