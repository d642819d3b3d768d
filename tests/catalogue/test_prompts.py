"""Tests of prompt formats (to the byte) and stop rules for every row of the catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from core.catalogue import catalogue
from core.catalogue.prompts import (
    CHOOSABLE_FORMATS,
    choose_format,
    prompt_format,
    prompt_formats,
    single_token_id,
)
from core.errors import BadRequestError, PromptFormatError
from tests.builders import CHAT_TEMPLATE, tiny_tokenizer

INTRO = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
DOLLY = INTRO + "\n\n### Instruction:\nWhy?\n\n### Response:\n"
LLAMA_3 = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)

SMOLLM2 = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
)

ROWS = {  # key: (prompt for "Why?", stop tokens, stop lines)
    "dolly-v2-3b": (DOLLY, ("### End",), ()),
    "dolly-v2-7b": (DOLLY, ("### End",), ()),
    "dolly-v2-12b": (DOLLY, ("### End",), ()),
    "tiny-llama-1b-chat": ("<|user|>\nWhy?</s>\n<|assistant|>\n", (), ()),
    "smollm2-135m-instruct": (SMOLLM2, ("<|im_end|>",), ()),
    "phi-2": ("Instruct: Why?\nOutput:", (), ("Instruct:",)),
    "red-pajama-3b-instruct": ("Q: Why?\nA:", (), ("Q:",)),
    "mistral-7b": ("<s>[INST] Why? [/INST]", (), ()),
    "llama-3-8b-instruct": (LLAMA_3, ("<|eot_id|>",), ()),
    "paddock-neox": (DOLLY, ("### End",), ()),
}
ROWS |= {key: (None, (), ()) for key, row in catalogue().items() if row.prompt_format == "chat"}
CHAT_ROWS = (
    "smollm2-135m-instruct",
    "tiny-llama-1b-chat",
    "mistral-7b",
    "llama-3-8b-instruct",
    *(key for key, (prompt, *_) in ROWS.items() if prompt is None),
)
TEXT_ROWS = tuple(key for key in ROWS if key not in CHAT_ROWS)

PUBLISHED_TEMPLATES = {  # those of the released tokenizers, shortened to the roles used here
    "tiny-llama-1b-chat": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
        "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
        "{% endfor %}",
        {"eos_token": "</s>"},
    ),
    "mistral-7b": (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endfor %}",
        {"bos_token": "<s>"},
    ),
    "llama-3-8b-instruct": (
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
        "{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        {"bos_token": "<|begin_of_text|>"},
    ),
}


def tokenizer_in(folder: Path, **options: object) -> PreTrainedTokenizerBase:
    folder.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer(folder, **options)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def dolly(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """A tokenizer with Dolly's three special tokens and no chat template."""
    return tokenizer_in(tmp_path_factory.mktemp("dolly"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """A tokenizer whose only special token is the end-of-text token."""
    return tokenizer_in(tmp_path_factory.mktemp("bare"), special_tokens=())


def test_every_row_of_the_catalogue_is_tested():
    assert set(ROWS) == set(catalogue())


@pytest.mark.parametrize("key", [key for key in ROWS if ROWS[key][0]])
def test_prompt_of_every_row_to_the_byte(key: str, bare):
    row_format = prompt_format(catalogue()[key].prompt_format)
    assert row_format.render("Why?").encode() == ROWS[key][0].encode()
    assert choose_format(key, None, bare).build(bare, "Why?").text == ROWS[key][0]


@pytest.mark.parametrize("key", ROWS)
def test_stop_rule_of_every_row_with_and_without_its_special_tokens(key, bare, tmp_path):
    _, tokens, lines = ROWS[key]
    row_format = prompt_format(catalogue()[key].prompt_format)
    having = tokenizer_in(tmp_path, special_tokens=("filler", *tokens))

    rule = row_format.stop_rule(having, end_ids=[7])
    markers = {having.convert_tokens_to_ids(text) for text in tokens}
    assert len(markers) == len(tokens) and 0 not in markers
    assert rule.token_ids == {0, 7} | markers  # 0 is this tokenizer's end of text
    assert rule.marker_ids == markers
    assert (rule.texts, rule.lines) == (tokens, lines)

    rule = row_format.stop_rule(bare, end_ids=[7])
    assert rule.token_ids == {0, 7}
    assert rule.marker_ids == frozenset()
    assert (rule.texts, rule.lines) == (tokens, lines)


@pytest.mark.parametrize("key", TEXT_ROWS)
def test_text_formats_are_tokenized_with_special_tokens(key: str, dolly):
    prompt = choose_format(key, None, dolly).build(dolly, "Why?")
    assert prompt.add_special_tokens


@pytest.mark.parametrize("key", ["tiny-llama-1b-chat", "mistral-7b", "llama-3-8b-instruct"])
def test_published_template_renders_to_the_row(key: str, tmp_path: Path):
    template, special = PUBLISHED_TEMPLATES[key]
    tokenizer_in(tmp_path, chat_template=template)
    settings_file = tmp_path / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8")) | special
    settings_file.write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    prompt = choose_format(key, None, tokenizer).build(tokenizer, "Why?")
    assert prompt.text.rstrip() == ROWS[key][0].rstrip()
    assert not prompt.add_special_tokens


@pytest.mark.parametrize("key", CHAT_ROWS)
def test_chat_template_of_the_tokenizer_takes_precedence(key: str, tmp_path: Path):
    tokenizer = tokenizer_in(tmp_path, chat_template=CHAT_TEMPLATE)
    prompt = choose_format(key, None, tokenizer).build(tokenizer, "Why?")
    assert prompt.text == "<|user|>\nWhy?<|endoftext|>\n<|assistant|>\n"
    assert not prompt.add_special_tokens


@pytest.mark.parametrize("key", [key for key in CHAT_ROWS if ROWS[key][0]])
def test_chat_rows_without_a_template_contain_their_special_tokens(key: str, bare):
    assert not choose_format(key, None, bare).build(bare, "Why?").add_special_tokens


def test_text_rows_ignore_a_template(tmp_path: Path):
    tokenizer = tokenizer_in(tmp_path, chat_template=CHAT_TEMPLATE)
    assert choose_format("dolly-v2-3b", None, tokenizer).build(tokenizer, "Why?").text == DOLLY


def test_dolly_puts_the_context_after_the_instruction():
    assert prompt_format("dolly").render("Why?", "It rains.") == (
        INTRO + "\n\n### Instruction:\nWhy?\n\nInput:\nIt rains.\n\n### Response:\n"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("phi", "Instruct: Why?\n\nIt rains.\nOutput:"),
        ("red-pajama", "Q: Why?\n\nIt rains.\nA:"),
        ("mistral", "<s>[INST] Why?\n\nIt rains. [/INST]"),
        ("tiny-llama", "<|user|>\nWhy?\n\nIt rains.</s>\n<|assistant|>\n"),
        ("plain", "Why?\n\nIt rains."),
        ("llama-3", LLAMA_3.replace("Why?", "Why?\n\nIt rains.")),
    ],
)
def test_context_in_the_other_formats(name: str, expected: str):
    assert prompt_format(name).render("Why?", "It rains.") == expected


def test_context_reaches_a_chat_template(tmp_path: Path):
    tokenizer = tokenizer_in(tmp_path, chat_template=CHAT_TEMPLATE)
    prompt = prompt_format("chat").build(tokenizer, "Why?", "It rains.")
    assert prompt.text == "<|user|>\nWhy?\n\nIt rains.<|endoftext|>\n<|assistant|>\n"


@pytest.mark.parametrize("name", [name for name in prompt_formats() if name != "chat"])
def test_placeholders_in_the_users_text_are_not_filled_in(name: str):
    instruction, context = "say {context} and {instruction} \\1 {0}", "of {instruction}"
    prompt = prompt_format(name).render(instruction, context)
    assert prompt.count(instruction) == 1
    assert prompt.count(context) == 1


def test_prompt_tokens_of_dolly_use_the_special_tokens(dolly):
    ids = dolly(prompt_format("dolly").render("Why?"))["input_ids"]
    assert dolly.convert_tokens_to_ids("### Instruction:") in ids
    assert dolly.convert_tokens_to_ids("### Response:") in ids


@pytest.mark.parametrize("token", ["### End", "### End\n"])
def test_marker_token_is_found_with_and_without_its_newline(token: str, tmp_path: Path):
    tokenizer = tokenizer_in(tmp_path, special_tokens=("### Ending", token))
    assert single_token_id(tokenizer, "### End") == tokenizer.get_vocab()[token]


def test_token_with_another_suffix_does_not_match(tmp_path: Path):
    tokenizer = tokenizer_in(tmp_path, special_tokens=("### Ending", "### End of story"))
    assert single_token_id(tokenizer, "### End") is None


TEMPLATES_THAT_FAIL = {
    "raises": "{{ raise_exception('Only one turn, please') }}",
    "syntax": "{% for %}",
    "type": "{{ messages[0]['content'] + 1 }}",
    "undefined": "{{ messages[3]['content'].strip() }}",
}


@pytest.mark.parametrize("template", TEMPLATES_THAT_FAIL.values(), ids=TEMPLATES_THAT_FAIL.keys())
def test_failing_template_becomes_a_one_line_error(template: str, tmp_path: Path):
    tokenizer = tokenizer_in(tmp_path, chat_template=template)
    with pytest.raises(BadRequestError, match="chat template rejects the message") as failure:
        prompt_format("chat").build(tokenizer, "Why?")
    assert "\n" not in str(failure.value)


def test_error_without_row_and_template_lists_the_formats(bare):
    with pytest.raises(PromptFormatError, match=r"choose a prompt format.*dolly, alpaca, plain"):
        choose_format("org--unknown", None, bare)
    with pytest.raises(PromptFormatError, match="no chat template"):
        choose_format("org--unknown", "chat", bare).build(bare, "Why?")


def test_model_without_row_uses_its_template_or_the_requested_format(tmp_path, bare):
    tokenizer = tokenizer_in(tmp_path, chat_template=CHAT_TEMPLATE)
    assert choose_format("org--unknown", None, tokenizer).name == "chat"
    for name in CHOOSABLE_FORMATS:
        assert choose_format("org--unknown", name, bare).build(bare, "Why?").text
    assert choose_format("dolly-v2-3b", "plain", bare).build(bare, "Why?").text == "Why?"


def test_error_for_an_unknown_format_lists_the_formats():
    with pytest.raises(PromptFormatError, match=r"'markdown'.*dolly.*llama-3"):
        prompt_format("markdown")
