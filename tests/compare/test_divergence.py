"""Divergence of answers by token, character and word, and of a compressed model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.catalogue import Precision
from core.compare.divergence import (
    DiffKind,
    agreement,
    compare,
    first_divergence,
    followed,
    readable_diff,
    reference_pairs,
    same_tokenizer,
)
from core.inference.answer import StopReason
from core.store.manifest import FileRecord
from tests.compare.answers import answer, stored
from tests.compare.conftest import spec

PIECES = ("the", "cat", " ", "  \n", "is", "don't", "猫が", "好き", "!", "a\u0301", "👩", "\u200d")
WORDS = st.lists(st.sampled_from(PIECES)).map("".join)


@pytest.mark.parametrize(
    ("a", "b", "index"),
    [
        ((), (), None),
        ((1, 2, 3), (1, 2, 3), None),
        ((1, 2, 3), (1, 4, 3), 1),
        ((1, 2), (1, 2, 3), 2),
        ((1,), (), 0),
    ],
)
def test_first_token_that_differs(a: tuple[int, ...], b: tuple[int, ...], index: int | None):
    assert first_divergence(a, b, same_tokenizer=True) == index
    assert first_divergence(b, a, same_tokenizer=True) == index


def test_texts_are_compared_by_character_where_tokenizers_differ():
    assert first_divergence("It is.", "It was.", same_tokenizer=False) == 3
    with pytest.raises(TypeError):
        first_divergence((1, 2), (1, 3), same_tokenizer=False)
    found = compare(answer("It is.", (5, 6)), answer("It was.", (7, 8, 9)), same_tokenizer=False)
    assert (found.unit, found.index, found.lengths) == ("character", 3, (6, 7))
    assert found.sentence == "The answers diverge at character 4, after 3 characters in common."


def test_identical_answers():
    found = compare(answer(), answer(gap_s=0.5), same_tokenizer=True)
    assert found.identical and found.index is None
    assert found.prefix_share == found.similarity == 1.0
    assert found.sentence == "The answers are identical, token by token."


def test_the_share_that_agrees():
    found = compare(
        answer("a b c d", (1, 2, 3, 0)), answer("a b x d e f", (1, 2, 9, 4, 5, 6, 7, 0)), True
    )
    assert found.index == 2 and found.prefix_share == 2 / 8 and not found.identical
    assert found.similarity == pytest.approx(2 * 3 / 10)
    assert found.sentence == "The answers diverge at token 3, after 2 tokens in common."
    at_once = compare(answer(ids=(1, 0)), answer(ids=(2, 0)), True)
    assert at_once.sentence == "The answers differ from the first token."


@pytest.mark.parametrize("reason", list(StopReason))
def test_cut_off_answer_is_not_a_divergence(reason: StopReason):
    short = answer("It is", (1, 2), reason=reason)
    found = compare(short, answer("It is quiet.", (1, 2, 3, 0)), same_tokenizer=True)
    by_the_model = reason in (StopReason.END_OF_TEXT, StopReason.STOP_MARKER)
    assert found.cut_short is not by_the_model
    assert found.index == (2 if by_the_model else None)
    assert not found.identical
    if not by_the_model:
        assert found.sentence.startswith("The answers agree in all 2 tokens of the shorter one")
    # The stop reason of the longer answer does not matter.
    assert (
        compare(answer("It is", (1, 2)), answer("It is so", (1, 2, 3), reason=reason), True).index
        == 2
    )


# Following


def test_share_of_tokens_that_the_compressed_model_followed():
    reference = answer(ids=range(100, 200))
    other = answer(ids=[*range(100, 142), 7, 8])
    found = followed(reference, other)
    assert (found.tokens, found.reference_tokens, found.share) == (42, 100, 0.42)
    assert "for 42 of 100 tokens (42%)" in found.sentence
    assert not found.to_the_end and not found.cut_short


def test_followed_to_the_end_or_until_cut_off():
    reference = answer(ids=(1, 2, 3, 0))
    whole = followed(reference, answer(ids=(1, 2, 3, 0)))
    assert whole.to_the_end and whole.share == 1.0 and "to the end (4 tokens)" in whole.sentence
    cut = followed(reference, answer(ids=(1,), reason=StopReason.CANCELLED))
    assert cut.cut_short and not cut.to_the_end and "the shorter answer (1 token)" in cut.sentence
    longer = followed(reference, answer(ids=(1, 2, 3, 4, 0)))
    assert longer.tokens == 3 and not longer.to_the_end
    assert followed(answer(ids=()), answer(ids=())).share == 1.0


def test_the_reference_is_the_highest_precision_of_a_model():
    int4, int8, fp16 = Precision.INT4, Precision.INT8, Precision.FP16
    assert reference_pairs([spec("a", int4), spec("a", int8)]) == ((1, 0),)
    assert reference_pairs([spec("a", int8), spec("b", int4)]) == ()
    assert reference_pairs([spec("a", int8), spec("a", int8, "GPU")]) == ()
    sides = [spec("a", int4), spec("b", int8), spec("a", fp16), spec("a", int8)]
    assert reference_pairs(sides) == ((2, 0), (2, 3))


def test_same_tokenizer_by_model_or_by_checksum():
    def having(name: str, checksum: str | None):
        found = stored(name)
        files = (
            {}
            if checksum is None
            else {"tokenizer.json": FileRecord(size=1, sha256=checksum, mtime_ns=0)}
        )
        return replace(found, manifest=found.manifest.model_copy(update={"files": files}))

    assert same_tokenizer(having("a", None), having("a", None))
    assert same_tokenizer(having("a", "1"), having("b", "1"))
    assert not same_tokenizer(having("a", "1"), having("b", "2"))
    assert not same_tokenizer(having("a", None), having("b", None))
    assert not same_tokenizer(having("a", "1"), None)


# Diffs


def test_diff_is_by_words():
    same, only_a, only_b = DiffKind
    assert readable_diff("It is quiet.", "It was quiet.") == [
        (same, "It "),
        (only_a, "is"),
        (only_b, "was"),
        (same, " quiet."),
    ]
    assert readable_diff("", "new") == [(only_b, "new")]
    assert readable_diff("", "") == [] and readable_diff("x", "x") == [(same, "x")]


def test_adjacent_changed_words_are_one_change():
    found = readable_diff("The big red dog ran.", "The small blue dog ran.")
    assert found == [
        (DiffKind.SAME, "The "),
        (DiffKind.ONLY_A, "big red"),
        (DiffKind.ONLY_B, "small blue"),
        (DiffKind.SAME, " dog ran."),
    ]


def test_text_without_spaces_is_split_into_characters():
    found = readable_diff("私は猫が好き", "私は犬が好き")
    assert (DiffKind.ONLY_A, "猫") in found and (DiffKind.SAME, "が好き") in found
    assert agreement("私は猫が好き", "私は犬が好き") == pytest.approx(5 / 6)


@given(WORDS | st.text(), WORDS | st.text())
def test_diff_spans_reconstruct_both_texts(a: str, b: str):
    spans = readable_diff(a, b)
    assert "".join(text for kind, text in spans if kind is not DiffKind.ONLY_B) == a
    assert "".join(text for kind, text in spans if kind is not DiffKind.ONLY_A) == b
    assert all(text for _, text in spans)
    assert 0 <= agreement(a, b) <= 1
    if a == b:
        assert agreement(a, b) == 1 and {kind for kind, _ in spans} <= {DiffKind.SAME}


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_ids_are_equal_before_and_differ_at_the_divergence(a: list[int], b: list[int]):
    index = first_divergence(a, b)
    if index is None:
        assert a == b
    else:
        assert a[:index] == b[:index] and a[index : index + 1] != b[index : index + 1]
