"""Routes of the API with a fake model: responses and errors."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from core.api.body import MAX_BYTES
from core.errors import (
    CorruptModelError,
    GenerationError,
    ModelBusyError,
    NotEnoughMemoryError,
    PaddockError,
    PromptFormatError,
    PromptTooLongError,
    RecordsError,
    TooManyAnswersError,
)
from core.inference.answer import StopReason
from tests.api.stand_ins import MODEL, PIECES, StandIn, StandInAnswer, chat
from tests.api.web_server import eventually

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TEXT = "One two three."


@pytest.fixture(scope="module")
def client() -> Any:
    with StandIn().client() as made:
        yield made


def events(body: str) -> list[Any]:
    """The data of all events before ``[DONE]``."""
    data = [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(each) for each in data]


def check_error(answer: Any, status: int | None = None) -> dict[str, Any]:
    """Check OpenAI's error format and return the error."""
    assert answer.status_code == status if status else 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"] and error["code"]
    return error


# Answers


def test_models_are_listed_and_found(client: TestClient):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list" and [each["id"] for each in listed["data"]] == [MODEL]
    assert client.get(f"/v1/models/{MODEL}").json() == listed["data"][0]
    assert check_error(client.get("/v1/models/other"), 404)["code"] == "model_not_found"


def test_chat_completion(client: TestClient):
    reply = client.post(CHAT, json=chat(return_full_text=True)).json()
    assert reply["object"] == "chat.completion" and reply["model"] == MODEL
    assert reply["choices"][0]["message"]["content"] == f"Say something.\n{TEXT}"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


def test_completion_with_echo(client: TestClient):
    body = {"model": MODEL, "prompt": "Zero. ", "echo": True}
    reply = client.post(COMPLETIONS, json=body).json()
    assert reply["object"] == "text_completion"
    assert reply["choices"][0]["text"] == f"Zero. {TEXT}"


@pytest.mark.parametrize("usage", [False, True])
def test_chat_completion_streamed(client: TestClient, usage: bool):
    options = {"stream_options": {"include_usage": True}} if usage else {}
    answer = client.post(CHAT, json=chat(stream=True, **options))
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer.text)
    if usage:
        last = chunks.pop()
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 11)
    assert all(("usage" in chunk) == usage and not chunk.get("usage") for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant" and deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == TEXT
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[-1] == "stop" and not any(reasons[:-1])


def test_completion_streamed(client: TestClient):
    body = {"model": MODEL, "prompt": "Zero. ", "echo": True, "stream": True}
    chunks = events(client.post(COMPLETIONS, json=body).text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == f"Zero. {TEXT}"


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (StopReason.END_OF_TEXT, "stop"),
        (StopReason.STOP_MARKER, "stop"),
        (StopReason.LENGTH, "length"),
        (StopReason.TIMEOUT, "length"),
    ],
)
def test_finish_reason(reason: StopReason, word: str):
    with StandIn(lambda: StandInAnswer(reason=reason)).client() as client:
        whole = client.post(CHAT, json=chat()).json()
        assert whole["choices"][0]["finish_reason"] == word
        streamed = events(client.post(CHAT, json=chat(stream=True)).text)
        assert streamed[-1]["choices"][0]["finish_reason"] == word


def test_pieces_that_are_ready_together_are_sent_as_one_chunk():
    stand_in = StandIn(at_once=False)

    def play() -> None:
        eventually(lambda: stand_in.answers)
        answer = stand_in.answers[0]
        answer.release(2)
        eventually(lambda: answer.taken == 2)
        time.sleep(0.3)
        answer.finish()

    player = threading.Thread(target=play)
    player.start()
    with stand_in.client() as client:
        chunks = events(client.post(CHAT, json=chat(stream=True)).text)
    player.join()
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert texts == ["", "One two", " three.", None]


