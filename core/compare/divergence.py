"""Where and how much a model in a lower precision diverges from a higher one.

Meaningful only under greedy decoding: sampled answers differ anyway, and so do different models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from core.catalogue import Precision
from core.inference.answer import Answer, StopReason
from core.runtimes.spec import ModelSpec
from core.units import counted

_CUT_OFF = frozenset(
    {StopReason.LENGTH, StopReason.CANCELLED, StopReason.TIMEOUT, StopReason.ERROR}
)
"""Stop reasons that are not the model's own decision: how the answer would continue is unknown."""
_WORDS = re.compile(r"\s+|[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
"""White space, words and single symbols; Chinese and Japanese, written without spaces, are split
into characters."""
_EXACT_WORDS = 1500
"""The diff is exact up to this many words; for longer texts ``difflib`` ignores frequent words."""
_BY_PRECISION = (Precision.FP32, Precision.FP16, Precision.STORED, Precision.INT8, Precision.INT4)


class DiffKind(StrEnum):
    """Kind of a span of a diff."""

    SAME = "same"
    ONLY_A = "only a"
    ONLY_B = "only b"


@dataclass(frozen=True)
class Divergence:
    """How far two answers agree, the first of them the reference."""

    index: int | None
    """Index of the first token that differs; None if no token differs."""
    lengths: tuple[int, int]
    """Number of tokens of each answer."""
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
            return "The answers are identical, token by token."
        if self.index is None:
            return (
                f"The answers agree in all {counted(min(self.lengths), 'token')} of the shorter "
                "one, which was cut off before the model finished."
            )
        if self.index == 0:
            return "The answers differ from the first token."
        return (
            f"The answers diverge at token {self.index + 1:,}: {counted(self.index, 'token')} of "
            f"{self.lengths[0]:,} are the same as in the reference "
            f"({self.index / self.lengths[0]:.0%})."
        )


def compare(reference: Answer, other: Answer) -> Divergence:
    """Compare two finished answers of one model."""
    ids, others = reference.token_ids, other.token_ids
    lengths = (len(ids), len(others))
    shorter = reference if lengths[0] < lengths[1] else other
    index = next((at for at, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b), None)
    cut_short = False
    if index is None and lengths[0] != lengths[1]:
        cut_short = shorter.stop_reason in _CUT_OFF
        index = None if cut_short else min(lengths)
    return Divergence(index, lengths, cut_short, agreement(reference.text, other.text))


def precision_rank(spec: ModelSpec) -> int:
    """Return 0 for the highest precision, and more for lower ones."""
    return _BY_PRECISION.index(spec.precision.base)


def reference_pairs(sides: Sequence[ModelSpec]) -> tuple[tuple[int, int], ...]:
    """Return pairs of sides with the same model in two precisions, as (reference, compressed).

    The reference of a model is its side with the highest precision.
    """
    pairs = []
    for model in dict.fromkeys(spec.model for spec in sides):
        same = [index for index, spec in enumerate(sides) if spec.model == model]
        best = min(same, key=lambda index: precision_rank(sides[index]))
        pairs += [
            (best, index) for index in same if sides[index].precision != sides[best].precision
        ]
    return tuple(pairs)


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


def _split(text: str) -> list[str]:
    return _WORDS.findall(text)


def _matcher(a: Sequence[str], b: Sequence[str]) -> SequenceMatcher[str]:
    return SequenceMatcher(None, a, b, autojunk=max(len(a), len(b)) > _EXACT_WORDS)
