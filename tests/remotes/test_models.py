"""Lists of models, over real HTTP on loopback: of servers that keep the protocol and of others."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable

import pytest

from core.errors import NoListingError, RemoteError
from core.remotes import Directory, Remote
from tests.remotes.scripted_server import KEY, Handler, ScriptedServer, free_port, serving

MakeDirectory = Callable[..., tuple[Directory, Remote]]
PATIENCE_S = 15.0


def test_a_page_never_waits_and_later_sees_the_models(
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
    assert len(server.headers) == 1  # those who asked meanwhile shared the answer


def test_a_server_that_vanishes_is_shown_as_such_with_the_models_it_had(
    directory_of: MakeDirectory,
):
    with serving() as server:
        directory, remote = directory_of(server.url)
        directory.ask(remote).result(PATIENCE_S)
    known = directory.ask(remote).result(PATIENCE_S)
    assert not known.reachable
    assert "takes no connection" in str(known.error)
    assert [model for _, model in directory.models()] == ["tiny", "org/large-model"]


def test_only_this_server_gets_the_key_and_little_else(
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


def test_who_still_holds_a_changed_remote_gets_no_key_of_the_new_one(
    directory_of: MakeDirectory, server: ScriptedServer
):
    directory, remote = directory_of(server.url)
    directory.book.add("office", "http://elsewhere.invalid/v1", KEY)
    known = directory.ask(remote).result(PATIENCE_S)
    assert "changed or removed" in str(known.error)
    assert server.headers == []


def test_a_redirect_is_not_followed(directory_of: MakeDirectory, server: ScriptedServer):
    with serving() as thief:
        server.listing = lambda handler: handler.reply(
            307, "", location=f"{thief.url}/models?leak=1"
        )
        directory, remote = directory_of(server.url, KEY)
        known = directory.ask(remote).result(PATIENCE_S)
        assert "sends requests elsewhere (status 307)" in str(known.error)
        assert thief.headers == []


def test_a_missing_key_is_said(directory_of: MakeDirectory, server: ScriptedServer):
    server.key = KEY
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert f"{remote.host} wants a key" in str(known.error) and not known.reachable


def test_a_wrong_key_is_said_and_never_repeated(
    directory_of: MakeDirectory, server: ScriptedServer
):
    server.key = KEY
    directory, remote = directory_of(server.url, "sk-the-wrong-one")
    known = directory.ask(remote).result(PATIENCE_S)
    assert f"{remote.host} refuses the key of office" in str(known.error)
    assert "Incorrect API key" in str(known.error)
    assert "sk-the-wrong-one" not in str(known.error)


@pytest.mark.parametrize(
    "body",
    [
        "<html>It works!</html>",
        "{",
        "[]",
        '{"data": 7}',
        '{"data": [{"name": "x"}]}',
        '{"data": {"id": "x"}}',
        "[" * 100_000,
        "\ud7ff" * 10 + "\x00",
    ],
)
def test_nonsense_is_one_sentence(directory_of: MakeDirectory, server: ScriptedServer, body: str):
    server.listing = lambda handler: handler.reply(200, body)
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert "does not answer as an OpenAI-compatible server would" in str(known.error)
    assert known.models == ()


def test_a_flood_is_cut_off(directory_of: MakeDirectory, server: ScriptedServer):
    rows = [{"id": "x" * 250, "n": n} for n in range(30_000)]
    server.listing = lambda handler: handler.reply(200, json.dumps({"data": rows}))
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert "far more text than was asked for" in str(known.error)


def test_compressed_text_is_not_asked_for_and_not_read(
    directory_of: MakeDirectory, server: ScriptedServer
):
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
    assert "does not answer as an OpenAI-compatible server would" in str(known.error)
    assert "compressed text" in str(known.error) and known.models == ()


def test_names_that_cannot_be_shown_are_passed_over(
    directory_of: MakeDirectory, server: ScriptedServer
):
    server.models = ("good", "", "with\nline", "x" * 301, "good")
    directory, remote = directory_of(server.url)
    assert directory.ask(remote).result(PATIENCE_S).models == ("good",)


@pytest.mark.parametrize("status", [404, 405, 500])
def test_a_server_without_a_list_counts_as_there(
    directory_of: MakeDirectory, server: ScriptedServer, status: int
):
    server.listing = lambda handler: handler.fail(status, "no such page")
    directory, remote = directory_of(server.url)
    known = directory.ask(remote).result(PATIENCE_S)
    assert isinstance(known.error, NoListingError) and known.reachable


@pytest.mark.parametrize(
    ("status", "words"),
    [(429, "takes no more requests now"), (500, "failed with status 500"), (400, "status 400")],
)
def test_refusals_are_told_apart(
    directory_of: MakeDirectory, server: ScriptedServer, status: int, words: str
):
    server.listing = lambda handler: handler.fail(status, "because " + "x" * 1000)
    directory, remote = directory_of(server.url)
    error = str(directory.ask(remote).result(PATIENCE_S).error)
    assert words in error and "because" in error and len(error) < 400


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://no-such-host.invalid/v1", "cannot be found in the network|takes no connection"),
        ("http://127.0.0.1:{port}/v1", "takes no connection"),
    ],
)
def test_a_server_that_is_not_there(directory_of: MakeDirectory, url: str, words: str):
    directory, remote = directory_of(url.format(port=free_port()))
    error = directory.ask(remote).result(PATIENCE_S).error
    assert isinstance(error, RemoteError)
    assert re.search(words, str(error))


def test_https_to_a_server_without_it(directory_of: MakeDirectory, server: ScriptedServer):
    directory, remote = directory_of(server.url.replace("http:", "https:"))
    assert "No safe connection" in str(directory.ask(remote).result(PATIENCE_S).error)


def test_a_server_that_says_nothing(directory_of: MakeDirectory):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        directory, remote = directory_of(
            f"http://127.0.0.1:{silent.getsockname()[1]}/v1", remote_silence_s=0.3
        )
        began = time.monotonic()
        error = str(directory.ask(remote).result(PATIENCE_S).error)
        assert "sent nothing for 0.3 seconds" in error
        assert time.monotonic() - began < 10


def test_a_changed_remote_gets_new_connections(directory_of: MakeDirectory, server: ScriptedServer):
    directory, remote = directory_of(server.url)
    directory.ask(remote).result(PATIENCE_S)
    first = directory.wire(remote)
    directory.forget("office")
    assert directory.models() == []
    assert directory.wire(remote) is not first
