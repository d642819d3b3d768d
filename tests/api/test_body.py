"""Slow and incomplete request bodies over real sockets."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.requests import Request

from core.api import body
from core.api.app import CLIENT_CLOSED
from tests.api.web_server import BODY, CHAT, PATIENCE_S, Server, eventually


@pytest.fixture
def server(caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    """A running server that must not log a warning or error."""
    with caplog.at_level(logging.INFO), Server() as running:
        yield running
    logged = [each for each in caplog.records if each.threadName == "server"]
    assert [each for each in logged if each.levelno >= logging.WARNING] == []


def test_body_that_does_not_arrive_is_an_error_in_openais_format(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(body, "READ_TIMEOUT_S", 0.2)
        with server.begin(BODY[:10]) as client, client.makefile("rb") as answer:
            head, _, received = answer.read().partition(b"\r\n\r\n")  # until the server closes
    status, *headers = head.decode().lower().split("\r\n")
    assert status.startswith("http/1.1 408 ") and "connection: close" in headers
    error = json.loads(received)["error"]
    assert error["code"] == "slow" and "did not arrive" in error["message"]
    assert server.stand_in.counted == [(CHAT, "POST", 408)] and server.stand_in.asked == []
    assert server.ask() == 200


@pytest.mark.parametrize("sent", [b"", BODY[:10], BODY[:-1]], ids=["nothing", "some", "most"])
def test_disconnect_while_the_body_is_read_leaves_no_connection_behind(
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
    assert (
        server.stand_in.counted == [(CHAT, "POST", CLIENT_CLOSED)] and server.stand_in.asked == []
    )
    assert server.ask() == 200
