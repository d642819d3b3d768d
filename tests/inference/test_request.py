"""Tests of the validation of requests."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from core.db.run_values import RunStart
from core.errors import BadRequestError
from core.inference.request import GenerationRequest
from core.runtimes.spec import SamplingSettings


def refusal(request: GenerationRequest) -> str:
    with pytest.raises(BadRequestError) as failure:
        request.validated()
    sentence = str(failure.value)
    assert "\n" not in sentence and sentence.endswith(".")
    assert sentence.isprintable()
    return sentence


@pytest.mark.parametrize("instruction", ["", "   ", "\n\t \u00a0\u2003\r\n"])
def test_empty_instruction(instruction: str):
    assert "empty" in refusal(GenerationRequest(instruction))


@pytest.mark.parametrize("bad", ["a\x00b", "a\x1bb", "a\x7fb"])
@pytest.mark.parametrize("where", ["instruction", "context"])
def test_control_characters(bad: str, where: str):
    texts = {"instruction": "Why?", where: bad}
    sentence = refusal(GenerationRequest(**texts))
    assert where in sentence and f"U+{ord(bad[1]):04X}" in sentence


@pytest.mark.parametrize("where", ["instruction", "context"])
def test_unpaired_surrogate(where: str):
    sentence = refusal(GenerationRequest(**{"instruction": "Why?", where: "a\ud83db"}))
    assert where in sentence and "U+D83D" in sentence


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_new_tokens", 0, "max new tokens is 0. Choose a value from 1 to 1000000"),
        ("max_new_tokens", 1_000_001, "1000001"),
        ("max_new_tokens", 2.5, "whole number from 1 to 1000000"),
        ("max_new_tokens", math.nan, "nan"),
        ("temperature", 0.0, "temperature is 0.0. Choose a value from 0.1 to 5.0"),
        ("temperature", math.nan, "nan"),
        ("temperature", math.inf, "inf"),
        ("top_p", 0.0, "top-p is 0.0. Choose a value from 0.05 to 1.0"),
        ("top_p", 1.01, "1.01"),
        ("top_p", math.nan, "nan"),
        ("top_k", -1, "top-k is -1. Choose a value from 0 to 1000000"),
        ("top_k", 1_000_001, "1000001"),
        ("top_k", 3.5, "whole number"),
        ("repetition_penalty", 0.0, "repetition penalty is 0.0. Choose a value from 0.1 to 10.0"),
        ("repetition_penalty", math.nan, "nan"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**32, "seed"),
    ],
)
def test_setting_out_of_range(name: str, value: float, words: str):
    request = GenerationRequest("Why?", sampling=SamplingSettings(**{name: value}))
    assert words in refusal(request)


def test_default_settings():
    settings = SamplingSettings()
    assert (settings.max_new_tokens, settings.temperature) == (256, 0.8)
    assert (settings.top_p, settings.top_k) == (0.92, 0)
    assert settings.validated() == settings


def test_greedy_ignores_seed_and_temperature():
    sampling = SamplingSettings(greedy=True, temperature=0.0, seed=3)
    assert GenerationRequest("Why?", sampling=sampling).validated().sampling.seed is None


def test_sampling_gets_a_random_seed_or_keeps_the_given_one():
    fresh = {GenerationRequest("Why?").validated().sampling.seed for _ in range(20)}
    assert len(fresh) > 15 and None not in fresh
    given = GenerationRequest("Why?", sampling=SamplingSettings(seed=0)).validated()
    assert given.sampling.seed == 0


def test_outer_white_space_is_kept():
    request = GenerationRequest("  a\n\tb  ", " c ").validated()
    assert (request.instruction, request.context) == ("  a\n\tb  ", " c ")


def test_variables_of_a_chat_template_are_no_parameters_of_its_renderer():
    kwargs = {"enable_thinking": False}
    assert GenerationRequest("a", chat_template_kwargs=kwargs).validated().chat_template_kwargs
    for name in ("messages", "chat_template", "add_generation_prompt"):
        assert name in refusal(GenerationRequest("a", chat_template_kwargs={name: "x"}))


def test_every_sampling_setting_is_recorded() -> None:
    """The recorder writes all of them; a column that is missing would cost every record."""
    recorded = {each.name for each in fields(RunStart)}
    assert {each.name for each in fields(SamplingSettings)} <= recorded
