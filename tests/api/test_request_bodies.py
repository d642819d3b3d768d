"""Bodies as other projects' clients send them: answered, or rejected with the field's name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from core.api.protocol import parse_chat
from core.catalogue.prompts import Role
from core.inference.answer import Answer, StopReason
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.tokenizer import load_tokenizer
from core.settings import Settings, load_settings
from tests.api.stand_ins import MODEL, StandIn, chat
from tests.builders import tiny_tokenizer
from tests.fakes import FakeHandle, FakeModel
from tests.waiting import PATIENCE_S

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "Which way is the harbour?"}


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def client(stand_in: StandIn) -> TestClient:
    return stand_in.client()


def accepted(client: TestClient, stand_in: StandIn, body: dict[str, Any]) -> GenerationRequest:
    """The request that reaches the model for a body that is answered."""
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.json()["error"]["message"]
    return stand_in.asked[-1][0]


def error_of(client: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    """The error for a body that is rejected."""
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 400
    return answer.json()["error"]


# Fields that would change the answer

SCHEMA = {"type": "object", "properties": {"harbour": {"type": "string"}}}
CHANGING: dict[str, Any] = {
    "min_p": 0.2,
    "min_tokens": 100,
    "ignore_eos": True,
    "guided_json": SCHEMA,
    "guided_regex": "[a-z]+",
    "guided_choice": ["left", "right"],
    "guided_grammar": 'root ::= "left"',
    "structured_outputs": {"json": SCHEMA},
    "json_schema": SCHEMA,
    "grammar": 'root ::= "left" | "right"',
    "format": "json",
    "reasoning_effort": "low",
    "reasoning": {"effort": "high"},
    "verbosity": "low",
    "chat_template_kwargs": {"enable_thinking": False},
    "enable_thinking": False,
    "thinking": {"type": "disabled"},
    "think": False,
    "chat_template": "{{ messages[0]['content'] }}",
    "add_generation_prompt": False,
    "continue_final_message": True,
    "prompt_logprobs": 2,
    "echo": True,
    "typical_p": 0.4,
    "tfs_z": 0.7,
    "mirostat": 1,
    "dynatemp_range": 0.5,
    "xtc_probability": 0.3,
    "dry_multiplier": 0.6,
    "repeat_penalty": 1.3,
    "bad_words": ["left"],
    "stop_token_ids": [7],
    "include_stop_str_in_output": True,
    "skip_special_tokens": False,
    "use_beam_search": True,
    "length_penalty": 1.5,
    "early_stopping": True,
    "num_beams": 3,
    "cache_prompt": False,
    "truncate_prompt_tokens": 8,
    "logits_processors": ["some.module"],
    "n_predict": 6,
    "num_predict": 6,
    "max_new_tokens": 6,
    "options": {"num_predict": 6},
    "top_a": 0.2,
    "do_sample": False,
    "allowed_token_ids": [3, 4],
    "documents": [{"text": "The harbour is to the left."}],
}
HARMLESS: dict[str, Any] = {
    "service_tier": "default",
    "parallel_tool_calls": False,
    "safety_identifier": "someone",
    "prompt_cache_key": "harbour",
    "store": False,
    "metadata": {"from": "a test"},
    "prompt_cache_retention": "24h",
    "request_id": "7",
    "user": "someone",
    "cache_prompt": True,
    "priority": 1,
    "keep_alive": "5m",
    "typical_p": 1.0,
    "mirostat": 0,
    "verbosity": "medium",
}


def check_applied_or_named(client: TestClient, stand_in: StandIn, field: str, value: Any) -> None:
    """Check that the field changes the request or the response, or that the error names it."""
    default = chat(temperature=0.5, max_tokens=5)
    without = client.post(CHAT, json=default).json()["choices"]
    answer = client.post(CHAT, json=default | {field: value})
    if answer.status_code == 200:
        first, second = (request for request, _ in stand_in.asked)
        changed = first != second or answer.json()["choices"] != without
        assert changed, f"{field} is ignored"
    else:
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert field in (error["param"] or "") and field in error["message"]


@pytest.mark.parametrize("field", CHANGING)
def test_field_that_changes_the_answer_is_applied_or_rejected_by_name(
    field: str, client: TestClient, stand_in: StandIn
) -> None:
    check_applied_or_named(client, stand_in, field, CHANGING[field])


def test_unknown_field_is_rejected_by_name(client: TestClient, stand_in: StandIn) -> None:
    check_applied_or_named(client, stand_in, "some_new_field", 3)


@pytest.mark.parametrize("field", HARMLESS)
def test_field_that_changes_nothing_is_ignored(
    field: str, client: TestClient, stand_in: StandIn
) -> None:
    without = accepted(client, stand_in, chat(temperature=0))
    assert accepted(client, stand_in, chat(temperature=0, **{field: HARMLESS[field]})) == without


# Lengths

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "<|assistant|>\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>"
    "{% endif %}"
)


def answer_within(folder: Path, positions: int, **fields: Any) -> tuple[Answer, FakeModel]:
    """The answer of a model with this context length, which never ends by itself."""
    tiny_tokenizer(folder, chat_template=TEMPLATE)
    tokenizer = load_tokenizer(folder)
    model = FakeModel(
        tokenizer, lambda request: iter(lambda: 70, None), end_ids=[0], positions=positions
    )
    request = parse_chat(chat(temperature=0, **fields), Settings()).request
    handle = FakeHandle(model, key="not-in-the-catalogue")
    job = Job(handle, request, handle.scheduler, timeout_s=PATIENCE_S).start()
    assert job.wait(PATIENCE_S) and job.answer is not None
    return job.answer, model


def test_length_above_the_context_length_is_reduced(tmp_path: Path) -> None:
    answer, _ = answer_within(tmp_path, 64, max_tokens=1000)
    if answer.error is not None:
        raise answer.error
    assert answer.stop_reason is StopReason.LENGTH
    assert answer.timings.prompt_tokens + answer.timings.new_tokens == 64


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    "length",
    [1, 1000, 1001, 4096, 32_000],
)
def test_any_length_is_accepted(
    length: int, field: str, client: TestClient, stand_in: StandIn
) -> None:
    assert accepted(client, stand_in, chat(**{field: length})).sampling.max_new_tokens <= length


@pytest.mark.parametrize("length", [0, -1])
def test_length_below_one_is_rejected(length: int, client: TestClient) -> None:
    assert error_of(client, chat(max_tokens=length))["param"] == "max_tokens"


def test_max_new_tokens_can_be_set_above_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_MAX_NEW_TOKENS", "4096")
    assert load_settings().max_new_tokens == 4096


def test_chat_template_kwargs_reach_the_template(tmp_path: Path) -> None:
    _, thinking = answer_within(tmp_path, 256, max_tokens=1)
    kwargs = {"enable_thinking": False}
    _, model = answer_within(tmp_path, 256, max_tokens=1, chat_template_kwargs=kwargs)
    assert model.requests[0].prompt_ids != thinking.requests[0].prompt_ids


# Messages


def conversation(*middle: dict[str, Any]) -> dict[str, Any]:
    """A body with an earlier assistant message."""
    return chat(messages=[{"role": "user", "content": "Hello."}, *middle, USER], temperature=0)


ASSISTANT = {"role": "assistant"}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param(ASSISTANT | {"content": ""}, "", id="empty"),
        pytest.param(ASSISTANT | {"content": "Hi.", "tool_calls": []}, "Hi.", id="no tool calls"),
        pytest.param(
            ASSISTANT | {"content": "Hi.", "reasoning_content": "Hm."}, "Hi.", id="reasoning"
        ),
        pytest.param(
            ASSISTANT | {"content": "Hi.", "audio": None, "annotations": [], "function_call": None},
            "Hi.",
            id="nothing of other kinds",
        ),
        pytest.param(ASSISTANT | {"content": None}, "", id="null"),
        pytest.param(ASSISTANT, "", id="missing"),
        pytest.param(ASSISTANT | {"content": []}, "", id="no parts"),
        pytest.param(
            ASSISTANT | {"content": None, "refusal": "I will not."},
            "I will not.",
            id="refusal",
        ),
        pytest.param(
            ASSISTANT | {"content": [{"type": "output_text", "text": "Hi."}]},
            "Hi.",
            id="output_text",
        ),
        pytest.param(
            ASSISTANT | {"content": "Hi.", "thinking": "Hm.", "images": [], "status": "completed"},
            "Hi.",
            id="of other servers",
        ),
        pytest.param(
            ASSISTANT
            | {
                "type": "message",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                    {"type": "output_text", "text": "Hi.", "logprobs": []},
                ],
            },
            "Hi.",
            id="thoughts and text",
        ),
        pytest.param(
            ASSISTANT | {"content": [{"type": "refusal", "refusal": "I will not."}]},
            "I will not.",
            id="refusal part",
        ),
    ],
)
def test_assistant_messages_are_accepted(
    message: dict[str, Any], text: str, client: TestClient, stand_in: StandIn
) -> None:
    texts = [
        turn.text
        for turn in accepted(client, stand_in, conversation(message)).earlier
        if turn.role is Role.ASSISTANT
    ]
    assert texts in ([text], [] if not text else [text])


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "7"}, r"`messages\[1\]\.role` is 'tool'"),
        (ASSISTANT | {"content": "Hi.", "prefix": True}, r"prefix` \(role assistant\)"),
        (USER | {"images": ["x"]}, r"images` \(role user\)"),
    ],
)
def test_a_rejected_message_is_named_with_its_role(
    message: dict[str, Any], words: str, client: TestClient
) -> None:
    assert re.search(words, error_of(client, conversation(message))["message"])


def test_the_smaller_of_two_lengths_counts(client: TestClient, stand_in: StandIn) -> None:
    request = accepted(client, stand_in, chat(max_tokens=5, max_completion_tokens=9))
    assert request.sampling.max_new_tokens == 5


@pytest.mark.parametrize(
    "message",
    [
        USER | {"name": "someone"},
        {"role": "user", "content": [{"type": "text", "text": USER["content"]}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "text",
                    "text": USER["content"],
                    "cache_control": {"type": "ephemeral"},
                }
            ],
        },
        pytest.param(
            {"role": "user", "content": [{"type": "input_text", "text": USER["content"]}]},
        ),
    ],
    ids=["name", "text", "cache_control", "input_text"],
)
def test_user_messages_are_accepted_in_each_format(
    message: dict[str, Any], client: TestClient, stand_in: StandIn
) -> None:
    assert accepted(client, stand_in, chat(messages=[message])).instruction == USER["content"]


@pytest.mark.parametrize(
    ("messages", "role"),
    [
        ([{"role": "system", "content": "Greet me."}], "system"),
        ([USER, {"role": "system", "content": "Be brief."}], "system"),
        ([USER, {"role": "assistant", "content": "The harbour is"}], "assistant"),
    ],
    ids=["system alone", "user, system", "user, assistant"],
)
def test_conversation_that_ends_with_another_role_is_answered_or_the_role_is_named(
    messages: list[dict[str, Any]], role: str, client: TestClient
) -> None:
    answer = client.post(CHAT, json=chat(messages=messages))
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert role in answer.json()["error"]["message"]


def test_white_space_around_the_last_message_is_kept(client: TestClient, stand_in: StandIn) -> None:
    text = "  Where is the harbour?\n\n"
    messages = [{"role": "user", "content": text}]
    request = accepted(client, stand_in, chat(messages=messages))
    assert request.validated().instruction == text


# Sampling


@pytest.mark.parametrize(
    "field",
    [
        {"top_k": 50},
        {"top_k": 0},
        {"top_k": -1},
        {"top_k": 40.0},
        {"repetition_penalty": 1.0},
        {"repetition_penalty": 2.0},
        {"stop": ["\n"]},
        {"stop": ["one", "two", "three", "four"]},
    ],
    ids=str,
)
def test_common_values_are_accepted(
    field: dict[str, Any], client: TestClient, stand_in: StandIn
) -> None:
    accepted(client, stand_in, chat(**field))


@pytest.mark.parametrize(
    "field",
    [
        {"top_k": 51},
        {"top_k": 64},
        {"top_k": 100},
        {"repetition_penalty": 0.9},
        {"repetition_penalty": 2.5},
        {"stop": [f"stop {number}" for number in range(5)]},
        {"stop": [f"stop {number}" for number in range(9)]},
    ],
    ids=str,
)
def test_values_that_other_servers_accept_are_accepted(
    field: dict[str, Any], client: TestClient, stand_in: StandIn
) -> None:
    without = accepted(client, stand_in, chat())
    assert accepted(client, stand_in, chat(**field)) != without


@pytest.mark.parametrize("stop", ["", [""], ["", "end"]], ids=repr)
def test_empty_stop_sequence_is_ignored(
    stop: str | list[str], client: TestClient, stand_in: StandIn
) -> None:
    wanted = tuple(text for text in stop if text)
    assert accepted(client, stand_in, chat(stop=stop)).stop == wanted


@pytest.mark.parametrize(
    "field", [{"seed": "7"}, {"stream_options": {"include_usage": True}}, {"temperature": "0.7"}]
)
def test_values_that_openai_rejects_are_rejected(field: dict[str, Any], client: TestClient) -> None:
    assert error_of(client, chat(**field))["param"] in field


# The request itself


def test_byte_order_mark_before_the_body_is_ignored(client: TestClient) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(chat()).encode()
    answer = client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}"])
def test_head_is_allowed_where_get_is(path: str, client: TestClient) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
