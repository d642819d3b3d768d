"""Request parsing, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from core.api.errors import ApiError
from core.api.protocol import ParsedRequest, parse_chat, parse_completion
from core.catalogue.prompts import Role, Turn
from core.runtimes.spec import SamplingSettings, Structure
from core.settings import Settings
from tests.api.stand_ins import MODEL, chat


def parsed(**fields: Any) -> ParsedRequest:
    return parse_chat(chat(**fields), Settings())


def error_of(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parsed(**fields)
    assert caught.value.status == 400
    return caught.value


def test_limits_are_those_of_the_settings():
    settings = Settings(max_new_tokens=9, max_characters=400)
    assert parse_chat(chat(max_tokens=50), settings).request.sampling.max_new_tokens == 9
    with pytest.raises(ApiError, match="Send at most 400"):
        parse_chat(chat(messages=[{"role": "user", "content": "a" * 401}]), settings)


def test_missing_sampling_settings_are_the_models_defaults():
    def own(name: str) -> SamplingSettings:
        assert name == MODEL
        return SamplingSettings(temperature=0.2, top_p=0.9, top_k=7)

    def greedy(name: str) -> SamplingSettings:
        return SamplingSettings(greedy=True)

    sampling = parse_chat(chat(top_p=0.5), Settings(), own).request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.2, 0.5, 7)
    assert parse_chat(chat(), Settings(), greedy).request.sampling.greedy
    assert not parse_chat(chat(temperature=0.5), Settings(), greedy).request.sampling.greedy


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


# Messages


def test_last_message_is_the_instruction_and_the_others_are_earlier_turns():
    request = parsed(
        messages=[
            {"role": "developer", "content": "Be brief."},
            user("One?"),
            {"role": "assistant", "content": "Two."},
            user([{"type": "text", "text": "Three?"}, {"type": "text", "text": "Four?"}]),
        ],
        context="A passage.",
    ).request
    assert request.instruction == "Three?\nFour?"
    assert request.context == "A passage."
    assert request.earlier == (
        Turn(Role.SYSTEM, "Be brief."),
        Turn(Role.USER, "One?"),
        Turn(Role.ASSISTANT, "Two."),
    )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("Hello", "messages"),
        ([{"role": "assistant", "content": "Hello"}], "messages"),
        ([user("a")] * 1001, "messages"),
        (["Hello"], "messages[0]"),
        ([{"content": "Hello"}], "messages[0].role"),
        ([{"role": ["user"], "content": "Hello"}], "messages[0].role"),
        ([{"role": "tool", "content": "Hello"}], "messages[0].role"),
        ([user(None)], "messages[0].content"),
        ([user([])], "messages[0].content"),
        ([user(["Hello"])], "messages[0].content[0]"),
        ([user([{"type": "text", "text": 3}])], "messages[0].content[0].text"),
        ([user([{"type": "image_url", "image_url": {}}])], "messages[0].content[0].type"),
        ([user("a" * 200_001)], "messages"),
        (
            [{"role": "assistant", "content": None, "tool_calls": [{}]}, user("a")],
            "messages[0].tool_calls",
        ),
    ],
)
def test_error_names_the_invalid_message(messages: Any, param: str):
    assert error_of(messages=messages).param == param


# Settings


def test_default_sampling_settings():
    sampling = parsed().request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (0.8, 0.92, 256)


def test_sampling_settings_are_parsed():
    request = parsed(
        max_tokens=9,
        max_completion_tokens=7,
        temperature=1.5,
        top_p=0.5,
        top_k=20,
        repetition_penalty=1.2,
        seed=42,
        stop=["a", "b"],
    ).request
    sampling = request.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (7, 1.5, 0.5)
    assert (sampling.top_k, sampling.repetition_penalty, sampling.seed) == (20, 1.2, 42)
    assert request.stop == ("a", "b") and not sampling.greedy
    request.validated()


@pytest.mark.parametrize("field", [{"temperature": 0}, {"top_p": 0.01}, {"top_k": 1}])
def test_nearly_greedy_settings_decode_greedily(field: dict[str, Any]):
    request = parsed(seed=3, **field).request
    assert request.sampling.greedy
    request.validated()


@pytest.mark.parametrize("seed", [-1, 2**63 - 1, -(2**63), 0])
def test_64_bit_seeds_are_reduced_to_32_bits(seed: int):
    assert parsed(seed=seed).request.sampling.seed == seed % 2**32


@pytest.mark.parametrize(
    "field",
    [
        {"max_tokens": 0},
        {"max_tokens": 2.5},
        {"max_tokens": True},
        {"max_tokens": "5"},
        {"max_completion_tokens": 0},
        {"temperature": 2.1},
        {"temperature": -1},
        {"temperature": float("inf")},
        {"top_p": 1.1},
        {"top_k": 1_000_001},
        {"repetition_penalty": 0},
        {"seed": 2**63},
        {"seed": 1.5},
        {"stop": ["a"] * 17},
        {"stop": [1]},
        {"stop": {}},
        {"stop": "a" * 501},
        {"n": 9},
        {"n": True},
        {"logprobs": 1},
        {"top_logprobs": 5},
        {"logprobs": True, "top_logprobs": 21},
        {"presence_penalty": 2.5},
        {"frequency_penalty": -3},
        {"min_p": 1.5},
        {"min_tokens": -1},
        {"min_tokens": 20, "max_tokens": 10},
        {"ignore_eos": 1},
        {"stop_token_ids": [-1]},
        {"stop_token_ids": ["a"]},
        {"chat_template_kwargs": []},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_object", "more": 1}},
        {"response_format": {"type": "json_object", "json_schema": {"schema": {}}}},
        {"stop": "\0"},
        {"context": "\a"},
        {"guided_regex": ""},
        {"guided_regex": "(" * 40},
        {"guided_grammar": "a" * 20_001},
        {"guided_json": "{"},
        {"guided_json": []},
        {"stream": "yes"},
        {"stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": []},
        {"model": None},
        {"model": 3},
        {"context": 3},
        {"return_full_text": 1},
    ],
    ids=str,
)
def test_error_names_the_invalid_field(field: dict[str, Any]):
    assert (error_of(**field).param or "").partition(".")[0] in field


def test_error_names_an_unknown_stream_option():
    error = error_of(stream=True, stream_options={"continuous_usage_stats": True})
    assert error.param == "stream_options.continuous_usage_stats"


def test_control_characters_in_an_earlier_answer_are_left_out():
    said = [{"type": "text", "text": "a\x7f"}, {"type": "text", "text": None}]
    user = {"role": "user", "content": "Go on."}
    history = [user, {"role": "assistant", "content": said}, user]
    _, answer = parsed(messages=history).request.earlier
    assert answer.text == "a"


def test_fields_for_genai_become_options():
    fields = {
        "min_p": 0.1,
        "presence_penalty": 1.5,
        "frequency_penalty": -0.5,
        "min_tokens": 3,
        "ignore_eos": True,
        "stop_token_ids": [7, 8.0],
        "logprobs": True,
        "top_logprobs": 5,
    }
    options = parsed(**fields).request.options
    assert options.used == fields | {"stop_token_ids": (7, 8)}
    assert parsed().request.options.used == {}


def test_choices_are_requests_of_their_own_with_different_seeds():
    requests = parsed(n=3, seed=2**32 - 1).requests
    assert [each.sampling.seed for each in requests] == [2**32 - 1, 0, 1]
    assert parsed(n=2).requests == [parsed().request] * 2


STRUCTURES = [
    ({"response_format": {"type": "json_object"}}, "json_schema", '{"type": "object"}'),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}}},
        "json_schema",
        '{"type": "null"}',
    ),
    ({"guided_json": {"type": "integer"}}, "json_schema", '{"type": "integer"}'),
    ({"guided_json": '{"type": "integer"}'}, "json_schema", '{"type": "integer"}'),
    ({"guided_regex": "a|b"}, "regex", "a|b"),
    ({"guided_grammar": 'root ::= "a"'}, "grammar", 'root ::= "a"'),
]


@pytest.mark.parametrize(("fields", "kind", "text"), STRUCTURES, ids=str)
def test_structure_of_the_answer(fields: dict[str, Any], kind: str, text: str):
    (name,) = fields
    assert parsed(**fields).request.options.structure == Structure(kind, text, name)


@pytest.mark.parametrize("other", [{"guided_regex": "a"}, {"ignore_eos": True}], ids=str)
def test_structure_cannot_be_combined(other: dict[str, Any]):
    error = error_of(response_format={"type": "json_object"}, **other)
    assert error.param in other and "response_format" in error.message


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"top_k": -2}, "`top_k` is -2, but must be an integer from -1 to 1000000."),
        ({"temperature": "1"}, "`temperature` is '1', but must be a number from 0.0 to 2.0."),
        ({"stream": 1}, "`stream` is 1, but must be true or false."),
        ({"context": []}, "`context` is an empty list, but must be a string."),
        ({"model": None}, "`model` is missing. It must be a string."),
        (
            {"stop": [1] * 100_000},
            "`stop` is a list of length 100,000, but must be a string or a list of up to 16 "
            "strings of at most 500 characters.",
        ),
        (
            {"messages": [user("a")] * 1001},
            "`messages` is a list of length 1,001, but must be a list of at most 1,000 messages.",
        ),
        (
            {"messages": [user("a"), user(3)]},
            "`messages[1].content` (role user) is 3, but must be a string or a list of text parts.",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_error_says_what_the_field_must_be(field: dict[str, Any], message: str):
    assert error_of(**field).message == message


@pytest.mark.parametrize(
    "field",
    [
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"functions": [{}]},
        {"logit_bias": {"1": 1}},
        {"modalities": ["text", "audio"]},
        {"best_of": 3},
    ],
    ids=str,
)
def test_unsupported_fields_are_rejected(field: dict[str, Any]):
    error = error_of(**field)
    assert (error.code, error.param) == ("unsupported_parameter", next(iter(field)))


def test_fields_without_effect_are_ignored():
    parsed(
        n=1,
        tools=[],
        tool_choice="auto",
        logprobs=False,
        top_logprobs=None,
        logit_bias={},
        presence_penalty=0.0,
        frequency_penalty=0,
        response_format={"type": "text"},
        user="ada",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        something_new=None,
    )


# Raw prompts


@pytest.mark.parametrize("prompt", ["  A cat ", ["  A cat "]])
def test_completion_prompt_is_unchanged(prompt: Any):
    found = parse_completion({"model": MODEL, "prompt": prompt, "echo": True}, Settings())
    assert found.request.verbatim and found.request.validated().instruction == "  A cat "
    assert (found.prefix, found.param) == ("  A cat ", "prompt")


@pytest.mark.parametrize("name", ["echo", "return_full_text"])
def test_log_probabilities_of_the_prompt_are_rejected(name: str):
    with pytest.raises(ApiError) as caught:
        parse_completion({"model": MODEL, "prompt": "a", name: True, "logprobs": 0}, Settings())
    assert caught.value.param == name


@pytest.mark.parametrize("prompt", [None, "", [], ["a", "b"], [1, 2], [[1]], {}])
def test_other_prompts_are_rejected(prompt: Any):
    with pytest.raises(ApiError) as caught:
        parse_completion({"model": MODEL, "prompt": prompt}, Settings())
    assert (caught.value.status, caught.value.param) == (400, "prompt")
