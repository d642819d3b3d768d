"""What the door makes of replicas that die: repeated before the first word, told after it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from core.cluster.door import Door, LostReplica, TooManyWait

START = {"type": "http.response.start", "status": 200, "headers": []}


class Replicas:
    """Each request takes the next script: messages, then an error or None."""

    def __init__(self, *scripts: tuple[list[dict[str, Any]], Exception | None]) -> None:
        self.scripts = list(scripts)

    async def names(self) -> Mapping[str, bool]:
        return {"dog": True}

    async def call(self, model: str, path: str, body: bytes) -> AsyncIterator[dict[str, Any]]:
        messages, error = self.scripts.pop(0)
        for message in messages:
            yield message
        if error is not None:
            raise error


def said(text: str, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}


def asked(replicas: Replicas) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Door(frozenset(), replicas))
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            return await client.post("/v1/chat/completions", json={"model": "dog"})

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
