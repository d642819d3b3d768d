"""Bodies that come slowly or not to their end, over real sockets."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.requests import Request

from core.api import body
from core.api.app import HUNG_UP
from tests.api.web_server import BODY, CHAT, PATIENCE_S, Server, eventually


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
