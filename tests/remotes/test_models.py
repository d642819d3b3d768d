"""Model lists over HTTP on loopback, of servers that follow the protocol and others."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable

import pytest

from core.errors import NoModelListError, RemoteError
from core.remotes import Directory, Remote
from tests.remotes.scripted_server import KEY, Handler, ScriptedServer, free_port, serving
from tests.waiting import PATIENCE_S

MakeDirectory = Callable[..., tuple[Directory, Remote]]


def test_listing_returns_immediately_and_is_filled_later(
    directory_of: MakeDirectory, server: ScriptedServer
):
    slow = threading.Event()

    def listing(handler: Handler) -> None:
        slow.wait(PATIENCE_S)
        handler.list_models()

    server.listing = listing
    directory, remote = directory_of(server.url)
    began = time.monotonic()
    assert directory.listing(remote) is None
    assert directory.models() == []
    assert directory.waiting
    assert time.monotonic() - began < PATIENCE_S
    under_way = directory.ask(remote)
    slow.set()
    under_way.result(PATIENCE_S)
    known = directory.listing(remote)
    assert known is not None and known.reachable and known.fresh
    assert [model for _, model in directory.models()] == ["tiny", "org/large-model"]
    assert known.software == "Scripted/1.0"
    assert known.connect_ms > 0 and known.round_trip_ms > 0
    assert not directory.waiting
    assert len(server.headers) == 1  # concurrent callers share one request


def test_unreachable_server_keeps_its_known_models(
    directory_of: MakeDirectory,
):
    with serving() as server:
        directory, remote = directory_of(server.url)
        directory.ask(remote).result(PATIENCE_S)
    known = directory.ask(remote).result(PATIENCE_S)
    assert not known.reachable
    assert "Cannot connect to" in str(known.error)
    assert [model for _, model in directory.models()] == ["tiny", "org/large-model"]


def test_key_is_sent_to_this_server_only_and_few_headers(
    directory_of: MakeDirectory, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-person")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: private")
    directory, remote = directory_of(server.url)
    directory.ask(remote).result(PATIENCE_S)
    assert set(server.headers[-1]) == {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "user-agent",
    }
    server.key = KEY
    directory.book.add("office", server.url, KEY)
    remote = directory.book.get("office")
    assert directory.ask(remote).result(PATIENCE_S).reachable
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


def test_changed_remote_does_not_reveal_the_new_key(
    directory_of: MakeDirectory, server: ScriptedServer
):
    directory, remote = directory_of(server.url)
    directory.book.add("office", "http://elsewhere.invalid/v1", KEY)
    known = directory.ask(remote).result(PATIENCE_S)
    assert "changed or removed" in str(known.error)
    assert server.headers == []


def test_redirects_are_not_followed(directory_of: MakeDirectory, server: ScriptedServer):
    with serving() as thief:
        server.listing = lambda handler: handler.reply(
            307, "", location=f"{thief.url}/models?leak=1"
        )
        directory, remote = directory_of(server.url, KEY)
        known = directory.ask(remote).result(PATIENCE_S)
        assert "redirects requests (status 307)" in str(known.error)
        assert thief.headers == []


def test_missing_key_is_an_error(directory_of: MakeDirectory, server: ScriptedServer):
    server.key = KEY
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert f"{remote.host} requires an API key" in str(known.error) and not known.reachable


def test_incorrect_key_is_an_error_that_does_not_show_it(
    directory_of: MakeDirectory, server: ScriptedServer
):
    server.key = KEY
    directory, remote = directory_of(server.url, "sk-the-wrong-one")
    known = directory.ask(remote).result(PATIENCE_S)
    assert f"{remote.host} rejected the API key of office" in str(known.error)
    assert "Incorrect API key" in str(known.error)
    assert "sk-the-wrong-one" not in str(known.error)


@pytest.mark.parametrize(
    "body",
    [
        "<html>It works!</html>",
        "{",
        '"models"',
        '{"data": 7}',
        '{"data": [{"size": 1}]}',
        '{"data": null, "models": null}',
        '{"data": {"id": "x"}}',
        '{"error": {"message": "no"}}',
        '{"detail": {"message": "no"}}',
        "[" * 100_000,
        "\ud7ff" * 10 + "\x00",
    ],
)
def test_invalid_model_lists_are_errors(
    directory_of: MakeDirectory, server: ScriptedServer, body: str
):
    server.listing = lambda handler: handler.reply(200, body)
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert "does not respond like an OpenAI-compatible server" in str(known.error)
    assert known.models == () and known.reachable, "its models can be used by name"


def test_response_size_is_limited(directory_of: MakeDirectory, server: ScriptedServer):
    rows = [{"id": "x" * 250, "n": n} for n in range(30_000)]
    server.listing = lambda handler: handler.reply(200, json.dumps({"data": rows}))
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert "far more data than was requested" in str(known.error)


def test_compressed_responses_are_rejected(directory_of: MakeDirectory, server: ScriptedServer):
    bomb = gzip.compress(json.dumps({"data": [{"id": "x"}], "more": " " * 2**20}).encode())

    def listing(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-encoding", "gzip")
        handler.send_header("content-length", str(len(bomb)))
        handler.end_headers()
        handler.wfile.write(bomb)

    server.listing = listing
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert server.headers[-1]["accept-encoding"] == "identity"
    assert "does not respond like an OpenAI-compatible server" in str(known.error)
    assert "compressed data" in str(known.error) and known.models == ()


def test_unprintable_model_names_are_ignored(directory_of: MakeDirectory, server: ScriptedServer):
    server.models = ("good", "", "with\nline", "x" * 301, "good")
    directory, remote = directory_of(server.url)
    assert directory.ask(remote).result(PATIENCE_S).models == ("good",)


@pytest.mark.parametrize("status", [404, 405, 500])
def test_server_without_a_model_list_is_reachable(
    directory_of: MakeDirectory, server: ScriptedServer, status: int
):
    server.listing = lambda handler: handler.fail(status, "no such page")
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert isinstance(known.error, NoModelListError) and known.reachable


@pytest.mark.parametrize(
    ("status", "words"),
    [(429, "accepts no more requests"), (500, "failed with status 500"), (400, "status 400")],
)
def test_status_errors_have_their_own_texts(
    directory_of: MakeDirectory, server: ScriptedServer, status: int, words: str
):
    server.listing = lambda handler: handler.fail(status, "because " + "x" * 1000)
    directory, remote = directory_of(server.url)
    error = str(directory.ask(remote).result(PATIENCE_S).error)
    assert words in error and "because" in error and len(error) < 400


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://no-such-host.invalid/v1", "cannot be resolved|Cannot connect to"),
        ("http://127.0.0.1:{port}/v1", "Cannot connect to"),
    ],
)
def test_unreachable_server_is_an_error(directory_of: MakeDirectory, url: str, words: str):
    directory, remote = directory_of(url.format(port=free_port()))
    error = directory.ask(remote).result(PATIENCE_S).error
    assert isinstance(error, RemoteError)
    assert re.search(words, str(error))


def test_https_to_a_server_without_tls_is_an_error(
    directory_of: MakeDirectory, server: ScriptedServer
):
    directory, remote = directory_of(server.url.replace("http:", "https:"))
    assert "The TLS connection" in str(directory.ask(remote).result(PATIENCE_S).error)


def test_silent_server_is_an_error(directory_of: MakeDirectory):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        directory, remote = directory_of(
            f"http://127.0.0.1:{silent.getsockname()[1]}/v1", remote_silence_s=0.3
        )
        began = time.monotonic()
        error = str(directory.ask(remote).result(PATIENCE_S).error)
        assert "sent no data for 0.3 seconds" in error
        assert time.monotonic() - began < PATIENCE_S / 2


def test_changed_key_opens_new_connections(directory_of: MakeDirectory, server: ScriptedServer):
    directory, remote = directory_of(server.url)
    directory.ask(remote).result(PATIENCE_S)
    first = directory.wire(remote)
    directory.forget("office")
    assert directory.models() == []
    assert directory.wire(remote) is not first
