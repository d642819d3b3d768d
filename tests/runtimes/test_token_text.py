"""Tests of single tokens as text."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from core.catalogue import EMBEDDED_DIR
from core.runtimes.token_text import TokenTexts
from core.runtimes.tokenizer import PlainTokenizer, load_tokenizer


@pytest.fixture
def byte_fallback() -> PlainTokenizer:
    """A vocabulary like SentencePiece's."""
    pieces = ["<unk>", "<0xE2>", "<0x82>", "<0xAC>", "▁the", "cat", "</s>"]
    backend = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, []))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken("</s>", special=True)])
    return PlainTokenizer(backend, {"eos_token": "</s>"}, None)


def test_tokens_of_a_byte_level_vocabulary_have_their_bytes():
    tokenizer = load_tokenizer(EMBEDDED_DIR / "paddock-neox")
    texts = TokenTexts(tokenizer)
    written = "The naïve cat — 🙂\n\n"
    tokens = [texts.text(each) for each in tokenizer(written)["input_ids"]]
    assert b"".join(each.bytes for each in tokens).decode() == written
    parts = [each for each in tokens if not each.whole]
    assert parts and all(each.text.startswith("\\x") for each in parts)
    end = texts.text(tokenizer.eos_token_id)
    assert end.special and end.bytes is None and not end.whole
    assert texts.text(10**6).text == "[1000000]"


def test_tokens_of_a_vocabulary_with_byte_fallback(byte_fallback: PlainTokenizer):
    texts = TokenTexts(byte_fallback)
    assert [texts.text(at).text for at in (1, 4, 5)] == ["\\xe2", " the", "cat"]
    assert b"".join(texts.text(at).bytes for at in (1, 2, 3)).decode() == "€"
    assert texts.text(6).special and texts.text(4).whole
    assert texts.same_as(TokenTexts(byte_fallback))
    assert not texts.same_as(TokenTexts(load_tokenizer(EMBEDDED_DIR / "paddock-neox")))
