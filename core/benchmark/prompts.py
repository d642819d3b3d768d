"""Prompts of an exact number of tokens, and the texts on which precisions are compared."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import CorruptModelError

_FILE = Path(__file__).with_name("texts.toml")


@dataclass(frozen=True)
class QualityTexts:
    """Texts and instructions for every precision of a model."""

    texts: tuple[str, ...]
    """Read under teacher forcing."""
    instructions: tuple[tuple[str, str], ...]
    """(instruction, context), answered greedily."""


@cache
def quality_texts() -> QualityTexts:
    """Return the fixed set of ``texts.toml``: English prose of about two thousand words."""
    content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return QualityTexts(
        tuple(" ".join(text.split()) for text in content["texts"]),
        tuple((text, "") for text in content["instructions"]),
    )


def prompt_ids(tokenizer: Any, count: int) -> tuple[int, ...]:
    """Return exactly ``count`` token ids of English prose, repeated as necessary.

    The content does not matter: for one length, every prompt takes a dense model the same work.

    Raises:
        CorruptModelError: the tokenizer returns no tokens.
    """
    text = " ".join(quality_texts().texts)
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if not ids:
        raise CorruptModelError(
            "The model's tokenizer returns no tokens for English text. Download or copy the "
            "tokenizer files again."
        )
    return tuple(ids[index % len(ids)] for index in range(count))
