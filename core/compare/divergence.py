"""Where two answers part, and by how much."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from core.catalogue import Precision
from core.inference.answer import Answer, StopReason
from core.runtimes.spec import ModelSpec
from core.store import StoredModel

_CUT_SHORT = frozenset(
    {StopReason.LENGTH, StopReason.CANCELLED, StopReason.TIMEOUT, StopReason.ERROR}
)
"""Ends that are not the model's own: what would have come next is unknown."""
_WORDS = re.compile(r"\s+|[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
"""White space, words, single signs; Chinese and Japanese, which have no spaces, by character."""
_EXACT_WORDS = 1500
"""Up to so many words the diff is the best there is; longer ones may leave out frequent words."""
_FROM_BEST = (
    Precision.FP32,
    Precision.FP16,
    Precision.STORED,
    Precision.INT8,
    Precision.INT4,
)


class DiffKind(StrEnum):
    """What a span of a diff is."""

    SAME = "same"
    ONLY_A = "only a"
    ONLY_B = "only b"


@dataclass(frozen=True)
class Divergence:
    """How far two answers agree."""

    unit: str
    """``token``; ``character`` where the tokenizers differ."""
    index: int | None
    """Number of units before the first that differs, which is its index; None where none does."""
    lengths: tuple[int, int]
    """Units of each answer."""
    prefix_share: float
    """Units before the first that differs, as a share of the longer answer; 1 where none does."""
    cut_short: bool
    """Whether they agree only as far as one goes that was ended by its length, by the person, by
    time or by a failure: nobody knows how it would have gone on."""
    similarity: float
    """Share of words that both texts have in the same order, 0 to 1."""

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return self.index is None and not self.cut_short

    @property
    def sentence(self) -> str:
        """It in words."""
        if self.identical:
            return f"The answers are identical, {self.unit} by {self.unit}."
        if self.index is None:
            short = min(self.lengths)
            return (
                f"The answers agree in all {_count(short, self.unit)} of the shorter one, which "
                "was ended before the model had ended it."
            )
        if self.index == 0:
            return f"The answers differ from the first {self.unit} on."
        return (
            f"The answers part at {self.unit} {self.index + 1:,}: "
            f"{_count(self.index, self.unit)} before it agree."
        )


@dataclass(frozen=True)
class Followed:
    """How far a compressed model followed its reference."""

    tokens: int
    """Tokens that it gave as the reference did, before the first that differs."""
    reference_tokens: int
    share: float
    """The former by the latter, 0 to 1."""
    to_the_end: bool
    """Whether it never left the reference."""
    cut_short: bool
    """Whether one of the two was ended before any token differed."""

    @property
    def sentence(self) -> str:
        """It in words."""
        if self.cut_short:
            tokens = _count(self.tokens, "token")
            return f"The compressed model followed the reference as far as both went ({tokens})."
        if self.to_the_end:
            return (
                "The compressed model followed the reference to the end "
                f"({_count(self.tokens, 'token')})."
            )
        return (
            f"The compressed model followed the reference for {self.tokens:,} of "
            f"{_count(self.reference_tokens, 'token')} ({self.share:.0%})."
        )


def first_divergence(
    ids_a: Sequence[int] | str, ids_b: Sequence[int] | str, same_tokenizer: bool = True
) -> int | None:
    """Index of the first place at which two answers differ; None where they are equal.

    Where one is the beginning of the other, that is the index at which it ended.

    Args:
        ids_a, ids_b: token ids. Where the tokenizers differ ids mean nothing to each other: then
            the texts, compared by character.

    Raises:
        TypeError: ids of different tokenizers.
    """
    if not same_tokenizer and not (isinstance(ids_a, str) and isinstance(ids_b, str)):
        raise TypeError("answers of different tokenizers are compared by their texts")
    for index, (a, b) in enumerate(zip(ids_a, ids_b, strict=False)):
        if a != b:
            return index
    return None if len(ids_a) == len(ids_b) else min(len(ids_a), len(ids_b))


def compare(a: Answer, b: Answer, same_tokenizer: bool) -> Divergence:
    """How far two ended answers agree."""
    first, second = (a.token_ids, b.token_ids) if same_tokenizer else (a.text, b.text)
    index = first_divergence(first, second, same_tokenizer)
    lengths = (len(first), len(second))
    cut_short = index is not None and _ended_early(a, b, lengths, index)
    if cut_short:
        index = None
    longest = max(lengths)
    agreed = min(lengths) if cut_short else longest if index is None else index
    return Divergence(
        unit="token" if same_tokenizer else "character",
        index=index,
        lengths=lengths,
        prefix_share=agreed / longest if longest else 1.0,
        cut_short=cut_short,
        similarity=agreement(a.text, b.text),
    )


def followed(reference: Answer, compressed: Answer) -> Followed:
    """How far a model in a lower precision gave the same tokens as in a higher one."""
    ids, others = reference.token_ids, compressed.token_ids
    index = first_divergence(ids, others)
    cut_short = index is not None and _ended_early(
        reference, compressed, (len(ids), len(others)), index
    )
    tokens = len(ids) if index is None else index
    return Followed(
        tokens=tokens,
        reference_tokens=len(ids),
        share=tokens / len(ids) if ids else 1.0,
        to_the_end=index is None,
        cut_short=cut_short,
    )


def reference_pairs(sides: Sequence[ModelSpec]) -> tuple[tuple[int, int], ...]:
    """Sides that are one model in two precisions: (index of the reference, of the compressed).

    The reference of a model is its side with the highest precision.
    """
    pairs = []
    for model in dict.fromkeys(spec.model for spec in sides):
        same = [index for index, spec in enumerate(sides) if spec.model == model]
        best = min(same, key=lambda index: _FROM_BEST.index(sides[index].precision))
        pairs += [
            (best, index) for index in same if sides[index].precision != sides[best].precision
        ]
    return tuple(pairs)


def same_tokenizer(a: StoredModel | None, b: StoredModel | None) -> bool:
    """Whether two stored models split text alike: one model, or equal ``tokenizer.json`` files."""
    if a is None or b is None:
        return False
    if a.key == b.key:
        return True
    files = [stored.manifest.files.get("tokenizer.json") for stored in (a, b)]
    return files[0] is not None and files[1] is not None and files[0].sha256 == files[1].sha256


def agreement(text_a: str, text_b: str) -> float:
    """Share of words that both texts have in the same order, 0 to 1; white space aside."""
    words = [[word for word in _split(text) if not word.isspace()] for text in (text_a, text_b)]
    return _matcher(*words).ratio()


def readable_diff(text_a: str, text_b: str) -> list[tuple[DiffKind, str]]:
    """Spans that both texts have, and that only one has, by word.

    The spans that are the same or only in A are together text A; likewise for B.
    """
    a, b = _split(text_a), _split(text_b)
    spans: list[tuple[str, str, str]] = []  # same, only a, only b
    for tag, a1, a2, b1, b2 in _matcher(a, b).get_opcodes():
        if tag == "equal":
            spans.append(("".join(a[a1:a2]), "", ""))
        else:
            spans.append(("", "".join(a[a1:a2]), "".join(b[b1:b2])))
    result: list[tuple[DiffKind, str]] = []
    for same, only_a, only_b in _joined(spans):
        result += [
            (kind, text)
            for kind, text in (
                (DiffKind.SAME, same),
                (DiffKind.ONLY_A, only_a),
                (DiffKind.ONLY_B, only_b),
            )
            if text
        ]
    return result


def _joined(spans: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Changes that only white space parts become one change: a phrase reads better whole."""
    result: list[tuple[str, str, str]] = []
    for at, (same, only_a, only_b) in enumerate(spans):
        if same and same.isspace() and 0 < at < len(spans) - 1:
            same, only_a, only_b = "", same, same
        if not same and result and not result[-1][0]:
            result[-1] = ("", result[-1][1] + only_a, result[-1][2] + only_b)
        else:
            result.append((same, only_a, only_b))
    return result


def _ended_early(a: Answer, b: Answer, lengths: tuple[int, int], index: int) -> bool:
    """Whether the answers differ only in that one was ended while the other went on."""
    if index != min(lengths) or lengths[0] == lengths[1]:
        return False
    shorter = a if lengths[0] < lengths[1] else b
    return shorter.stop_reason in _CUT_SHORT


def _split(text: str) -> list[str]:
    return _WORDS.findall(text)


def _matcher(a: Sequence[str], b: Sequence[str]) -> SequenceMatcher[str]:
    return SequenceMatcher(None, a, b, autojunk=max(len(a), len(b)) > _EXACT_WORDS)


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"
