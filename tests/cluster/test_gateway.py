"""Access to the gateway, and replicas that die or failed to start."""

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

from core.auth.tokens import sha256
from core.cluster.gateway import (
    QueueFullError,
    ReplicaLostError,
    ServeModels,
    gateway_app,
)
from tests.waiting import PATIENCE_S

HERE = "http://127.0.0.1:8000"
KEY = "a-key-of-this-lab"
START = {"type": "http.response.start", "status": 200, "headers": []}


class Replicas:
    """Replicas that follow a script for each request: messages, then an error or None."""

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
    method: str = "GET",
    keys: tuple[str, ...] = (),
    **headers: str,
) -> httpx.Response:
    """Return the response to a request, or to ``GET`` of a path."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(gateway_app(frozenset(map(sha256, keys)), replicas))
        async with httpx.AsyncClient(transport=transport, base_url=HERE, headers=sent) as client:
            if path is not None:
                return await client.request(method, path)
            return await client.post("/v1/chat/completions", json={"model": model})

    with ThreadPoolExecutor(1) as thread:  # the tests' own thread may have a loop already
        return thread.submit(lambda: asyncio.run(ask())).result(PATIENCE_S)


def test_a_request_is_repeated_until_something_was_sent():
    replicas = Replicas(([START], ReplicaLostError()), ([START, said("woof", False)], None))
    assert (asked(replicas).text, replicas.scripts) == ("woof", [])


def test_started_stream_ends_with_an_error():
    told = asked(Replicas(([START, said("data: wo\n\n")], ReplicaLostError())))
    assert told.text.startswith("data: wo\n\n")
    last = told.text.strip().splitlines()[-1].removeprefix("data: ")
    assert json.loads(last)["error"]["code"] == "replica_lost"


def test_no_replica_is_an_error():
    told = asked(Replicas(*[([], ReplicaLostError())] * 3))
    assert (told.status_code, told.json()["error"]["code"]) == (503, "replica_lost")
    assert asked(Replicas(([], QueueFullError()))).status_code == 429


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/models/dog"])
def test_head_is_allowed_where_get_is(path: str):
    answers = [asked(Replicas(), path, method=method) for method in ("GET", "HEAD")]
    assert answers[0].status_code == answers[1].status_code == 200
    assert answers[0].content and not answers[1].content
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2


# Who may ask


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_without_keys_local_programs_are_served(host: str):
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
def test_without_keys_cross_origin_requests_are_refused(headers: dict[str, str]):
    refused = asked(Replicas(), **headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    reads = asked(Replicas(), "/v1/models", **headers)
    assert reads.status_code == (200 if headers == {"sec_fetch_site": "none"} else 403)


def test_with_a_key_any_host_name_is_accepted():
    host, bearer = "lab.example", f"Bearer {KEY}"
    assert asked(Replicas(), "/v1/models", keys=(KEY,), host=host).status_code == 401
    told = asked(Replicas(), "/v1/models", keys=(KEY,), host=host, authorization=bearer)
    assert told.status_code == 200


def test_key_of_another_origin_is_accepted_only_where_keys_are_checked():
    bearer = {"authorization": f"Bearer {KEY}", "origin": "http://app.example"}
    assert asked(Replicas(), "/v1/models", keys=(KEY,), **bearer).status_code == 200
    assert asked(Replicas(), "/v1/models", **bearer).status_code == 403
    wrong = bearer | {"authorization": "Bearer other"}
    assert asked(Replicas(), "/v1/models", keys=(KEY,), **wrong).status_code == 401


# Which models there are


def test_a_model_that_failed_to_start_is_not_listed():
    listed = asked(Replicas(), "/v1/models").json()["data"]
    assert [each["id"] for each in listed] == ["dog"]
    for told in (asked(Replicas(), model="cat"), asked(Replicas(), "/v1/models/cat")):
        assert (told.status_code, told.json()["error"]["code"]) == (503, "unavailable")
        assert "cat failed to start" in told.json()["error"]["message"]
    unknown = asked(Replicas(), model="cow")
    assert unknown.status_code == 404 and unknown.json()["error"]["message"].endswith(
        "models: dog."
    )


def test_model_answers_after_a_failed_update(monkeypatch: pytest.MonkeyPatch):
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
        names = thread.submit(lambda: asyncio.run(ServeModels().names())).result(PATIENCE_S)
    assert names == {"old": True, "never": False, "going": False, "soon": True}
