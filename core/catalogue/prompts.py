"""How an instruction becomes a prompt, and where the answer ends."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from core.catalogue.load import catalogue
from core.errors import BadRequestError, PromptFormatError

CHOOSABLE_FORMATS = ("dolly", "alpaca", "plain")
"""Formats a person may choose for a model that brings no chat template."""


class Tokenizer(Protocol):
    """The part of a ``transformers`` tokenizer that prompts and stop rules need."""

    chat_template: Any
    eos_token_id: int | None

    def get_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...


class Role(StrEnum):
    """Who says a turn of a conversation."""

    SYSTEM = "system"
    """What the model is told before the conversation."""
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True)
class Prompt:
    """The text a model reads, and how to tokenise it."""

    text: str
    add_special_tokens: bool
    """False where a chat template has put begin-of-text and turn markers there already."""


@dataclass(frozen=True)
class StopRule:
    """What ends an answer."""

    token_ids: frozenset[int]
    """Ids that end it; the first of them seen is not shown."""
    marker_ids: frozenset[int]
    """Those of them that are the format's own stop marker; the rest end a text."""
    texts: tuple[str, ...]
    """Texts that end it wherever they appear."""
    lines: tuple[str, ...]
    """Texts that end it at the start of a line of the answer."""


@dataclass(frozen=True)
class PromptFormat:
    """One row of ``prompts.toml``."""

    name: str
    title: str
    text: str | None
    with_context: str
    chat: bool
    stop_tokens: tuple[str, ...]
    stop_lines: tuple[str, ...]

    def render(self, instruction: str, context: str = "") -> str:
        """The prompt without any tokenizer's help, to the byte.

        Raises:
            PromptFormatError: this format is nothing but the tokenizer's own template.
        """
        if self.text is None:
            raise PromptFormatError(
                "This model's tokenizer has no chat template; choose a prompt format "
                f"({', '.join(CHOOSABLE_FORMATS)})."
            )
        if not self.chat and context:
            return _fill(self.with_context, instruction, context)
        return _fill(self.text, self.content(instruction, context))

    def content(self, instruction: str, context: str = "") -> str:
        """What stands in the user's turn of a chat template."""
        return _fill(self.with_context, instruction, context) if context else instruction

    def build(
        self,
        tokenizer: Tokenizer,
        instruction: str,
        context: str = "",
        earlier: Sequence[Turn] = (),
    ) -> Prompt:
        """The prompt for a model with this tokenizer.

        Args:
            earlier: what was said before the instruction. A chat template gets all of it, the
                system's turns within the user's next one where it takes none. A format of a single
                instruction gets what :func:`in_one_instruction` makes of it.

        Raises:
            PromptFormatError: a template is needed and the tokenizer has none.
            BadRequestError: the tokenizer's template rejects the conversation.
        """
        if not (self.chat and tokenizer.chat_template):
            instruction, context = in_one_instruction(instruction, context, earlier)
            return Prompt(self.render(instruction, context), add_special_tokens=not self.chat)
        turns = [*earlier, Turn(Role.USER, self.content(instruction, context))]
        try:
            text = _by_template(tokenizer, turns)
        except BadRequestError:
            if not any(turn.role is Role.SYSTEM for turn in turns):
                raise
            text = _by_template(tokenizer, _without_system(turns))
        return Prompt(text, add_special_tokens=False)

    def stop_rule(self, tokenizer: Tokenizer, end_ids: Iterable[int] = ()) -> StopRule:
        """Where an answer of a model with this tokenizer ends.

        Args:
            end_ids: further ids that end a text, from the model's generation configuration.
        """
        ends = set(end_ids)
        if tokenizer.eos_token_id is not None:
            ends.add(tokenizer.eos_token_id)
        markers = frozenset(
            token_id
            for text in self.stop_tokens
            if (token_id := single_token_id(tokenizer, text)) is not None
        )
        return StopRule(
            frozenset(ends) | markers, markers, texts=self.stop_tokens, lines=self.stop_lines
        )


def in_one_instruction(instruction: str, context: str, earlier: Sequence[Turn]) -> tuple[str, str]:
    """A conversation for a model that was taught single instructions.

    Returns:
        The instruction, with the system's turns before it, and the context, with what user and
        assistant said so far before it.
    """
    system = [turn.text for turn in earlier if turn.role is Role.SYSTEM]
    said = [
        f"{turn.role.capitalize()}: {turn.text}" for turn in earlier if turn.role is not Role.SYSTEM
    ]
    context_parts = ["\n".join(said), context]
    return (
        "\n\n".join([*system, instruction]),
        "\n\n".join(part for part in context_parts if part),
    )


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """The system's turns put before the text of the user's turn that follows them."""
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


def _by_template(tokenizer: Tokenizer, turns: Sequence[Turn]) -> str:
    """
    Raises:
        BadRequestError: the template rejects the turns.
    """
    import jinja2

    messages = [{"role": turn.role.value, "content": turn.text} for turn in turns]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        raise BadRequestError(
            f"The model's own chat template cannot take this instruction ({error}); "
            "choose another prompt format."
        ) from error


def single_token_id(tokenizer: Tokenizer, text: str) -> int | None:
    """Id of the one token for ``text``, or None where the vocabulary has no such token.

    Dolly's keys were trained with and without a trailing newline, so a token that differs
    from ``text`` by surrounding white space only is taken too.
    """
    vocabulary = tokenizer.get_vocab()
    if text in vocabulary:
        return vocabulary[text]
    matches = sorted(
        token_id
        for token, token_id in vocabulary.items()
        if token.startswith(text) and token.strip() == text
    )
    return matches[0] if matches else None


def choose_format(key: str, asked: str | None, tokenizer: Tokenizer) -> PromptFormat:
    """The format for a model: the one asked for, its catalogue row's, or its own template.

    Args:
        key: key of the model; one without a row has its tokenizer's chat template.

    Raises:
        PromptFormatError: no such format, or no row, no template and none asked for.
    """
    if asked:
        return prompt_format(asked)
    row = catalogue().get(key)
    chosen = prompt_format(row.prompt_format if row else "chat")
    if chosen.text is None and not tokenizer.chat_template:
        raise PromptFormatError(
            "This model has no chat template, so choose a prompt format for it: "
            f"{', '.join(CHOOSABLE_FORMATS)}."
        )
    return chosen


def prompt_format(name: str) -> PromptFormat:
    """The format of that name.

    Raises:
        PromptFormatError: there is none; the text lists those there are.
    """
    formats = prompt_formats()
    if name not in formats:
        raise PromptFormatError(
            f"There is no prompt format {name!r}; choose one of {', '.join(formats)}."
        )
    return formats[name]


@cache
def prompt_formats() -> dict[str, PromptFormat]:
    """All formats of ``prompts.toml`` by name, in the file's order."""
    rows = tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))
    return {
        name: PromptFormat(
            name=name,
            title=row["title"],
            text=row.get("text"),
            with_context=row["with_context"],
            chat=row.get("chat", False),
            stop_tokens=tuple(row.get("stop_tokens", ())),
            stop_lines=tuple(row.get("stop_lines", ())),
        )
        for name, row in rows.items()
    }


def _fill(pattern: str, instruction: str, context: str = "") -> str:
    # One pass, so that braces in what the person wrote are never filled in themselves.
    values = {"{instruction}": instruction, "{context}": context}
    return re.sub(r"\{instruction\}|\{context\}", lambda match: values[match.group()], pattern)
