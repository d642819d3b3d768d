"""What a person sees whose program asked wrongly: OpenAI's own client, and curl's way of asking."""

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


def told(error: openai.APIStatusError) -> str:
    """The sentence, which the client shows with the status and the rest of the error."""
    sentence = error.body["message"]
    assert sentence in str(error) and f"{error.status_code}" in str(error)
    return sentence


@pytest.mark.parametrize("mebibytes", [5, 64])
def test_what_is_too_long_is_told_so_and_not_cut_off(
    mebibytes: int, server: Server, client: OpenAI
):
    for _ in range(3):
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, extra_body={"context": "x" * mebibytes * 2**20})
        assert caught.value.status_code == 413 and "longer than 4 MiB" in told(caught.value)
    assert server.ask() == 200


def test_curl_without_a_header_is_told_which(server: Server):
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = httpx.post(f"{server.url}{CHAT}", content=b"{}", headers=kind)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_what_is_not_there_is_told_with_what_is(client: OpenAI, server: Server):
    doubled = OpenAI(base_url=f"{server.url}{CHAT}", api_key="guest", max_retries=0)
    for wrong in (
        lambda: ask(doubled),
        lambda: client.responses.create(model=MODEL, input="Hello"),
        lambda: client.embeddings.create(model=MODEL, input="Hello"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            wrong()
        assert f"there are /v1/models, {CHAT} and /v1/completions" in told(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": 3}, "temperature is 3, but must be a number from 0.0 to 2.0."),
        ({"max_tokens": 0}, "max_tokens is 0, but must be a whole number from 1 to 1000."),
        ({"tools": [{"type": "function"}]}, "These models call no tools; leave tools out."),
        ({"messages": []}, "messages is an empty list, but must be a list of messages."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_field_is_named_with_what_it_may_be(
    fields: dict[str, Any], words: str, client: OpenAI
):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **fields)
    assert told(caught.value) == words and caught.value.param in fields


@pytest.mark.parametrize("said", [(), ("One",)], ids=["before the first word", "in the middle"])
def test_an_answer_that_fails_is_an_error_with_its_sentence(
    said: tuple[str, ...], server: Server, client: OpenAI
):
    error: PaddockError = GenerationError("The model failed; choose another device.")
    server.stand_in.make = lambda: StandInAnswer(said, error=error)
    with pytest.raises(openai.APIError) as caught:
        list(ask(client, stream=True))
    assert str(error) in str(caught.value)


def test_nobody_there_is_told_by_the_client_itself(client: OpenAI):
    gone = OpenAI(base_url="http://127.0.0.1:9/v1", api_key="guest", max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        ask(gone)
