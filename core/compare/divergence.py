"""Where and how much two answers diverge."""

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

_CUT_OFF = frozenset(
    {StopReason.LENGTH, StopReason.CANCELLED, StopReason.TIMEOUT, StopReason.ERROR}
)
"""Stop reasons that are not the model's own decision: how the answer would continue is unknown."""
_WORDS = re.compile(r"\s+|[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
"""White space, words and single symbols; Chinese and Japanese, written without spaces, are split
into characters."""
_EXACT_WORDS = 1500
"""The diff is exact up to this many words; for longer texts ``difflib`` ignores frequent words."""
_BY_PRECISION = (
    Precision.FP32,
    Precision.FP16,
    Precision.STORED,
    Precision.INT8,
    Precision.INT4,
)


class DiffKind(StrEnum):
    """Kind of a span of a diff."""

    SAME = "same"
    ONLY_A = "only a"
    ONLY_B = "only b"


@dataclass(frozen=True)
class Divergence:
    """How far two answers agree."""

    unit: str
    """``token``, or ``character`` if the tokenizers differ."""
    index: int | None
    """Index of the first unit that differs; None if no unit differs."""
    lengths: tuple[int, int]
    """Number of units of each answer."""
    prefix_share: float
    """Length of the common prefix as a share of the longer answer, 0 to 1."""
    cut_short: bool
    """Whether the answers agree up to the end of the shorter one, and that one was ended by the
    token limit, the user, the time limit or an error: how it would continue is unknown."""
    similarity: float
    """Share of words that both texts contain in the same order, 0 to 1."""

    @property
    def identical(self) -> bool:
        """Whether the answers are complete and equal."""
        return self.index is None and not self.cut_short

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        if self.identical:
            return f"The answers are identical, {self.unit} by {self.unit}."
        if self.index is None:
            short = min(self.lengths)
            return (
                f"The answers agree in all {_count(short, self.unit)} of the shorter one, which "
                "was cut off before the model finished."
            )
        if self.index == 0:
            return f"The answers differ from the first {self.unit}."
        return (
            f"The answers diverge at {self.unit} {self.index + 1:,}, after "
            f"{_count(self.index, self.unit)} in common."
        )


@dataclass(frozen=True)
class Followed:
    """How far a compressed model generated the same tokens as its reference."""

    tokens: int
    """Number of tokens before the first that differs."""
    reference_tokens: int
    share: float
    """``tokens / reference_tokens``, 0 to 1."""
    to_the_end: bool
    """Whether all tokens are the same."""
    cut_short: bool
    """Whether one of the answers was cut off before any token differed."""

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        if self.cut_short:
            tokens = _count(self.tokens, "token")
            return (
                "The compressed model followed the reference to the end of the shorter answer "
                f"({tokens})."
            )
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
    """Return the index at which two answers first differ; None if they are equal.

    If one is a prefix of the other, this is its length.

    Args:
        ids_a, ids_b: token ids, or texts if the tokenizers differ, since ids of different
            tokenizers cannot be compared. Texts are compared by character.

    Raises:
        TypeError: token ids of different tokenizers.
    """
    if not same_tokenizer and not (isinstance(ids_a, str) and isinstance(ids_b, str)):
        raise TypeError("answers of different tokenizers must be compared as texts, not token ids")
    for index, (a, b) in enumerate(zip(ids_a, ids_b, strict=False)):
        if a != b:
            return index
    return None if len(ids_a) == len(ids_b) else min(len(ids_a), len(ids_b))


def compare(a: Answer, b: Answer, same_tokenizer: bool) -> Divergence:
    """Compare two finished answers."""
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
    """Compare a model in a lower precision with the same model in a higher one, by tokens."""
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
    """Return pairs of sides with the same model in two precisions, as (reference, compressed).

    The reference of a model is its side with the highest precision.
    """
    pairs = []
    for model in dict.fromkeys(spec.model for spec in sides):
        same = [index for index, spec in enumerate(sides) if spec.model == model]
        best = min(same, key=lambda index: _BY_PRECISION.index(sides[index].precision))
        pairs += [
            (best, index) for index in same if sides[index].precision != sides[best].precision
        ]
    return tuple(pairs)


def same_tokenizer(a: StoredModel | None, b: StoredModel | None) -> bool:
    """Return whether two stored models have the same key or equal ``tokenizer.json`` files."""
    if a is None or b is None:
        return False
    if a.key == b.key:
        return True
    files = [stored.manifest.files.get("tokenizer.json") for stored in (a, b)]
    return files[0] is not None and files[1] is not None and files[0].sha256 == files[1].sha256


def agreement(text_a: str, text_b: str) -> float:
    """Return the share of words that both texts contain in the same order, 0 to 1.

    White space is ignored.
    """
    words = [[word for word in _split(text) if not word.isspace()] for text in (text_a, text_b)]
    return _matcher(*words).ratio()


def readable_diff(text_a: str, text_b: str) -> list[tuple[DiffKind, str]]:
    """Return a diff by words, as (kind, text).

    The spans ``SAME`` and ``ONLY_A`` joined are text A; likewise for B.
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
    """Merge changes separated only by white space: a phrase reads better as one change."""
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
    """Whether the only difference is that the shorter answer was cut off."""
    if index != min(lengths) or lengths[0] == lengths[1]:
        return False
    shorter = a if lengths[0] < lengths[1] else b
    return shorter.stop_reason in _CUT_OFF


def _split(text: str) -> list[str]:
    return _WORDS.findall(text)


def _matcher(a: Sequence[str], b: Sequence[str]) -> SequenceMatcher[str]:
    return SequenceMatcher(None, a, b, autojunk=max(len(a), len(b)) > _EXACT_WORDS)


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"
