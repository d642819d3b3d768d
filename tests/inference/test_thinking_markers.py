"""Tests of reasoning models: channels between markers, reasoning between tags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.inference.answer import Answer
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import SamplingSettings
from core.runtimes.tokenizer import load_tokenizer
from tests.builders import tiny_tokenizer
from tests.fakes import FakeHandle, FakeModel
from tests.waiting import PATIENCE_S

THOUGHT, ANSWER = "The person wants rain.", "Rain falls."
CHANNELS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
TAGS = ("<think>", "</think>")
HARMONY_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}<|message|>"
    "{{ message['content'] }}<|end|>{% endfor %}<|start|>assistant"
)
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{{ eos_token }}{% endfor %}"
SAMPLING = SamplingSettings(max_new_tokens=200, greedy=True)
ANALYSIS = f"<|channel|>analysis<|message|>{THOUGHT}"
FINAL = f"<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>"


def answer(
    folder: Path,
    said: str,
    *,
    special: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    template: str = CHAT_TEMPLATE,
    asked: GenerationRequest | None = None,
) -> Answer:
    """Return the answer of a model that generates ``said``."""
    tiny_tokenizer(folder, special_tokens=special, words=words, chat_template=template)
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    ends = {0, tokenizer.convert_tokens_to_ids("<|return|>")} - {None}
    model = FakeModel(tokenizer, lambda request: ids, end_ids=ends)
    request = replace(asked or GenerationRequest("Go"), sampling=SAMPLING)
    handle = FakeHandle(model, key="not-in-the-catalogue")
    job = Job(handle, request, handle.scheduler, timeout_s=PATIENCE_S).start()
    assert job.wait(PATIENCE_S) and job.answer is not None and job.answer.error is None
    return job.answer


@pytest.mark.parametrize(
    ("said", "shown"),
    [(ANALYSIS + FINAL, ANSWER), (ANALYSIS, "")],
    ids=["analysis, then final", "ends in the analysis"],
)
def test_only_the_final_channel_is_shown(said: str, shown: str, tmp_path: Path) -> None:
    found = answer(tmp_path, said, special=CHANNELS, words=(), template=HARMONY_TEMPLATE)
    assert found.text == shown


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


def test_thoughts_are_counted_and_timed_apart(tmp_path: Path) -> None:
    found = answer(tmp_path, f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}", words=TAGS)
    thinking = found.thinking
    assert (found.text, thinking.text) == (ANSWER, THOUGHT)
    tokens = load_tokenizer(tmp_path)(f"<think>\n{THOUGHT}\n</think>")["input_ids"]
    assert thinking.tokens == len(tokens)
    assert 0 <= thinking.seconds <= found.timings.total_ms / 1000


def test_all_channels_but_the_final_one_are_thoughts(tmp_path: Path) -> None:
    aside = "<|end|><|start|>assistant<|channel|>commentary<|message|>One more."
    found = answer(tmp_path, ANALYSIS + aside + FINAL, special=CHANNELS, template=HARMONY_TEMPLATE)
    assert found.text == ANSWER
    assert found.thinking.text == f"{THOUGHT}\n\nOne more."


def test_answer_ends_with_its_channel(tmp_path: Path) -> None:
    said = (ANALYSIS + FINAL).replace("<|return|>", "<|end|><|start|>user<|message|>And?")
    assert answer(tmp_path, said, special=CHANNELS, template=HARMONY_TEMPLATE).text == ANSWER


OPENED = CHAT_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"
CLOSED = CHAT_TEMPLATE + "{% if add_generation_prompt %}<think>\n\n</think>\n\n{% endif %}"


@pytest.mark.parametrize("words", [TAGS, ()], ids=["tokens", "text"])
def test_thoughts_that_the_prompt_has_opened(words: tuple[str, ...], tmp_path: Path) -> None:
    found = answer(tmp_path, f"{THOUGHT}</think>{ANSWER}", words=words, template=OPENED)
    assert (found.text, found.thinking.text) == (ANSWER, THOUGHT)
    found = answer(tmp_path, ANSWER, words=words, template=CLOSED)
    assert (found.text, found.thinking) == (ANSWER, None)


@pytest.mark.parametrize("asked", ["hi", "think", "t", "<", "What closes <think>", "</think>"])
def test_short_question_leaves_the_thoughts_that_the_prompt_has_opened(
    asked: str, tmp_path: Path
) -> None:
    said, request = f"{THOUGHT}\n</think>\n\n{ANSWER}", GenerationRequest(asked)
    found = answer(tmp_path, said, words=TAGS, template=OPENED, asked=request)
    assert (found.text, found.thinking.text) == (ANSWER, THOUGHT)
    found = answer(tmp_path, ANSWER, words=TAGS, template=CLOSED, asked=request)
    assert (found.text, found.thinking) == (ANSWER, None)


def test_question_about_the_tag_opens_no_thoughts(tmp_path: Path) -> None:
    asked = GenerationRequest("What does <think>")
    found = answer(tmp_path, ANSWER, words=TAGS, asked=asked)
    assert (found.text, found.thinking) == (ANSWER, None)


@pytest.mark.parametrize("words", [TAGS, ()], ids=["tokens", "text"])
@pytest.mark.parametrize(
    "said",
    ["The tag <think> is closed by </think> later.", "```html\n<Output>İ</Output>\n```"],
    ids=["thoughts", "output"],
)
def test_tag_in_an_answer_is_text(said: str, words: tuple[str, ...], tmp_path: Path) -> None:
    found = answer(tmp_path, said, words=words)
    assert (found.text, found.thinking) == (said, None)
    found = answer(tmp_path, f"<think>{THOUGHT}</think>{said}", words=words)
    assert (found.text, found.thinking.text) == (said, THOUGHT)


@pytest.mark.parametrize(
    "said",
    [
        f"<think>{THOUGHT}</think>\n<response>{ANSWER}</response>",
        f"Here is my thought process: {THOUGHT}\nHere is my response: {ANSWER}",
        f"[THINK]{THOUGHT}[/THINK]{ANSWER}",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final"
        f"<|message|>{ANSWER}",
        f"<|START_THINKING|>{THOUGHT}<|END_THINKING|>{ANSWER}",
        f"<|channel>thought\n{THOUGHT}<channel|>{ANSWER}",
        f"\n\n<thought>\n{THOUGHT}\n</thought>\n{ANSWER}",
        f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|>"
        f"<|begin_of_solution|>{ANSWER}<|end_of_solution|>",
        f"◁think▷{THOUGHT}◁/think▷{ANSWER}",
        f"<unused94>thought\n{THOUGHT}<unused95>{ANSWER}",
        f"<Thought>\n{THOUGHT}\n</Thought>\n<Output>\n{ANSWER}</Output>",
        f"<THINK>{THOUGHT}</THINK><solution>{ANSWER}</solution>",
    ],
    ids=[
        "granite 3.3",
        "granite 3.2",
        "magistral",
        "harmony",
        "command a",
        "gemma 4",
        "exaone deep",
        "openthinker",
        "kimi",
        "medgemma",
        "marco-o1",
        "capitals",
    ],
)
def test_markers_as_text(said: str, tmp_path: Path) -> None:
    found = answer(tmp_path, said)
    assert (found.text, found.thinking.text) == (ANSWER, THOUGHT)


def test_answer_that_was_cut_in_the_thoughts_says_so(tmp_path: Path) -> None:
    said = f"<think>{THOUGHT * 30}"
    found = answer(tmp_path, said, words=TAGS)
    assert found.text == "" and found.thinking.tokens == 200
    assert found.sentence == (
        "All 200 new tokens went into thinking. Raise the maximum of new tokens."
    )


def test_verbatim_output_is_not_split(tmp_path: Path) -> None:
    said = f"<think>{THOUGHT}</think>{ANSWER}"
    asked = GenerationRequest("Go", verbatim=True)
    assert answer(tmp_path, said, words=TAGS, asked=asked).text == said


SWITCH = CHAT_TEMPLATE + "{% if enable_thinking is false %}<think></think>{% endif %}"


def test_variables_reach_the_chat_template(tmp_path: Path) -> None:
    def prompt_tokens(**kwargs: object) -> int:
        asked = GenerationRequest("Go", chat_template_kwargs=kwargs)
        return answer(
            tmp_path, ANSWER, words=TAGS, template=SWITCH, asked=asked
        ).timings.prompt_tokens

    assert prompt_tokens(enable_thinking=False) == prompt_tokens() + 2
    assert prompt_tokens(enable_thinking=True) == prompt_tokens()
