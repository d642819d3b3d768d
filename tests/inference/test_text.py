"""Tests of incremental decoding and incremental stop texts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.catalogue.prompts import StopRule, prompt_format
from core.inference.text import StopText, TextDecoder
from tests.builders import tiny_tokenizer

MULTI_BYTE = "Grüße, 世界! 👩‍👩‍👧‍👦 naïve 🇩🇪 ≥ 3 — “ok” \u0301 end"


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """A tokenizer like that of GPT-NeoX and Phi, with Dolly's special tokens."""
    folder = tmp_path_factory.mktemp("byte-level")
    tiny_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """The same tokenizer without special tokens."""
    folder = tmp_path_factory.mktemp("bare")
    tiny_tokenizer(folder, special_tokens=())
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def byte_fallback() -> PreTrainedTokenizerBase:
    """A tokenizer like that of Llama 2 and Mistral: word pieces with spaces, and byte fallback."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyz,.!", "▁t", "▁a", "▁n", "he", "▁the"]
    merges = [("▁", "t"), ("▁", "a"), ("▁", "n"), ("h", "e"), ("▁t", "he")]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


def decoded(tokenizer, ids) -> list[str]:
    decoder = TextDecoder(tokenizer)
    return [decoder.feed(token_id) for token_id in ids] + [decoder.close()]


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@pytest.mark.parametrize("text", [MULTI_BYTE, "the cat and the the the", "🙂" * 60, "a", ""])
def test_concatenated_pieces_equal_the_decoded_text(kind, text, request):
    tokenizer = request.getfixturevalue(kind)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = decoded(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(pieces) == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_character_of_several_tokens_comes_with_its_last_token(byte_level):
    ids = byte_level("🙂", add_special_tokens=False)["input_ids"]
    assert len(ids) == 4
    assert decoded(byte_level, ids) == ["", "", "", "🙂", ""]


def test_incomplete_character_at_the_end_equals_the_tokenizers(byte_level):
    ids = byte_level("a🙂", add_special_tokens=False)["input_ids"][:-1]
    text = "".join(decoded(byte_level, ids))
    assert text == byte_level.decode(ids) == "a\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("seed", range(4))
def test_random_ids_decode_like_the_tokenizer(seed: int, byte_level):
    source = random.Random(seed)
    ids = [source.randrange(len(byte_level)) for _ in range(1500)]
    expected = byte_level.decode(ids, skip_special_tokens=True)
    assert "".join(decoded(byte_level, ids)) == expected


def test_invalid_bytes_decode_like_the_tokenizer(byte_level):
    broken = byte_level.convert_tokens_to_ids("Ģ")  # the byte 0x80, which starts no character
    ids = [broken] * 300
    pieces = decoded(byte_level, ids)
    assert "".join(pieces) == byte_level.decode(ids)
    assert max(len(piece) for piece in pieces) <= 4  # text is not held back


def test_special_tokens_have_no_text(byte_fallback):
    ids = byte_fallback("the cat", add_special_tokens=False)["input_ids"]
    ids = [ids[0], 1, 1, *ids[1:]]
    text = "".join(decoded(byte_fallback, ids))
    assert text == byte_fallback.decode(ids, skip_special_tokens=True) == "the cat"


def test_spaces_before_punctuation_are_kept(byte_level):
    ids = byte_level("a , b ! n't", add_special_tokens=False)["input_ids"]
    assert "".join(decoded(byte_level, ids)) == "a , b ! n't"


class CountingTokenizer:
    """Counts the decoded ids."""

    all_special_ids = (0,)

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer
        self.work = 0

    def decode(self, ids, **options) -> str:
        self.work += len(ids)
        return self._tokenizer.decode(ids, **options)


@pytest.mark.parametrize("sample", ["The cat ", "🙂", "\N{REPLACEMENT CHARACTER}"])
def test_decoding_takes_linear_time(sample: str, byte_level):
    ids = byte_level(sample * 2000, add_special_tokens=False)["input_ids"]
    counting = CountingTokenizer(byte_level)
    decoder = TextDecoder(counting)
    half = len(ids) // 2
    for token_id in ids[:half]:
        decoder.feed(token_id)
    first_half = counting.work
    for token_id in ids[half:]:
        decoder.feed(token_id)
    assert counting.work - first_half <= 1.1 * first_half
    assert counting.work <= 40 * len(ids)


# Stop texts


def rule(*texts: str, lines: tuple[str, ...] = ()) -> StopRule:
    return StopRule(frozenset(), frozenset(), texts, lines)


def shown(stop_rule: StopRule, pieces) -> tuple[list[str], bool]:
    stop = StopText(stop_rule)
    out = [stop.feed(piece) for piece in pieces]
    return [*out, stop.close()], stop.stopped


@pytest.mark.parametrize("size", range(1, 9))
def test_no_part_of_a_stop_text_is_shown(size: int):
    text = "Hello # there ### End and more"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    out, stopped = shown(rule("### End"), pieces)
    assert stopped
    assert "".join(out) == "Hello # there "


def test_stop_text_of_several_ordinary_tokens(bare):
    ids = bare("It is quiet.\n\n### End of it", add_special_tokens=False)["input_ids"]
    marker = bare("### End", add_special_tokens=False)["input_ids"]
    assert len(marker) > 2
    stop = StopText(prompt_format("dolly").stop_rule(bare))
    decoder = TextDecoder(bare)
    seen = ""
    for token_id in ids:
        seen += stop.feed(decoder.feed(token_id))
        assert "#" not in seen
        if stop.stopped:
            break
    assert seen.rstrip() == "It is quiet."
    assert stop.stopped and stop.close() == ""


@pytest.mark.parametrize(
    "text", ["### Ending is near? No: ##", "# a\n## b\n### c", "### En", "###  End"]
)
def test_similar_text_is_shown_completely(text: str):
    if "### End" in text:
        text = text.replace("### End", "### end")
    out, stopped = shown(rule("### End"), text)
    assert not stopped
    assert "".join(out) == text


def test_overlapping_prefixes_of_a_stop_text():
    out, stopped = shown(rule("### End"), "a ## ### ### End b")
    assert stopped
    assert "".join(out) == "a ## ### "


@pytest.mark.parametrize(
    ("line", "text", "expected", "ends"),
    [
        ("Instruct:", "It rains.\nInstruct: more", "It rains.", True),
        ("Instruct:", "They Instruct: people.", "They Instruct: people.", False),
        ("Instruct:", "Instruct: more", "", True),
        ("Instruct:", "\n  Instruct: more", "", True),
        ("Instruct:", "Instructions: one", "Instructions: one", False),
        ("Q:", "An FAQ: yes.\nQ: next", "An FAQ: yes.", True),
        ("Q:", "One.\nQuite so.\n", "One.\nQuite so.\n", False),
        ("Q:", "Q", "Q", False),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_stop_lines_only_at_the_start_of_a_line(line, text, expected, ends, size):
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    out, stopped = shown(rule(lines=(line,)), pieces)
    assert ("".join(out), stopped) == (expected, ends)


def test_white_space_before_the_answer_is_not_shown():
    out, _ = shown(rule("### End"), ["\n", "  ", " Hello", " you"])
    assert "".join(out) == "Hello you"


def test_no_text_after_the_stop_text():
    stop = StopText(rule("### End"))
    assert stop.feed("a### End b") == "a"
    assert stop.feed("c") == "" and stop.close() == ""


def test_text_is_not_held_back_without_a_stop_text():
    out, _ = shown(rule("### End"), ["The", " cat", " is", " here"])
    assert out == ["The", " cat", " is", " here", ""]


def test_held_back_text_is_bounded():
    stop = StopText(rule("### End", lines=("Q:",)))
    for piece in ["#", " ", "\n", "word "] * 2000:
        stop.feed(piece)
        assert len(stop._held) <= len("### End")


def test_bare_tokenizer_has_no_marker_token(bare, tmp_path: Path):
    assert "### End" not in bare.get_vocab()