def test_n_answers_are_requests_of_their_own():
    stand_in = StandIn()
    with stand_in.client() as client:
        whole = client.post(CHAT, json=chat(n=3)).json()
        streamed = events(client.post(CHAT, json=chat(n=2, stream=True)).text)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert whole["usage"]["completion_tokens"] == 3 * len(PIECES)
    assert whole["usage"]["prompt_tokens"] == 7
    assert len(stand_in.asked) == 5
    for index in (0, 1):
        own = [each["choices"][0] for each in streamed if each["choices"][0]["index"] == index]
        texts = [each["delta"].get("content") or "" for each in own]
        assert "".join(texts) == "".join(PIECES) and own[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_one_failing_answer_of_several_fails_the_request_and_cancels_the_others(stream: bool):
    made: list[StandInAnswer] = []

    def make() -> StandInAnswer:
        made.append(StandInAnswer(error=GenerationError("It broke.") if len(made) == 1 else None))
        return made[-1]

    stand_in = StandIn(make, at_once=False)

    def play() -> None:
        eventually(lambda: len(made) == 3)
        made[1].finish()

    player = threading.Thread(target=play)
    player.start()
    with stand_in.client() as client:
        answer = client.post(CHAT, json=chat(n=3, stream=stream))
    player.join()
    assert "It broke." in answer.text
    assert [each.cancelled.is_set() for each in made] == [True, False, True]


def test_log_probabilities_of_the_chosen_tokens(client: TestClient):
    whole = client.post(CHAT, json=chat(logprobs=True)).json()["choices"][0]
    tokens = whole["logprobs"]["content"]
    assert [each["token"] for each in tokens] == list(PIECES)
    assert tokens[0] == {
        "token": "One",
        "logprob": -0.5,
        "bytes": [79, 110, 101],
        "top_logprobs": [],
    }
    streamed = events(client.post(CHAT, json=chat(logprobs=True, stream=True)).text)
    found = [each["choices"][0]["logprobs"] for each in streamed]
    assert [each["content"] for each in found if each] == [tokens]
    body = {"model": MODEL, "prompt": "Hello", "logprobs": 0}
    raw = client.post(COMPLETIONS, json=body).json()["choices"][0]["logprobs"]
    assert raw["tokens"] == list(PIECES) and raw["token_logprobs"] == [-0.5] * len(PIECES)
    assert client.post(CHAT, json=chat()).json()["choices"][0]["logprobs"] is None


def test_token_ids_are_returned_on_request(client: TestClient):
    ids = list(range(len(PIECES)))
    whole = client.post(CHAT, json=chat(return_token_ids=True)).json()["choices"][0]
    assert whole["token_ids"] == ids
    streamed = events(client.post(CHAT, json=chat(return_token_ids=True, stream=True)).text)
    assert [each for chunk in streamed for each in chunk["choices"][0].get("token_ids", [])] == ids
    assert "token_ids" not in client.post(CHAT, json=chat()).json()["choices"][0]


def test_thoughts_are_apart_from_the_answer():
    def make() -> StandInAnswer:
        answer = StandInAnswer()
        answer.thoughts = ["Let me", " think."]
        return answer

    with StandIn(make).client() as client:
        message = client.post(CHAT, json=chat()).json()["choices"][0]["message"]
        streamed = events(client.post(CHAT, json=chat(stream=True)).text)
    assert message["reasoning_content"] == "Let me think."
    assert message["content"] == "".join(PIECES)
    deltas = [each["choices"][0]["delta"] for each in streamed]
    assert "".join(each.get("reasoning_content", "") for each in deltas) == "Let me think."
    assert "".join(each.get("content", "") for each in deltas) == "".join(PIECES)


def test_every_response_has_a_request_id(client: TestClient):
    answers = [client.get("/v1/models"), client.post(CHAT, json={}), client.get("/v1/nothing")]
    answers.append(client.post(CHAT, json=chat(stream=True)))
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)


# Errors


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PromptTooLongError("Too long."), 400, "context_length_exceeded"),
        (TooManyAnswersError("Too many."), 429, "rate_limit_exceeded"),
        (ModelBusyError("Busy."), 503, "busy"),
        (NotEnoughMemoryError("No memory."), 503, "unavailable"),
        (GenerationError("Failed."), 500, "failed"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_errors_have_their_status(
    error: PaddockError, status: int, code: str, stream: bool, late: bool
):
    stand_in = StandIn(lambda: StandInAnswer((), error=error))
    stand_in.refusal = None if late else error
    with stand_in.client() as client:
        answer = client.post(CHAT, json=chat(stream=stream))
    assert check_error(answer, status)["code"] == code
    assert answer.json()["error"]["message"] == str(error)
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert stand_in.counted == [(CHAT, "POST", status)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RecordsError("The run database /secret/place is locked."), "The database cannot be read"),
        (CorruptModelError("weights.bin in /secret/place is cut off."), "The files of this model"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("late", [False, True])
def test_paths_of_this_machine_are_logged_and_not_sent(
    error: PaddockError, words: str, late: bool, caplog: pytest.LogCaptureFixture
):
    stand_in = StandIn(lambda: StandInAnswer((), error=error))
    stand_in.refusal = None if late else error
    with stand_in.client() as client:
        answer = client.post(CHAT, json=chat())
    shown = check_error(answer, 503)
    assert shown["code"] == "unavailable" and shown["message"].startswith(words)
    assert "secret" not in answer.text and "/secret/place" in caplog.text


def test_error_of_a_missing_chat_template_names_completions():
    error = PromptFormatError("Choose a prompt format for it: dolly, alpaca, plain.")
    with StandIn(lambda: StandInAnswer((), error=error)).client() as client:
        shown = check_error(client.post(CHAT, json=chat()), 400)
    assert (shown["code"], shown["param"]) == ("no_chat_template", "messages")
    assert COMPLETIONS in shown["message"] and "format" not in shown["message"]


def test_an_error_in_the_middle_of_a_stream_is_an_event():
    with StandIn(lambda: StandInAnswer(("One",), error=GenerationError("It broke."))).client() as c:
        body = c.post(CHAT, json=chat(stream=True)).text
    assert "[DONE]" not in body
    event, data = body.strip().split("\n")[-2:]
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["message"] == "It broke."


@pytest.mark.parametrize("path", ["/v1/", "/v1/embeddings", "/v1/chat", "/v1/chat/completions/a"])
def test_unknown_path_is_404(client: TestClient, path: str):
    assert check_error(client.get(path), 404)["code"] == "unknown_url"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", CHAT), ("PUT", CHAT), ("DELETE", "/v1/models"), ("OPTIONS", COMPLETIONS)],
)
def test_unsupported_method_is_405(client: TestClient, method: str, path: str):
    answer = client.request(method, path)
    check_error(answer, 405)
    assert answer.headers["allow"] in ("GET", "POST")


def test_content_type_other_than_json_is_415(client: TestClient):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = client.post(CHAT, content=json.dumps(chat()), headers={"content-type": kind})
        check_error(answer, 415)


def test_body_above_the_limit_is_413(client: TestClient):
    read = 0

    def endless() -> Any:
        nonlocal read
        for _ in range(10 * MAX_BYTES // 65_536):
            read += 65_536
            yield b" " * 65_536

    headers = {"content-type": "application/json"}
    check_error(client.post(CHAT, content=b"[" * (10 * 2**20), headers=headers), 413)
    check_error(client.post(CHAT, content=endless(), headers=headers), 413)
