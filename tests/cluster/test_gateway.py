"""Whom the door lets in, and what it makes of replicas that die or never came up."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest

from core.cluster.gateway import Door, LostReplica, ServeModels, TooManyWait, key_hash

HERE = "http://127.0.0.1:8000"
KEY = "a-key-of-this-lab"
START = {"type": "http.response.start", "status": 200, "headers": []}


class Replicas:
    """Each request takes the next script: messages, then an error or None."""

    def __init__(self, *scripts: tuple[list[dict[str, Any]], Exception | None]) -> None:
        self.scripts = list(scripts)

    async def names(self) -> Mapping[str, bool]:
        return {"dog": True, "cat": False}

    async def call(self, model: str, path: str, body: bytes) -> AsyncIterator[dict[str, Any]]:
        messages, error = self.scripts.pop(0)
        for message in messages:
            yield message
        if error is not None:
            raise error


def said(text: str, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}


def asked(
    replicas: Replicas,
    path: str | None = None,
    *,
    model: str = "dog",
    keys: tuple[str, ...] = (),
    **headers: str,
) -> httpx.Response:
    """The answer to a question, or to ``GET`` of a path."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Door(frozenset(map(key_hash, keys)), replicas))
        async with httpx.AsyncClient(transport=transport, base_url=HERE, headers=sent) as client:
            if path is not None:
                return await client.get(path)
            return await client.post("/v1/chat/completions", json={"model": model})

    with ThreadPoolExecutor(1) as thread:  # the tests' own thread may have a loop already
        return thread.submit(lambda: asyncio.run(ask())).result(30)


def test_a_request_is_asked_again_as_long_as_nothing_of_its_answer_was_sent():
    replicas = Replicas(([START], LostReplica()), ([START, said("woof", False)], None))
    assert (asked(replicas).text, replicas.scripts) == ("woof", [])


def test_a_stream_that_had_begun_ends_with_an_error():
    told = asked(Replicas(([START, said("data: wo\n\n")], LostReplica())))
    assert told.text.startswith("data: wo\n\n")
    last = told.text.strip().splitlines()[-1].removeprefix("data: ")
    assert json.loads(last)["error"]["code"] == "replica_lost"


def test_whoever_finds_no_replica_is_told():
    told = asked(Replicas(*[([], LostReplica())] * 3))
    assert (told.status_code, told.json()["error"]["code"]) == (503, "replica_lost")
    assert asked(Replicas(([], TooManyWait()))).status_code == 429


# Who may ask


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_without_keys_programs_of_the_machine_ask(host: str):
    assert asked(Replicas(([START, said("woof", False)], None)), host=host).text == "woof"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example:8000"},
        {"host": "192.0.2.7:8000"},
        {"host": "localhost.evil.example"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
    ],
)
def test_without_keys_no_page_asks_through_a_browser(headers: dict[str, str]):
    refused = asked(Replicas(), **headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    reads = asked(Replicas(), "/v1/models", **headers)
    assert reads.status_code == (200 if headers == {"sec_fetch_site": "none"} else 403)


def test_with_a_key_any_name_of_the_door_is_right():
    host, bearer = "lab.example", f"Bearer {KEY}"
    assert asked(Replicas(), "/v1/models", keys=(KEY,), host=host).status_code == 401
    told = asked(Replicas(), "/v1/models", keys=(KEY,), host=host, authorization=bearer)
    assert told.status_code == 200


# Which models there are


def test_a_model_that_never_came_up_is_not_listed_and_not_asked():
    listed = asked(Replicas(), "/v1/models").json()["data"]
    assert [each["id"] for each in listed] == ["dog"]
    for told in (asked(Replicas(), model="cat"), asked(Replicas(), "/v1/models/cat")):
        assert (told.status_code, told.json()["error"]["code"]) == (503, "unavailable")
        assert "cat did not come up" in told.json()["error"]["message"]
    unknown = asked(Replicas(), model="cow")
    assert unknown.status_code == 404 and unknown.json()["error"]["message"].endswith("are: dog.")


def test_a_model_that_was_to_be_replaced_in_vain_still_answers(monkeypatch: pytest.MonkeyPatch):
    def app(status: str, running: int) -> SimpleNamespace:
        replica = SimpleNamespace(replica_states={"RUNNING": running} if running else {})
        return SimpleNamespace(status=status, deployments={"replica": replica})

    applications = {
        "model-old": app("DEPLOY_FAILED", 1),
        "model-never": app("DEPLOY_FAILED", 0),
        "model-going": app("DELETING", 1),
        "model-soon": app("DEPLOYING", 0),
        "paddock-door": app("RUNNING", 1),
    }
    ray = ModuleType("ray")
    ray.serve = SimpleNamespace(status=lambda: SimpleNamespace(applications=applications))
    monkeypatch.setitem(sys.modules, "ray", ray)
    with ThreadPoolExecutor(1) as thread:
        names = thread.submit(lambda: asyncio.run(ServeModels().names())).result(30)
    assert names == {"old": True, "never": False, "going": False, "soon": True}
