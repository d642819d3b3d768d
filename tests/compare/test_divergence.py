"""Divergence of the answers of a model in two precisions, by token and by word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.catalogue import Precision
from core.compare.divergence import (
    DiffKind,
    agreement,
    compare,
    readable_diff,
    reference_pairs,
)
from core.inference.answer import StopReason
from tests.compare.answers import answer
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
    assert compare(answer(ids=a), answer(ids=b)).index == index
    assert compare(answer(ids=b), answer(ids=a)).index == index


def test_identical_answers():
    found = compare(answer(), answer(gap_s=0.5))
    assert found.identical and found.index is None and found.similarity == 1.0
    assert found.sentence == "The answers are identical, token by token."


def test_share_of_tokens_that_are_the_same_as_in_the_reference():
    found = compare(answer("a b c d", range(100)), answer("a b x d e f", [*range(42), 7, 8]))
    assert (found.index, found.lengths) == (42, (100, 44)) and not found.identical
    assert found.similarity == pytest.approx(2 * 3 / 10)
    assert found.sentence == (
        "The answers diverge at token 43: 42 tokens of 100 are the same as in the reference (42%)."
    )
    at_once = compare(answer(ids=(1, 0)), answer(ids=(2, 0)))
    assert at_once.sentence == "The answers differ from the first token."


@pytest.mark.parametrize("reason", list(StopReason))
def test_cut_off_answer_is_not_a_divergence(reason: StopReason):
    short = answer("It is", (1, 2), reason=reason)
    found = compare(short, answer("It is quiet.", (1, 2, 3, 0)))
    by_the_model = reason in (StopReason.END_OF_TEXT, StopReason.STOP_MARKER)
    assert found.cut_short is not by_the_model
    assert found.index == (2 if by_the_model else None)
    assert not found.identical
    if not by_the_model:
        assert found.sentence.startswith("The answers agree in all 2 tokens of the shorter one")
    # The stop reason of the longer answer does not matter.
    longer = answer("It is so", (1, 2, 3), reason=reason)
    assert compare(answer("It is", (1, 2)), longer).index == 2


def test_the_reference_is_the_highest_precision_of_a_model():
    int4, int8, fp16 = Precision.INT4, Precision.INT8, Precision.FP16
    assert reference_pairs([spec("a", int4), spec("a", int8)]) == ((1, 0),)
    assert reference_pairs([spec("a", int8), spec("b", int4)]) == ()
    assert reference_pairs([spec("a", int8), spec("a", int8, "GPU")]) == ()
    sides = [spec("a", int4), spec("b", int8), spec("a", fp16), spec("a", int8)]
    assert reference_pairs(sides) == ((2, 0), (2, 3))


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
