"""The files of a model: which are configuration and tokenizer, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from core.errors import NotAModelError

TOKENIZERS = {
    "tokenizer.json": "Hugging Face tokenizers",
    "tokenizer.model": "SentencePiece or tiktoken",
    "sentencepiece.bpe.model": "SentencePiece",
    "spiece.model": "SentencePiece",
    "vocab.json": "byte-level BPE",
    "vocab.txt": "WordPiece",
}
"""Files with a vocabulary, and their formats. The first two are enough; others only if the class of
the tokenizer reads them."""

SMALL_FILES = frozenset(
    {
        *TOKENIZERS,
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
    }
)
"""Configuration and tokenizer files, which are copied along with the weights."""

IR_TOKENIZER_FILES = frozenset(
    f"openvino_{name}.{ending}"
    for name in ("tokenizer", "detokenizer")
    for ending in ("xml", "bin")
)
"""The tokenizer and detokenizer as OpenVINO models."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model in a folder or on a hub."""

    name: str
    """Path or Hugging Face id, for messages."""
    names: frozenset[str]
    """Paths relative to the folder, with ``/``; a folder may be listed by its name and ``/``."""
    read: Callable[[str], dict[str, Any] | None]
    """Returns the object in a JSON file; None if it may not be read yet, or is too large."""
    card: Callable[[], Mapping[str, Any]] = dict
    """Returns of its card ``base_model`` (a Hugging Face id or several), ``pipeline_tag`` and
    ``library_name``."""
    ir_first: bool = False
    """Use an OpenVINO IR even if there is a checkpoint, too."""

    def json(self, name: str) -> dict[str, Any] | None:
        """Return a JSON object; None if there is no such file, or it may not be read yet."""
        return self.read(name) if name in self.names else None

    def refuse(self, what: str, advice: str) -> NoReturn:
        """Raise NotAModelError with this predicate and this sentence."""
        raise NotAModelError(f"{self.name} {what}. {advice}")
