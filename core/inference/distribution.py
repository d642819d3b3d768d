"""The distribution that a token is drawn from, as OpenVINO GenAI computes it from the logits.

Order and arithmetic are those of GenAI's ``LogitProcessor`` and ``Sampler`` in
``src/cpp/src/sampling``: repetition penalty, top-k, temperature, min-p, top-p, all in float32.
``tests/inference/check_distribution.py`` compares them with 10 000 draws for each setting.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from core.runtimes.spec import SamplingSettings


@dataclass(frozen=True)
class Distribution:
    """The next token's distribution under some settings; arrays are indexed by token id."""

    tempered: np.ndarray
    """float64, after penalty and temperature, before any token is cut off; sums to 1."""
    drawn: np.ndarray
    """float64, what a token is drawn from; 0 for the tokens that are cut off; sums to 1."""
    kept: np.ndarray
    """Ids of the tokens that can be drawn, the most likely first."""

    @property
    def kept_mass(self) -> float:
        """Share of :attr:`tempered` that the kept tokens hold, 0 to 1."""
        return float(self.tempered[self.kept].sum())

    @cached_property
    def order(self) -> np.ndarray:
        """All ids, the most likely first; equal ones in the order of their ids."""
        return np.argsort(-self.tempered, kind="stable")

    def draw(self, count: int, seed: int | None = None) -> np.ndarray:
        """Draw tokens with replacement; return how often each id was drawn, as int64."""
        return np.random.default_rng(seed).multinomial(count, self.drawn)


def distribution(
    logits: np.ndarray,
    sampling: SamplingSettings,
    *,
    min_p: float = 0.0,
    earlier: Collection[int] = (),
) -> Distribution:
    """Return the distribution that GenAI draws the next token from.

    Args:
        logits: of the next token, of shape (vocabulary,).
        sampling: its seed and maximum length are not used.
        min_p: tokens below this share of the likeliest token's probability are cut off.
        earlier: ids of prompt and answer so far, which the repetition penalty applies to.

    Of equal logits at the border of top-k, GenAI keeps some; here those with the lower ids.
    """
    scores = np.array(logits, dtype=np.float32)
    ids = np.fromiter(set(earlier), dtype=np.int64)
    penalty = np.float32(sampling.repetition_penalty)
    if penalty != 1.0 and len(ids):
        values = scores[ids]
        scores[ids] = np.where(values >= 0, values / penalty, values * penalty)
    scale = np.float32(1.0) / np.float32(1.0 if sampling.greedy else sampling.temperature)
    tempered = softmax(scores.astype(np.float64) * scale)
    drawn = np.zeros(len(scores))
    if sampling.greedy:
        kept = np.array([scores.argmax()])
        drawn[kept] = 1.0
        return Distribution(tempered, drawn, kept)
    kept = np.argsort(-scores, kind="stable")
    if 0 < sampling.top_k < len(kept):
        kept = kept[: sampling.top_k]
    # The sums run over the ids in order, because sums of float32 depend on it.
    in_order = np.sort(kept)
    weights = np.exp((scores - scores[kept[0]]) * scale)
    weights /= np.cumsum(weights[in_order], dtype=np.float32)[-1]
    if min_p > 0:
        kept = kept[weights[kept] >= np.float32(min_p) * weights[kept[0]]]
    if (top_p := np.float32(sampling.top_p)) != 1.0:
        over = np.cumsum(weights[kept], dtype=np.float32) > top_p
        kept = kept[: int(over.argmax()) + 1] if over.any() else kept
    kept = kept[weights[kept] > 0]
    drawn[kept] = weights[kept]
    return Distribution(tempered, drawn / drawn.sum(), kept)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities in float64; the last axis is the vocabulary."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the natural log probabilities in float64; the last axis is the vocabulary."""
    shifted = np.subtract(logits, logits.max(axis=-1, keepdims=True), dtype=np.float64)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl_divergence(reference: np.ndarray, other: np.ndarray) -> float:
    """Return the Kullback–Leibler divergence D(reference ‖ other) in nats.

    Args:
        reference: logits of shape (vocabulary,).
        other: logits of the same shape.
    """
    own, theirs = log_softmax(reference), log_softmax(other)
    return max(0.0, float((np.exp(own) * (own - theirs)).sum()))


class OrderChange(NamedTuple):
    """A token with another rank in another model; ranks begin with 1."""

    token_id: int
    rank: int
    other_rank: int


def order_changes(reference: np.ndarray, other: np.ndarray, count: int) -> list[OrderChange]:
    """Return the tokens whose rank differs, of the ``count`` likeliest of the reference."""
    ranks = np.empty(len(other), dtype=np.int64)
    ranks[np.argsort(-other, kind="stable")] = np.arange(1, len(other) + 1)
    likeliest = np.argsort(-reference, kind="stable")[:count]
    return [
        OrderChange(int(token), rank, int(ranks[token]))
        for rank, token in enumerate(likeliest, start=1)
        if ranks[token] != rank
    ]


def likeliest(logits: np.ndarray, count: int) -> list[int]:
    """Return the ids of the ``count`` likeliest tokens, the most likely first.

    Args:
        logits: of shape (vocabulary,).
    """
    found = np.argpartition(logits, -min(count, len(logits)))[-count:]
    return found[np.lexsort((found, -logits[found]))].tolist()


def log_sum_exp(rows: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of exponentials of each row, as float64.

    The exponentials are float32, which takes a tenth of the time; the error is below 1e-6.
    """
    highest = rows.max(axis=-1)
    sums = np.exp(rows - highest[:, None]).sum(axis=-1, dtype=np.float64)
    return highest + np.log(sums)
