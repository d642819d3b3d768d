"""Prompts of an exact number of tokens, and the texts that precisions are compared on."""

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
    """What every precision of a model reads and answers."""

    texts: tuple[str, ...]
    """Read under teacher forcing."""
    instructions: tuple[tuple[str, str], ...]
    """(instruction, context), answered greedily."""


@cache
def quality_texts() -> QualityTexts:
    """The fixed set of ``texts.toml``: English prose of about two thousand words."""
    content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return QualityTexts(
        tuple(" ".join(text.split()) for text in content["texts"]),
        tuple((text, "") for text in content["instructions"]),
    )


def prompt_ids(tokenizer: Any, count: int) -> tuple[int, ...]:
    """Exactly ``count`` token ids of English prose, repeated where that takes more.

    The text decides nothing: for one length, every prompt takes a dense model the same work.

    Args:
        tokenizer: a ``transformers`` tokenizer.

    Raises:
        CorruptModelError: the tokenizer makes nothing of the text.
    """
    text = " ".join(quality_texts().texts)
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if not ids:
        raise CorruptModelError(
            "The model's tokenizer makes no tokens of English text; fetch or copy the model's "
            "tokenizer files again."
        )
    return tuple(ids[index % len(ids)] for index in range(count))
