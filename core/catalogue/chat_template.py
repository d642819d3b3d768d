"""Conversations and the chat templates that render them.

Released templates differ in what they accept: some ignore or reject system messages, some demand
that user and assistant alternate, some write the last message only. A conversation is therefore
rendered in the first of several equivalent forms whose messages all stand in the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache, partial
from itertools import groupby, product
from typing import Any, NoReturn, Protocol

from jinja2 import Environment, Template, TemplateError
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.errors import BadRequestError, OptionError

RESERVED_KWARGS = {
    *("add_generation_prompt", "chat_template", "continue_final_message", "conversation"),
    *("max_length", "messages", "padding", "return_assistant_tokens_mask", "return_dict"),
    *("return_tensors", "tokenize", "tokenizer_kwargs", "truncation"),
}
"""Parameters of ``apply_chat_template`` that are not variables of a template."""

_MARKER = re.compile(r"<[^<>\n]{1,60}>|\[[^\[\]\n]{1,60}\]")
"""The usual form of a marker: ``<|im_end|>``, ``<end_of_turn>``, ``[INST]``."""
_HEADING = re.compile(
    r"(?:###[^\n]{0,40}?|\w[\w .-]{0,40}):?(?=\s*(?:\n|$))|\w[\w .-]{0,40}:(?=\s)"
)
"""The usual form of a heading of a turn without markers: ``### Instruction:``, ``USER:``."""


class Tokenizer(Protocol):
    """The part of a ``transformers`` tokenizer that prompts and stop rules need."""

    chat_template: Any
    eos_token_id: int | None

    def get_vocab(self) -> dict[str, int]: ...

    def convert_tokens_to_ids(self, tokens: str) -> Any: ...

    def decode(self, token_ids: Sequence[int]) -> Any: ...

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any: ...


class Role(StrEnum):
    """Role of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


def without_oldest(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return a conversation without its oldest user message and the answer to it.

    System messages are kept; what has no user message is returned as it is.
    """
    users = [at for at, turn in enumerate(turns) if turn.role is Role.USER]
    if not users:
        return tuple(turns)
    end = users[1] if len(users) > 1 else len(turns)
    system = [turn for turn in turns[:end] if turn.role is Role.SYSTEM]
    return (*system, *turns[end:])


def merge_conversation(instruction: str, context: str, earlier: Sequence[Turn]) -> tuple[str, str]:
    """Merge a conversation for a model that was trained on single instructions.

    Returns:
        The instruction, preceded by the system messages, and the context, preceded by the earlier
        messages of user and assistant.
    """
    system = [turn.text for turn in earlier if turn.role is Role.SYSTEM]
    messages = [
        f"{turn.role.capitalize()}: {turn.text}" for turn in earlier if turn.role is not Role.SYSTEM
    ]
    context_parts = ["\n".join(messages), context]
    return (
        "\n\n".join([*system, instruction]),
        "\n\n".join(part for part in context_parts if part),
    )


def render_conversation(
    tokenizer: Tokenizer, turns: Sequence[Turn], template_kwargs: Mapping[str, Any] | None = None
) -> str:
    """Return the prompt of a conversation, in the first form that loses no message.

    Args:
        turns: the last one is the user's.
        template_kwargs: variables for the template, such as ``enable_thinking``.

    Raises:
        BadRequestError: the template does not use a variable, is faulty, or rejects or omits
            messages in every form; the text names them.
    """
    options = dict(template_kwargs or {})
    for name in options:
        if name not in template_variables(str(tokenizer.chat_template)):
            raise OptionError(
                f"The chat template of this model does not use the variable {name!r}. Remove it "
                "from chat_template_kwargs.",
                "chat_template_kwargs",
            )
    problems: list[str] = []
    for in_parts, form in product((False, True), list(_forms(turns))):
        render = partial(_rendered, tokenizer, options=options, in_parts=in_parts)
        try:
            lost = _lost(render, form)
            if not lost:
                return render(form)
            named = [f"message {index + 1} ({form[index].role.value})" for index in lost]
            problems.append(f"leaves out {' and '.join(named)}")
        except _TemplateError as error:
            roles = ", ".join(turn.role.value for turn in form)
            problems.append(f"rejects the messages {roles} ({error})")
    advice = "Start a new conversation, or send fewer messages."
    if len(turns) == 1:
        advice = "Change the message, or choose another model."
    raise BadRequestError(f"The model's chat template {problems[0]}. {advice}")


def turn_end(tokenizer: Tokenizer) -> str:
    """Return the text with which the chat template ends an assistant's turn; "" if none.

    It is the marker that follows the assistant's text, or the marker or heading that begins the
    next turn if the template writes none at the end. A heading on a line of its own is returned
    with a newline before it.
    """
    roles = (Role.USER, Role.ASSISTANT, Role.USER)
    turns = [Turn(role, _PLACEHOLDER.format(index)) for index, role in enumerate(roles)]
    rest = ""
    for in_parts in (False, True):
        try:
            text = _rendered(
                tokenizer, turns, options={}, in_parts=in_parts, generation_prompt=False
            )
        except _TemplateError:
            continue
        if turns[1].text in text and _WRITTEN_PART not in text:
            rest = text.partition(turns[1].text)[2].partition(turns[2].text)[0]
            break
    end = rest.lstrip()
    if marker := _MARKER.match(end):
        return marker.group()
    heading = _HEADING.match(end)
    if heading is None:
        return ""
    space = rest[: len(rest) - len(end)]
    return ("\n" if "\n" in space else space[-1:]) + heading.group()


