"""Prompt formats and stop rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from core.catalogue.chat_template import (
    Role,
    Tokenizer,
    Turn,
    merge_conversation,
    render_conversation,
    turn_end,
)
from core.catalogue.load import catalogue, read_toml
from core.errors import OptionError, PromptFormatError

CHOOSABLE_FORMATS = ("dolly", "alpaca", "plain")
"""Formats that users may choose for a model without a chat template."""

_NO_TEMPLATE = (
    "This model's tokenizer has no chat template; choose a prompt format "
    f"({', '.join(CHOOSABLE_FORMATS)})."
)


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
    with_context: str
    text: str | None = None
    chat: bool = False
    stop_tokens: tuple[str, ...] = ()
    stop_lines: tuple[str, ...] = ()

    def render(self, instruction: str, context: str = "") -> str:
        """Return the prompt text without using a tokenizer.

        Raises:
            PromptFormatError: this format consists of the tokenizer's chat template only.
        """
        if self.text is None:
            raise PromptFormatError(_NO_TEMPLATE)
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
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """Return the prompt for a model with this tokenizer.

        Args:
            earlier: messages before the instruction. A chat template gets all of them, see
                :func:`render_conversation`. A format for single instructions gets the result of
                :func:`merge_conversation`, without outer white space.
            template_kwargs: variables for the chat template.

        Raises:
            PromptFormatError: a template is needed and the tokenizer has none.
            BadRequestError: the tokenizer's template rejects the conversation or a variable.
        """
        if not (self.chat and tokenizer.chat_template):
            if template_kwargs:
                raise OptionError(
                    f"The prompt format {self.name} has no chat template. Remove "
                    "chat_template_kwargs.",
                    "chat_template_kwargs",
                )
            instruction, context = merge_conversation(instruction, context, earlier)
            text = self.render(instruction.strip(), context.strip())
            return Prompt(text, add_special_tokens=not self.chat)
        turns = [*earlier, Turn(Role.USER, self.content(instruction, context))]
        text = render_conversation(tokenizer, turns, template_kwargs)
        return Prompt(text, add_special_tokens=False)

    def stop_rule(self, tokenizer: Tokenizer, end_ids: Iterable[int] = ()) -> StopRule:
        """Return the stop rule for a model with this tokenizer.

        Args:
            end_ids: additional end-of-text ids, from the model's ``generation_config.json``.

        The marker with which a chat template ends the assistant's turn also ends the answer, as
        some configurations do not name it.
        """
        ends = set(end_ids)
        if tokenizer.eos_token_id is not None:
            ends.add(tokenizer.eos_token_id)
        markers = {single_token_id(tokenizer, text) for text in self.stop_tokens} - {None}
        texts, lines = self.stop_tokens, self.stop_lines
        marker = turn_end(tokenizer) if self.chat and tokenizer.chat_template else ""
        if marker.startswith("\n"):
            lines = (*lines, marker[1:])
        elif marker:
            token_id = single_token_id(tokenizer, marker)
            if token_id is None:
                texts = (*texts, marker)
            elif token_id not in ends:
                markers.add(token_id)
        return StopRule(frozenset(ends | markers), frozenset(markers), texts=texts, lines=lines)


def single_token_id(tokenizer: Tokenizer, text: str) -> int | None:
    """Return the id of the token ``text``, or None if the vocabulary has no such token.

    Dolly's markers were trained with and without a trailing newline, so a token that differs
    from ``text`` only by trailing white space also matches.
    """
    token_id = tokenizer.convert_tokens_to_ids(text)
    if token_id is not None and tokenizer.decode([token_id]) == text:
        return token_id
    vocabulary = tokenizer.get_vocab()
    if text in vocabulary:
        return vocabulary[text]
    alike = (
        token_id
        for token, token_id in vocabulary.items()
        if token.startswith(text) and token.strip() == text
    )
    return min(alike, default=None)


def choose_format(key: str, requested: str | None, tokenizer: Tokenizer) -> PromptFormat:
    """Return the prompt format for a model.

    That is the requested one, else that of its catalogue row, else its tokenizer's chat template.

    Raises:
        PromptFormatError: there is no such format, or the model has no chat template and the
            catalogue names no other format.
    """
    if requested:
        return prompt_format(requested)
    row = catalogue().get(key)
    chosen = prompt_format(row.prompt_format if row else "chat")
    if chosen.text is None and not tokenizer.chat_template:
        raise PromptFormatError(_NO_TEMPLATE)
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
    named = {name: {"name": name} | row for name, row in read_toml("prompts.toml").items()}
    return TypeAdapter(dict[str, PromptFormat]).validate_python(named)


def _fill(pattern: str, instruction: str, context: str = "") -> str:
    # One pass, so that placeholders in the user's own text are not filled in.
    values = {"{instruction}": instruction, "{context}": context}
    return re.sub(r"\{instruction\}|\{context\}", lambda match: values[match.group()], pattern)
