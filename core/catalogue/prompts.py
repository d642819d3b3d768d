"""Prompt formats and stop rules."""

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
"""Formats that users may choose for a model without a chat template."""


class Tokenizer(Protocol):
    """The part of a ``transformers`` tokenizer that prompts and stop rules need."""

    chat_template: Any
    eos_token_id: int | None

    def get_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...


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


@dataclass(frozen=True)
class Prompt:
    """Prompt text, and how to tokenize it."""

    text: str
    add_special_tokens: bool
    """False if the text already has its special tokens, as a chat template writes them."""


@dataclass(frozen=True)
class StopRule:
    """Conditions that end an answer."""

    token_ids: frozenset[int]
    """Ids that end it; the id itself is not shown."""
    marker_ids: frozenset[int]
    """The subset that are stop markers of the prompt format; the rest are end-of-text tokens."""
    texts: tuple[str, ...]
    """Texts that end it wherever they appear."""
    lines: tuple[str, ...]
    """Texts that end it at the start of a line."""


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
        """Return the prompt text without using a tokenizer.

        Raises:
            PromptFormatError: this format consists of the tokenizer's chat template only.
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
        """Return the content of the user message for a chat template."""
        return _fill(self.with_context, instruction, context) if context else instruction

    def build(
        self,
        tokenizer: Tokenizer,
        instruction: str,
        context: str = "",
        earlier: Sequence[Turn] = (),
    ) -> Prompt:
        """Return the prompt for a model with this tokenizer.

        Args:
            earlier: messages before the instruction. A chat template gets all of them; if it
                rejects system messages, they are put into the next user message. A format for
                single instructions gets the result of :func:`merge_conversation`.

        Raises:
            PromptFormatError: a template is needed and the tokenizer has none.
            BadRequestError: the tokenizer's template rejects the conversation.
        """
        if not (self.chat and tokenizer.chat_template):
            instruction, context = merge_conversation(instruction, context, earlier)
            return Prompt(self.render(instruction, context), add_special_tokens=not self.chat)
        turns = [*earlier, Turn(Role.USER, self.content(instruction, context))]
        try:
            text = _apply_template(tokenizer, turns)
        except BadRequestError:
            if not any(turn.role is Role.SYSTEM for turn in turns):
                raise
            text = _apply_template(tokenizer, _without_system(turns))
        return Prompt(text, add_special_tokens=False)

    def stop_rule(self, tokenizer: Tokenizer, end_ids: Iterable[int] = ()) -> StopRule:
        """Return the stop rule for a model with this tokenizer.

        Args:
            end_ids: additional end-of-text ids, from the model's ``generation_config.json``.
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


def _apply_template(tokenizer: Tokenizer, turns: Sequence[Turn]) -> str:
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
            f"The model's chat template rejects this instruction ({error}); choose another "
            "prompt format."
        ) from error


def single_token_id(tokenizer: Tokenizer, text: str) -> int | None:
    """Return the id of the token ``text``, or None if the vocabulary has no such token.

    Dolly's markers were trained with and without a trailing newline, so a token that differs
    from ``text`` only by trailing white space also matches.
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


def choose_format(key: str, requested: str | None, tokenizer: Tokenizer) -> PromptFormat:
    """Return the prompt format for a model.

    That is the requested one, else that of its catalogue row, else its tokenizer's chat template.

    Args:
        key: key of the model.

    Raises:
        PromptFormatError: there is no such format, or the model has no chat template and the
            catalogue names no other format.
    """
    if requested:
        return prompt_format(requested)
    row = catalogue().get(key)
    chosen = prompt_format(row.prompt_format if row else "chat")
    if chosen.text is None and not tokenizer.chat_template:
        raise PromptFormatError(
            "This model's tokenizer has no chat template; choose a prompt format "
            f"({', '.join(CHOOSABLE_FORMATS)})."
        )
    return chosen


def prompt_format(name: str) -> PromptFormat:
    """Return the format of that name.

    Raises:
        PromptFormatError: there is none; the message lists the available ones.
    """
    formats = prompt_formats()
    if name not in formats:
        raise PromptFormatError(
            f"There is no prompt format {name!r}; choose one of {', '.join(formats)}."
        )
    return formats[name]


@cache
def prompt_formats() -> dict[str, PromptFormat]:
    """Return all formats of ``prompts.toml`` by name, in the file's order."""
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
    # One pass, so that placeholders in the user's own text are not filled in.
    values = {"{instruction}": instruction, "{context}": context}
    return re.sub(r"\{instruction\}|\{context\}", lambda match: values[match.group()], pattern)
