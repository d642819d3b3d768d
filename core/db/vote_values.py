"""Values of the table ``votes``.

A vote refers to the two runs and does not copy their texts, so that an instruction is stored in one
place only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from core.db.account_values import GUEST
from core.db.rows import Flat
from core.db.run_values import utc_now
from core.errors import BadRequestError

COMMENT_LIMIT = 2000
"""Longest comment in characters: one or two paragraphs, because votes are shown in tables."""


class Verdict(StrEnum):
    """Which of two answers the user preferred."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    """Neither answer was useful."""


class Mode(StrEnum):
    """Whether the models of a comparison run one after the other or at the same time."""

    FAIR = "fair"
    RACE = "race"

    @property
    def label(self) -> str:
        """Label of the option."""
        return self.value.title()

    @property
    def sentence(self) -> str:
        """Explanation for the user."""
        if self is Mode.FAIR:
            return (
                "One after the other and without the prefix cache, so that they do not affect each "
                "other's timings."
            )
        return (
            "All at the same time, without the prefix cache. On one machine they slow each other "
            "down, and their timings are marked as measured while busy."
        )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Subject of a vote: a model with its precision, device and runtime.

    Precision, device or runtime is None in :class:`PairVotes` that are not grouped by it.
    """

    model: str
    """Key of the model; in votes of earlier versions possibly its folder."""
    title: str = field(compare=False)
    """Title of the model; not compared, so that a renamed model is still the same subject."""
    precision: str | None
    """Weight precision."""
    device: str | None
    """Requested device."""
    runtime: str | None
    weights: str | None = None
    """Display name of the weights if the precision is not specific enough: ``INT8 from Q4_1``."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """A user's vote on two answers to the same instruction."""

    comparison: str
    """Id of this pair of answers, chosen by the caller; it has at most one vote. A comparison of
    more than two models needs one id per pair."""
    left: Annotated[Subject, Flat("left_")]
    """The left side as shown; in a blind comparison the sides are random."""
    right: Annotated[Subject, Flat("right_")]
    verdict: Verdict
    blind: bool
    """Whether the names were hidden until the vote."""
    mode: Mode
    left_run: str | None = None
    """Id of the answer's run, which may have been deleted; None if it was not recorded."""
    right_run: str | None = None
    comment: str | None = None
    """Stored as returned by :func:`checked_comment`."""
    owner: str = GUEST
    """Id of the account, or :data:`core.db.account_values.GUEST`."""
    session: str | None = None
    """Opaque id of the browser session."""
    created_at: datetime = field(default_factory=utc_now)
    """Time of the latest vote, UTC; times in other time zones are converted, times without one are
    rejected."""


@dataclass(frozen=True, kw_only=True)
class PairVotes:
    """Counts of the votes on two subjects, regardless of their sides."""

    left: Subject
    right: Subject
    left_wins: int
    right_wins: int
    ties: int
    both_bad: int

    @property
    def votes(self) -> int:
        """Number of votes."""
        return self.left_wins + self.right_wins + self.ties + self.both_bad


def checked_comment(comment: str | None) -> str | None:
    """Return the stripped comment; None if it is empty.

    Raises:
        BadRequestError: it is longer than :data:`COMMENT_LIMIT`.
    """
    comment = (comment or "").strip()
    if len(comment) > COMMENT_LIMIT:
        raise BadRequestError(
            f"The comment has {len(comment):,} characters. Shorten it to at most "
            f"{COMMENT_LIMIT:,} and vote again."
        )
    return comment or None
