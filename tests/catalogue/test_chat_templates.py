"""Tests that no message of a conversation is lost in a chat template.

The templates are written for these tests and resemble released ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from core.catalogue.chat_template import render_conversation, template_variables
from core.catalogue.prompts import Role, Turn, choose_format
from core.errors import BadRequestError, PromptFormatError
from core.runtimes.tokenizer import load_tokenizer
from core.store.checkpoint import chat_template
from tests.builders import edit_json, tiny_tokenizer

ASKED = "Which sea is the saltiest?"
RULE, RULE_TOO = "Reply in one word.", "Name no lakes."
GREETING, GREETED = "Good evening.", "And to you."
S, U, A = Role.SYSTEM, Role.USER, Role.ASSISTANT
MARKERS = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "[INST]", "[/INST]")

Conversation = Sequence[tuple[Role, str]]
Load = Callable[[str], object]


@pytest.fixture
def with_template(tmp_path: Path) -> Load:
    """Return a function that loads a tokenizer with a given template."""

    def load(template: str) -> object:
        tiny_tokenizer(tmp_path, special_tokens=MARKERS, chat_template=template)
        return load_tokenizer(tmp_path)

    return load


def rendered(tokenizer: object, earlier: Conversation, asked: str = ASKED) -> str:
    """Return the prompt of a conversation that ends with ``asked``."""
    turns = [Turn(role, text) for role, text in earlier]
    return (
        choose_format("not-in-the-catalogue", None, tokenizer)
        .build(tokenizer, asked, earlier=turns)
        .text
    )


def check_nothing_is_lost(tokenizer: object, earlier: Conversation, asked: str = ASKED) -> None:
    """Check that the prompt has every message, or that an error says which ones are rejected."""
    try:
        prompt = rendered(tokenizer, earlier, asked)
    except BadRequestError as error:
        assert "message" in str(error)
        assert "choose another prompt format" not in str(error)  # /v1 has no such parameter
        return
    for text in [*(text for _, text in earlier), asked]:
        assert text in prompt


# Templates that ignore unknown roles

TURNS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>\n{{ m['content'] }}<|end|>\n"
    "{% elif m['role'] == 'assistant' %}<|assistant|>\n{{ m['content'] }}<|end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
IGNORES_SYSTEM = "{{ bos_token }}" + TURNS
SYSTEM_FIRST_ONLY = (
    "{% if messages[0]['role'] == 'system' %}<|system|>\n{{ messages[0]['content'] }}<|end|>\n"
    "{% endif %}" + TURNS
)
LAST_MESSAGE_ONLY = "<|user|>\n{{ messages[-1]['content'] }}<|end|>\n<|assistant|>\n"
KEEPS_ALL = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "<|assistant|>\n"
)
REJECTS_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    + KEEPS_ALL
)
IN_PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|end|>\n{% endfor %}"
    "<|assistant|>\n"
)
CHANGES_TEXT = KEEPS_ALL.replace("m['content']", "m['content'].replace('-', ' ')")
WITH_RULE: Conversation = [(S, RULE)]
RULE_LATER: Conversation = [(U, GREETING), (A, GREETED), (S, RULE)]
WITHOUT_RULE: Conversation = [(U, GREETING), (A, GREETED)]


@pytest.mark.parametrize(
    ("template", "earlier"),
    [
        pytest.param(IGNORES_SYSTEM, WITH_RULE, id="no system: system"),
        pytest.param(IGNORES_SYSTEM, RULE_LATER, id="no system: system later"),
        pytest.param(IGNORES_SYSTEM, WITHOUT_RULE, id="no system: none"),
        pytest.param(LAST_MESSAGE_ONLY, WITH_RULE, id="last only: system"),
        pytest.param(LAST_MESSAGE_ONLY, RULE_LATER, id="last only: system later"),
        pytest.param(LAST_MESSAGE_ONLY, WITHOUT_RULE, id="last only: earlier turns"),
        pytest.param(SYSTEM_FIRST_ONLY, WITH_RULE, id="system first: first"),
        pytest.param(SYSTEM_FIRST_ONLY, RULE_LATER, id="system first: later"),
        pytest.param(SYSTEM_FIRST_ONLY, WITHOUT_RULE, id="system first: none"),
        pytest.param(REJECTS_SYSTEM, WITH_RULE, id="refuses system: first"),
        pytest.param(REJECTS_SYSTEM, RULE_LATER, id="refuses system: later"),
        pytest.param(KEEPS_ALL, RULE_LATER, id="keeps all"),
        pytest.param(IN_PARTS, [], id="content in parts: one message"),
        pytest.param(IN_PARTS, RULE_LATER, id="content in parts"),
        pytest.param(CHANGES_TEXT, RULE_LATER, id="replaces hyphens"),
    ],
)
def test_no_message_is_lost(template: str, earlier: Conversation, with_template: Load) -> None:
    check_nothing_is_lost(with_template(template), earlier)


def test_system_message_is_merged_into_the_user_message(with_template: Load) -> None:
    prompt = rendered(with_template(IGNORES_SYSTEM), WITH_RULE)
    assert f"<|user|>\n{RULE}\n\n{ASKED}<|end|>" in prompt


def test_a_variable_that_a_template_only_assigns_is_rejected(with_template: Load) -> None:
    tokenizer = with_template("{% set thinking = true %}" + KEEPS_ALL)
    with pytest.raises(BadRequestError, match="does not use the variable 'thinking'"):
        render_conversation(tokenizer, [Turn(U, ASKED)], {"thinking": False})


def test_the_variables_of_a_template_that_jinja_rejects_are_searched_for_as_words() -> None:
    assert "thinking" in template_variables("{{ thinking | no_such_filter }}")
    assert "other" not in template_variables("{% thinking")


READS_OTHER_KEYS = KEEPS_ALL.replace("m['content']", "m['text']")
READS_ATTRIBUTES = KEEPS_ALL.replace("m['content']", "m.value")
OTHER_ROLES = TURNS.replace("'user'", "'human'").replace("'assistant'", "'gpt'")
DEMANDS_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    + KEEPS_ALL
)


@pytest.mark.parametrize("template", [READS_OTHER_KEYS, READS_ATTRIBUTES, OTHER_ROLES])
def test_template_that_writes_no_message_is_an_error(template: str, with_template: Load) -> None:
    with pytest.raises(BadRequestError, match=r"leaves out message 1 \(user\)"):
        rendered(with_template(template), [])


@pytest.mark.parametrize(
    "cut", ["m['content'][:20]", "m['content'].split('\n')[0]", "m['content'] | truncate"]
)
@pytest.mark.parametrize("earlier", [[], WITHOUT_RULE], ids=["one message", "three"])
def test_template_that_cuts_messages_is_an_error(
    cut: str, earlier: Conversation, with_template: Load
) -> None:
    with pytest.raises(BadRequestError, match=r"leaves out message 1 \(user\)"):
        rendered(with_template(KEEPS_ALL.replace("m['content']", cut)), earlier)


@pytest.mark.parametrize("earlier", [[], WITHOUT_RULE], ids=["one message", "three"])
def test_system_message_that_a_template_demands_is_empty(
    earlier: Conversation, with_template: Load
) -> None:
    prompt = rendered(with_template(DEMANDS_SYSTEM), earlier)
    assert prompt.startswith("<|system|>\n<|end|>\n<|user|>\n")
    assert all(text in prompt for text in [*(text for _, text in earlier), ASKED])


# Templates that require alternating user and assistant messages

ALTERNATING = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set rule = messages[0]['content'] +"
    " '\n\n' %}{% set rest = messages[1:] %}{% else %}{% set rule = '' %}{% set rest = messages %}"
    "{% endif %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ (rule if loop.last else '') + m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
ALTERNATING_WITHOUT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
    "<|{{ m['role'] }}|>\n{{ m['content'] | trim }}<|end|>\n{% endfor %}<|assistant|>\n"
)


@pytest.mark.parametrize(
    ("template", "earlier"),
    [
        pytest.param(ALTERNATING, [], id="user"),
        pytest.param(ALTERNATING, WITH_RULE, id="system, user"),
        pytest.param(ALTERNATING, [(S, RULE), (S, RULE_TOO)], id="system, system, user"),
        pytest.param(ALTERNATING, RULE_LATER, id="user, assistant, system, user"),
        pytest.param(ALTERNATING, [(U, GREETING)], id="user, user"),
        pytest.param(ALTERNATING, [(S, RULE), (U, GREETING)], id="system, user, user"),
        pytest.param(ALTERNATING, [(A, GREETED)], id="assistant, user"),
        pytest.param(
            ALTERNATING,
            [(U, GREETING), (A, GREETED), (A, "Well?")],
            id="user, assistant, assistant, user",
        ),
        pytest.param(ALTERNATING_WITHOUT_SYSTEM, WITH_RULE, id="no system: system, user"),
        pytest.param(
            ALTERNATING_WITHOUT_SYSTEM,
            [(S, RULE), (U, GREETING), (A, GREETED)],
            id="no system: system, user, assistant, user",
        ),
        pytest.param(ALTERNATING_WITHOUT_SYSTEM, RULE_LATER, id="no system: system later"),
        pytest.param(
            ALTERNATING_WITHOUT_SYSTEM,
            [(S, RULE), (A, GREETED)],
            id="no system: system, assistant, user",
        ),
    ],
)
def test_consecutive_messages_of_one_role_are_merged_or_named(
    template: str, earlier: Conversation, with_template: Load
) -> None:
    check_nothing_is_lost(with_template(template), earlier)


# Jinja features used by templates


def tagged(opening: str, closing: str) -> str:
    """Return a template that marks the assistant's tokens, as for training."""
    return (
        "{% for m in messages %}<|{{ m['role'] }}|>\n"
        + opening
        + "{{ m['content'] }}"
        + closing
        + "<|end|>\n{% endfor %}<|assistant|>\n"
    )


