"""``remotes``, and ``generate`` with a remote model."""

from __future__ import annotations

import json

import pytest

from core.__main__ import main
from core.remotes import RemoteRegistry
from core.settings import load_settings
from tests.remotes.scripted_server import KEY, ScriptedServer, free_port, serving


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def server():
    with serving(key=KEY) as script:
        RemoteRegistry(load_settings()).add("office", script.url, KEY)
        yield script


def test_servers_are_listed_with_their_models(run, server: ScriptedServer, monkeypatch):
    monkeypatch.setenv("PADDOCK_REMOTES", f"gone=http://127.0.0.1:{free_port()}/v1")
    code, out, _ = run("remotes", "--json")
    gone, office = json.loads(out)
    assert code == 0
    assert (gone["name"], gone["reachable"], gone["models"]) == ("gone", False, [])
    assert office["models"] == ["remote:office/tiny", "remote:office/org/large-model"]
    assert office["server"] == "Scripted/1.0" and office["round_trip_ms"] > 0
    code, text, _ = run("remotes")
    assert code == 0 and "remote:office/tiny" in text and "Cannot connect to" in text
    assert KEY not in out + text


def test_without_servers_the_setting_is_named(run):
    code, out, _ = run("remotes")
    assert code == 0 and "PADDOCK_REMOTES" in out


def test_generate_on_a_remote_server(run, server: ScriptedServer):
    code, out, err = run("generate", "remote:office/tiny", "Who?", "--seed", "7")
    assert (code, out) == (0, "Hello, you.\n")
    assert "5 tokens" in err and "over the network" in err
    code, out, _ = run("generate", "remote:office/tiny", "Who?", "--greedy", "--json")
    answer = json.loads(out)
    assert (answer["text"], answer["tokens"], answer["memory"]) == ("Hello, you.", 5, None)
    conditions = answer["conditions"]
    assert (conditions["runtime"], conditions["precision"]) == ("remote", "unknown")
    assert conditions["server"] == f"127.0.0.1:{server.port}"
    assert conditions["hints"]["round_trip_ms"] > 0
    assert KEY not in out


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("remote:office", 2, "Write remote:NAME/MODEL"),
        ("remote:nowhere/x", 2, "no remote server named 'nowhere'"),
    ],
)
def test_wrong_remote_name_exits_with_2(run, model: str, code: int, words: str):
    ended, _, err = run("generate", model, "Who?")
    assert ended == code and words in err


def test_a_remote_cannot_be_converted(run):
    code, _, err = run("convert", "remote:office/tiny")
    assert code == 2 and "remote server" in err


def test_a_wrong_setting_is_one_sentence(run, monkeypatch):
    monkeypatch.setenv("PADDOCK_REMOTES", "office=box:8000")
    code, _, err = run("remotes")
    assert code == 2 and "PADDOCK_REMOTES needs NAME=URL" in err
