"""Instructions of the kinds that people give, with passages of an exact length."""

from __future__ import annotations

from typing import Any

from core.benchmark.prompts import prompt_ids
from core.catalogue.prompts import choose_format, prompt_format
from core.errors import PromptFormatError

PASSAGE = {
    "rewriting": "Rewrite this text so that it is easier to read, and keep all facts.",
    "summary": "Summarise this text in a few sentences.",
    "extraction": "List the persons, places and numbers in this text, with what it says of them.",
    "closed question": "What is this text about, and what does it say about the captain?",
}
"""Kinds of instruction with a passage."""

OPEN = {
    "open question": "Why is the sky blue? Explain it in detail.",
    "ideas": "Give me ten ideas for a weekend with the family.",
    "letter": "Write a letter to a best friend whom you have not seen for years.",
}
"""Kinds without."""


def instruction_ids(tokenizer: Any, key: str, kind: str, tokens: int) -> tuple[int, ...]:
    """Return the prompt of an instruction, with a passage that makes it this long.

    Args:
        key: the model, whose prompt format is used, if it has one.
        kind: of :data:`PASSAGE` or :data:`OPEN`.
        tokens: length of the prompt; the passage is cut, so it may differ by a token or two.
            Instructions without a passage keep their length.
    """
    try:
        chosen = choose_format(key, None, tokenizer)
    except PromptFormatError:
        chosen = prompt_format("plain")

    def ids(context: str) -> tuple[int, ...]:
        prompt = chosen.build(tokenizer, PASSAGE.get(kind) or OPEN[kind], context)
        found = tokenizer(prompt.text, add_special_tokens=prompt.add_special_tokens, verbose=False)
        return tuple(found["input_ids"])

    if kind in OPEN:
        return ids("")
    room = tokens - len(ids("The"))
    return ids(tokenizer.decode(list(prompt_ids(tokenizer, max(1, room)))))
