"""Ten thousand random bodies at ``/v1`` of a running Paddock: no server error, and no hang.

Unlike ``test_random_bodies.py``, accepted bodies reach OpenVINO GenAI with all their options. Takes
a quarter of an hour and is therefore not collected: run ``python -m pytest -n 0`` with this file's
name. ``PADDOCK_CHECK_BODIES`` sets another number.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import Served
from tests.api.random_bodies import bodies, schemas
from tests.api.test_app import CHAT, COMPLETIONS, check_error

BODIES = int(os.environ.get("PADDOCK_CHECK_BODIES", "10000"))
TIMEOUT_S = 120.0
"""Far more than an answer of twelve tokens takes."""
MODEL = "paddock-neox"
QUESTION = [{"role": "user", "content": "Name three advantages of being a cat."}]
_COUNTS: Counter[int] = Counter()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=TIMEOUT_S) as made:
        yield made
    print(f"\n{sum(_COUNTS.values()):,} bodies by status: {dict(_COUNTS)}")


def post(client: httpx.Client, path: str, fields: dict[str, Any]) -> httpx.Response:
    prompt = {"prompt": "Hello"} if path == COMPLETIONS else {"messages": QUESTION}
    body = json.dumps({"model": MODEL, "max_tokens": 8} | prompt | fields).encode()
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    _COUNTS[answer.status_code] += 1
    return answer


@settings(max_examples=BODIES, suppress_health_check=list(HealthCheck))
@given(fields=bodies, path=st.sampled_from([CHAT, COMPLETIONS]))
def test_bodies_are_answered_or_rejected(client: httpx.Client, fields: dict[str, Any], path: str):
    answer = post(client, path, fields)
    if answer.status_code != 200:
        check_error(answer)
    assert "event: error" not in answer.text or "invalid_request_error" in answer.text


@settings(max_examples=BODIES // 10, suppress_health_check=list(HealthCheck))
@given(schema=schemas, seed=st.integers(0, 99))
def test_answers_that_end_by_themselves_match_their_schema(
    client: httpx.Client, schema: Any, seed: int
):
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    fields = {"response_format": form, "seed": seed, "temperature": 1.5, "max_tokens": 60}
    answer = post(client, CHAT, fields)
    if answer.status_code != 200:
        check_error(answer)
        return
    choice = answer.json()["choices"][0]
    if choice["finish_reason"] == "stop":
        found = json.loads(choice["message"]["content"])
        jsonschema.Draft202012Validator(schema).validate(found)


def test_the_model_still_answers(client: httpx.Client):
    choice = post(client, CHAT, {"temperature": 0, "max_tokens": 200}).json()["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["message"]["content"].startswith("1.")
