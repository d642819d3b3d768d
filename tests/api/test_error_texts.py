"""Errors as users see them in OpenAI's client and in curl."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from core.errors import GenerationError, PaddockError
from tests.api.stand_ins import MODEL, StandInAnswer, chat
from tests.api.web_server import CHAT, Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="guest", max_retries=0)


def ask(client: OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**chat() | fields)


def message(error: openai.APIStatusError) -> str:
    """The error's message, which the client shows with the status."""
    text = error.body["message"]
    assert text in str(error) and f"{error.status_code}" in str(error)
    return text


@pytest.mark.parametrize("mebibytes", [5, 64])
def test_too_long_request_is_an_error_and_not_a_closed_connection(
    mebibytes: int, server: Server, client: OpenAI
):
    for _ in range(3):
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, extra_body={"context": "x" * mebibytes * 2**20})
        assert caught.value.status_code == 413 and "larger than 4.2 MB" in message(caught.value)
    assert server.ask() == 200


def test_error_of_a_wrong_content_type_names_the_header(server: Server):
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = httpx.post(f"{server.url}{CHAT}", content=b"{}", headers=kind)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_error_of_an_unknown_path_lists_the_paths(client: OpenAI, server: Server):
    doubled = OpenAI(base_url=f"{server.url}{CHAT}", api_key="guest", max_retries=0)
    for wrong in (
        lambda: ask(doubled),
        lambda: client.responses.create(model=MODEL, input="Hello"),
        lambda: client.embeddings.create(model=MODEL, input="Hello"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            wrong()
        assert f"Use /v1/models, {CHAT} or /v1/completions." in message(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": 3}, "`temperature` is 3, but must be a number from 0.0 to 2.0."),
        ({"max_tokens": 0}, "`max_tokens` is 0, but must be an integer from 1."),
        (
            {"tools": [{"type": "function"}]},
            "`tools` is not supported. Remove it from the request.",
        ),
        ({"messages": []}, "`messages` is an empty list, but must be a list of messages."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_error_of_an_invalid_field_names_it_and_its_range(
    fields: dict[str, Any], words: str, client: OpenAI
):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **fields)
    assert message(caught.value) == words and caught.value.param in fields


@pytest.mark.parametrize("pieces", [(), ("One",)], ids=["before the first token", "in the middle"])
def test_failed_generation_is_an_error_with_its_text(
    pieces: tuple[str, ...], server: Server, client: OpenAI
):
    error: PaddockError = GenerationError("The model failed; choose another device.")
    server.stand_in.make = lambda: StandInAnswer(pieces, error=error)
    with pytest.raises(openai.APIError) as caught:
        list(ask(client, stream=True))
    assert str(error) in str(caught.value)


def test_unreachable_server_is_the_clients_own_error(client: OpenAI):
    gone = OpenAI(base_url="http://127.0.0.1:9/v1", api_key="guest", max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        ask(gone)