class _TemplateError(Exception):
    """The template raised an exception."""


_PLACEHOLDER = "paddockmessage{}x"
"""Without what templates replace in a text, such as white space or hyphens."""
_MIDDLE = "\n" + 100 * "A line of text.\n"
"""Between the first and the last word of a message that a template might cut short."""
_WRITTEN_PART = "{'type': 'text'"
"""A part of a content, written as Python does."""


class _GenerationTag(Extension):
    """``{% generation %}`` around what the model writes, which only training needs."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return Scope(body).set_lineno(line)


@cache
def _environment() -> Environment:
    """Return Jinja as ``transformers`` sets it up for chat templates.

    Its own function is not used: importing it takes a second and a half of processor time, which
    the first screen would wait for.
    """
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"]
    )

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        how = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    def reject(message: str) -> NoReturn:
        raise TemplateError(message)

    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = reject
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


@lru_cache(maxsize=16)
def compiled(template: str) -> Template:
    """Compile a chat template, which is untrusted, in a sandbox.

    Raises:
        TemplateError: Jinja rejects it.
    """
    return _environment().from_string(template)


@lru_cache(maxsize=16)
def template_variables(template: str) -> frozenset[str]:
    """Return the variables that a chat template reads; all its words if Jinja rejects it."""
    try:
        return frozenset(find_undeclared_variables(_environment().parse(template)))
    except TemplateError:
        return frozenset(re.findall(r"\w+", template))


def _lost(render: Callable[[Sequence[Turn]], str], turns: Sequence[Turn]) -> list[int]:
    """Return the indices of the messages that the template does not write.

    Placeholders are rendered in place of the texts: a short text such as "A" may also stand
    elsewhere in the prompt, and a template may escape a text or cut thoughts from it.
    """
    words = [(f"paddockmessage{index}x", f"paddockend{index}x") for index in range(len(turns))]
    texts = [_MIDDLE.join(pair) for pair in words]
    prompt = render([Turn(turn.role, text) for turn, text in zip(turns, texts, strict=True)])
    if _WRITTEN_PART in prompt:  # the template does not read parts
        return list(range(len(turns)))
    written = prompt.lower()
    return [index for index, pair in enumerate(words) if any(word not in written for word in pair)]


def _forms(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Yield the conversation in forms that are ever less demanding of a template."""
    leading = list(turns[:1]) if turns[0].role is Role.SYSTEM else []
    yield list(turns)
    folded = [*leading, *_without_system(turns[len(leading) :])]
    yield folded
    yield _without_system(turns)
    yield [*leading, *_alternating(folded[len(leading) :])]
    yield _alternating(_without_system(turns))
    instruction, context = merge_conversation(turns[-1].text, "", turns[:-1])
    yield [Turn(Role.USER, "\n\n".join(part for part in (context, instruction) if part))]
    # Some templates demand a system message.
    yield [Turn(Role.SYSTEM, ""), *_alternating(_without_system(turns))]


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """Move each system message into the user message that follows it."""
    kept: list[Turn] = []
    system: list[str] = []
    for turn in turns:
        if turn.role is Role.SYSTEM:
            system.append(turn.text)
        elif turn.role is Role.USER:
            kept.append(Turn(Role.USER, "\n\n".join([*system, turn.text])))
            system.clear()
        else:
            kept.append(turn)
    return kept


def _alternating(turns: Sequence[Turn]) -> list[Turn]:
    """Merge neighbours of one role; put the assistant's messages before the first user message
    into that message."""
    merged = [
        Turn(role, "\n\n".join(turn.text for turn in group))
        for role, group in groupby(turns, key=lambda turn: turn.role)
    ]
    if merged[0].role is Role.ASSISTANT:
        greeting, first, *rest = merged
        return [Turn(Role.USER, f"Assistant: {greeting.text}\n\n{first.text}"), *rest]
    return merged


def _rendered(
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    *,
    options: Mapping[str, Any],
    in_parts: bool = False,
    generation_prompt: bool = True,
) -> str:
    """Render a conversation as it is.

    Args:
        in_parts: whether each content is a list of one part, as templates of models that also
            accept images demand.
    """
    messages: list[dict[str, Any]] = [
        {
            "role": turn.role.value,
            "content": [{"type": "text", "text": turn.text}] if in_parts else turn.text,
        }
        for turn in turns
    ]
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation_prompt, **options
        )
    except Exception as error:  # a template can raise whatever Python's operators raise
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise _TemplateError(reason.rstrip(".")) from error
