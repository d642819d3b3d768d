"""Tests of reasoning models: channels between markers, reasoning between tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.inference.answer import Answer
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import SamplingSettings
from core.runtimes.tokenizer import load_tokenizer
from tests.builders import tiny_tokenizer
from tests.fakes import FakeHandle, FakeModel

THOUGHT, ANSWER = "The person wants rain.", "Rain falls."
CHANNELS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
TAGS = ("<think>", "</think>")
HARMONY_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}<|message|>"
    "{{ message['content'] }}<|end|>{% endfor %}<|start|>assistant"
)
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{{ eos_token }}{% endfor %}"
ANALYSIS = f"<|channel|>analysis<|message|>{THOUGHT}"
FINAL = f"<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>"


def answer(
    folder: Path, said: str, *, special: tuple[str, ...], words: tuple[str, ...], template: str
) -> Answer:
    """Return the answer of a model that generates ``said``."""
    tiny_tokenizer(folder, special_tokens=special, words=words, chat_template=template)
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    ends = {0, tokenizer.convert_tokens_to_ids("<|return|>")} - {None}
    model = FakeModel(tokenizer, lambda request: ids, end_ids=ends)
    request = GenerationRequest("Go", sampling=SamplingSettings(max_new_tokens=200, greedy=True))
    handle = FakeHandle(model, key="not-in-the-catalogue")
    job = Job(handle, request, handle.scheduler, timeout_s=60).start()
    assert job.wait(30) and job.answer is not None and job.answer.error is None
    return job.answer


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="channel markers are removed like other special tokens, so that the answer contains "
    "the analysis and the names of the channels",
)
@pytest.mark.parametrize(
    ("said", "shown"),
    [(ANALYSIS + FINAL, ANSWER), (ANALYSIS, "")],
    ids=["analysis, then final", "ends in the analysis"],
)
def test_only_the_final_channel_is_shown(said: str, shown: str, tmp_path: Path) -> None:
    found = answer(tmp_path, said, special=CHANNELS, words=(), template=HARMONY_TEMPLATE)
    assert found.text == shown


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="text between <think> tags is not separated from the answer",
)
@pytest.mark.parametrize(
    ("special", "words"),
    [(TAGS, ()), ((), TAGS), ((), ())],
    ids=["special tokens", "ordinary tokens", "text"],
)
@pytest.mark.parametrize(
    ("said", "shown"),
    [(f"<think>{THOUGHT}</think>{ANSWER}", ANSWER), (f"<think>{THOUGHT}", "")],
    ids=["closed", "not closed"],
)
def test_reasoning_is_not_part_of_the_answer(
    said: str, shown: str, special: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    found = answer(tmp_path, said, special=special, words=words, template=CHAT_TEMPLATE)
    assert found.text.strip() == shown


def test_answer_without_markers_is_shown_completely(tmp_path: Path) -> None:
    for template in (HARMONY_TEMPLATE, CHAT_TEMPLATE):
        special = CHANNELS if template == HARMONY_TEMPLATE else TAGS
        found = answer(tmp_path, ANSWER, special=special, words=(), template=template)
        assert found.text == ANSWER