PLAIN = tagged("", "")


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(tagged("{% generation %}", "{% endgeneration %}"), id="generation"),
        pytest.param(tagged("{%- generation %}", "{%- endgeneration %}"), id="-generation"),
        pytest.param(
            tagged("{%- generation -%}", "{%- endgeneration -%}"),
            id="-generation-",
        ),
        pytest.param(tagged("{%generation%}", "{%endgeneration%}"), id="no space"),
        pytest.param(tagged("{% generation -%}", "{% endgeneration -%}"), id="generation-"),
        pytest.param(
            tagged("{%+ generation +%}", "{%+ endgeneration +%}"),
            id="+generation+",
        ),
        pytest.param(
            tagged("{%  generation  %}", "{%  endgeneration  %}"),
            id="two spaces",
        ),
        pytest.param("{{ strftime_now('%Y') }}" + PLAIN, id="strftime_now"),
        pytest.param("{{ messages | tojson(indent=2) }}", id="tojson indent"),
        pytest.param("{{ messages | tojson(separators=(',', ':')) }}", id="tojson separators"),
        pytest.param("{{ messages | tojson(sort_keys=true) }}", id="tojson sort_keys"),
        pytest.param(
            "{% for m in messages %}{{ m['content'] }}{% break %}{% endfor %}", id="break"
        ),
        pytest.param(
            "{% for k, v in messages[0] | items %}{{ k }}={{ v }};{% endfor %}", id="items"
        ),
        pytest.param(
            "{% set all = namespace(n=0) %}{% for m in messages %}{% set all.n = all.n + 1 %}"
            "{% endfor %}{{ all.n }}" + PLAIN,
            id="namespace",
        ),
        pytest.param("{{ tools is none }} {{ documents is none }}" + PLAIN, id="tools"),
        pytest.param(
            "{% if enable_thinking is defined and not enable_thinking %}<think>{% endif %}" + PLAIN,
            id="enable_thinking",
        ),
    ],
)
def test_template_renders_as_in_transformers(
    template: str, with_template: Load, tmp_path: Path
) -> None:
    asked = 'Say "où" & <why>'
    ours = rendered(with_template(template), [], asked)
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    assert ours == theirs


