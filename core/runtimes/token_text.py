"""Single tokens as text: bytes of those that are no whole character, names of special ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_SPACE = "\u2581"
"""SentencePiece's mark of a space."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""SentencePiece's token of a single byte."""
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(0x100) if byte not in _PRINTED]
_BYTES = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + number): byte for number, byte in enumerate(_OTHERS)
}
"""GPT-2's characters for bytes: printed ones stand for themselves, the others are moved up."""


@dataclass(frozen=True)
class TokenText:
    """A token as text."""

    id: int
    text: str
    """Its text; ``\\xe2\\x82`` for bytes that are no whole characters; a special token's name."""
    bytes: bytes | None
    """None for a special token."""

    @property
    def special(self) -> bool:
        """Whether it is a special token, such as an end-of-text token."""
        return self.bytes is None

    @property
    def whole(self) -> bool:
        """Whether it is text: neither a special token nor a part of a character."""
        return self.bytes is not None and self.bytes == self.text.encode()


class TokenTexts:
    """The tokens of a vocabulary as text."""

    def __init__(self, tokenizer: Any) -> None:
        """
        Args:
            tokenizer: see :attr:`core.runtimes.base.LoadedModel.tokenizer`.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        added = (
            tokenizer.added_tokens_decoder
            if backend is None
            else backend.get_added_tokens_decoder()
        )
        self._pieces = {token_id: piece for piece, token_id in tokenizer.get_vocab().items()}
        self._added = frozenset(added)
        self._special = frozenset(tokenizer.all_special_ids) | {
            token_id for token_id, token in added.items() if token.special
        }
        self._byte_level = "ByteLevel" in str(getattr(backend, "decoder", ""))

    def text(self, token_id: int) -> TokenText:
        """Return a token as text; an id that only pads the vocabulary is named by its number."""
        piece = self._pieces.get(token_id)
        if piece is None or token_id in self._special:
            return TokenText(token_id, piece or f"[{token_id}]", None)
        content = self._content(token_id, piece)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = "".join(f"\\x{byte:02x}" for byte in content)
        return TokenText(token_id, text, content)

    def same_as(self, other: TokenTexts) -> bool:
        """Return whether the ids of both mean the same tokens."""
        return self is other or self._pieces == other._pieces

    def _content(self, token_id: int, piece: str) -> bytes:
        if token_id in self._added:  # plain text in every vocabulary
            return piece.encode()
        if self._byte_level and all(character in _BYTES for character in piece):
            return bytes(_BYTES[character] for character in piece)
        if found := _BYTE.fullmatch(piece):
            return bytes.fromhex(found[1])
        return piece.replace(_SPACE, " ").encode()
