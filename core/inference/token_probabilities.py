"""Probabilities of the tokens of a text, and of the tokens that were possible in their place."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.inference.distribution import likeliest, log_sum_exp
from core.runtimes.logits import LogitsModel
from core.runtimes.token_text import TokenText


class Alternative(NamedTuple):
    """A token that was possible at some place."""

    token: TokenText
    log_probability: float
    """Natural logarithm of the model's probability, before temperature and penalties."""


@dataclass(frozen=True)
class TokenProbability:
    """A token of a text, and the tokens that were likeliest in its place."""

    token: TokenText
    log_probability: float
    """See :attr:`Alternative.log_probability`."""
    alternatives: tuple[Alternative, ...]
    """The most likely first; the token itself is among them if it is one of the likeliest."""


def probabilities(
    model: LogitsModel,
    token_ids: Sequence[int],
    start: int,
    count: int,
    cancelled: threading.Event | None = None,
) -> list[TokenProbability]:
    """Return the probabilities of the tokens from index ``start`` on, from one forward pass.

    Args:
        token_ids: the whole text: prompt and answer.
        start: from 1, because nothing predicts the first token.
        count: number of alternatives.
        cancelled: when set, the pass ends early; the tokens so far are returned.

    Raises:
        BadRequestError: the text exceeds the context length.
        GenerationError: OpenVINO failed.
    """
    found: list[TokenProbability] = []
    if start >= len(token_ids):
        return found
    text = model.texts.text
    for rows in model.rows(token_ids[:-1], start):
        sums = log_sum_exp(rows)
        for row, total in zip(rows, sums, strict=True):
            token = token_ids[start + len(found)]
            alternatives = tuple(
                Alternative(text(each), float(row[each] - total)) for each in likeliest(row, count)
            )
            found.append(TokenProbability(text(token), float(row[token] - total), alternatives))
        if cancelled is not None and cancelled.is_set():
            break
    return found