@pytest.mark.parametrize(
    "template",
    [
        "{% set found = [] %}{{ found.append(1) }}",
        "{% set _ = messages[0].update({'x': 1}) %}",
        "{{ messages.__class__.__mro__ }}",
    ],
)
def test_templates_run_in_a_sandbox(template: str, with_template: Load) -> None:
    with pytest.raises(BadRequestError, match="unsafe"):
        rendered(with_template(template), [])


# Where templates are stored

ONE = "{% for m in messages %}ONE {{ m['content'] }}{% endfor %}"
TWO = "{% for m in messages %}TWO {{ m['content'] }}{% endfor %}"


def as_list(folder: Path, first: str) -> None:
    templates = [{"name": first, "template": ONE}, {"name": "tool_use", "template": TWO}]
    edit_json(folder / "tokenizer_config.json", chat_template=templates)


def beside_others(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TWO, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(ONE, encoding="utf-8")


def in_file_and_settings(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(ONE, encoding="utf-8")
    edit_json(folder / "tokenizer_config.json", chat_template=TWO)


@pytest.mark.parametrize(
    ("write", "shown"),
    [
        (lambda to: as_list(to, "default"), f"ONE {ASKED}"),
        (beside_others, f"ONE {ASKED}"),
        (in_file_and_settings, f"ONE {ASKED}"),
        (lambda to: as_list(to, "rag"), BadRequestError),
        (
            lambda to: (to / "chat_template.json").write_text(json.dumps({"chat_template": ONE})),
            PromptFormatError,
        ),
    ],
    ids=["a list", "other templates", "file and settings", "no default", "of a processor"],
)
def test_template_is_found_where_transformers_finds_it(
    write: Callable[[Path], object], shown: str | type[Exception], tmp_path: Path
) -> None:
    tiny_tokenizer(tmp_path, special_tokens=())
    write(tmp_path)
    for tokenizer in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        if isinstance(shown, str):
            assert rendered(tokenizer, []) == shown
        else:
            with pytest.raises(shown):
                rendered(tokenizer, [])
    assert bool(chat_template(tmp_path)) is (shown is not PromptFormatError)
