"""Random bodies never cause a server error, and no field is ignored that may change the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from core.api.errors import ApiError
from core.api.protocol import ParsedRequest, parse_chat
from core.settings import Settings
from tests.api.random_bodies import FITTING, bodies, json_values, names
from tests.api.stand_ins import MODEL, StandIn, chat
from tests.api.test_app import CHAT, COMPLETIONS, check_error
from tests.api.test_request_bodies import HARMLESS


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with StandIn().client() as made:
        yield made


def post(client: TestClient, path: str, body: bytes) -> Any:
    return client.post(path, content=body, headers={"content-type": "application/json"})


@settings(max_examples=300)
@given(fields=bodies, path=st.sampled_from([CHAT, COMPLETIONS]))
def test_bodies_are_answered_or_rejected(client: TestClient, fields: dict[str, Any], path: str):
    good = {"model": MODEL, "prompt": "Hello"} if path == COMPLETIONS else chat()
    answer = post(client, path, json.dumps(good | fields).encode())
    if answer.status_code != 200:
        check_error(answer)


_FITTING = st.sampled_from(sorted(FITTING)).flatmap(
    lambda name: st.tuples(st.just(name), FITTING[name])
)
_NEUTRAL: tuple[Any, ...] = (None, False, 0, 1, "", [], {}, [""], {"type": "text"})
"""Values by which a field changes nothing, in addition to the defaults below."""
_DEFAULTS = {
    "add_generation_prompt": True,
    "stream_options": {"include_usage": False},
    "max_completion_tokens": 256,
    "max_tokens": 256,
    "skip_special_tokens": True,
    "temperature": 0.8,
    "top_k": -1,
    "top_p": 0.92,
}


@settings(max_examples=300)
@given(field=_FITTING | st.tuples(names | st.text(max_size=8), json_values))
@example(field=("seed", 7))
def test_no_field_is_silently_ignored(field: tuple[str, Any]):
    name, value = field
    body = chat(stream=True) if name == "stream_options" else chat()
    without = parsed(body)
    try:
        found = parsed(body | {name: value})
    except ApiError as error:
        assert name[:60] in (error.param or "") or name in ("model", "messages"), error.message
        return
    changed = found != without
    neutral = value in _NEUTRAL or value == _DEFAULTS.get(name)
    empty = name == "stop" and not any(value)
    assert changed or neutral or empty or name in HARMLESS, f"{name} is ignored"


def parsed(body: dict[str, Any]) -> ParsedRequest:
    return parse_chat(json.loads(json.dumps(body)), Settings())


@settings(max_examples=100)
@given(body=st.binary(max_size=200))
def test_random_bytes_are_a_bad_request(client: TestClient, body: bytes):
    assert check_error(post(client, CHAT, body), 400)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model": "fake", "temperature": NaN}',
        b'{"model": "fake", "seed": ' + b"9" * 10_000 + b"}",
        b'{"model": "fake", "temperature": 1e999, "messages": []}',
        b'{"model": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
        json.dumps(chat()).encode("utf-16"),
        b'{"model": "fake", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "fake", "messages": [{"role": "user", "content": "\\u0000"}]}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "a"}]}',
        json.dumps(chat(stop="\ud800")).encode(),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_broken_bodies_are_rejected_quickly(client: TestClient, body: bytes):
    began = time.process_time()
    check_error(post(client, CHAT, body))
    assert time.process_time() - began < 5
