"""What a vote is: the values that go into the ``votes`` table and come out of it.

A vote names the two runs that were judged and repeats none of their text, so that a person's
instruction is kept in one place only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from core.db.account_values import GUEST
from core.db.run_values import utc_now
from core.errors import BadRequestError

COMMENT_LIMIT = 2000
"""Characters of a comment: a paragraph or two. Votes are read in tables and mailed in exports."""


class Verdict(StrEnum):
    """Which of two answers a person found better."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    """Neither answer was of use."""


class CompareMode(StrEnum):
    """When the two models of a comparison answered."""

    FAIR = "fair"
    """One after the other where they share a device, so that neither disturbs the other."""
    RACE = "race"
    """Both at once; the timings are contended."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is voted on: a model as it ran.

    In a :class:`PairVotes` that does not tell them apart, precision, device or runtime is None.
    """

    model: str
    """Its key for programs; votes of earlier versions may have its folder."""
    title: str = field(compare=False)
    """The model's name for people; a model that was renamed is still the same."""
    precision: str | None
    """Weight precision."""
    device: str | None
    """Device asked for."""
    runtime: str | None


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One person's judgement of two answers to the same instruction."""

    comparison: str
    """The caller's id of this pair of answers; there is one vote for it. A comparison of more
    than two models needs one for each pair that is judged."""
    left: Subject
    """As the person saw them: in a blind comparison the side is chance."""
    right: Subject
    verdict: Verdict
    blind: bool
    """Whether the names were hidden until the vote."""
    mode: CompareMode
    left_run: str | None = None
    """Id of the answer's run; None where it was not recorded. It may be deleted by now."""
    right_run: str | None = None
    comment: str | None = None
    """Stored as :func:`checked_comment` leaves it."""
    owner: str = GUEST
    """Id of the account that voted, or :data:`core.db.account_values.GUEST`."""
    session: str | None = None
    """Opaque id of the browser session."""
    created_at: datetime = field(default_factory=utc_now)
    """UTC, of the latest vote; a time with another zone is converted, one without refused."""


@dataclass(frozen=True)
class VoteRecord:
    """One row of ``votes``."""

    id: str
    """32 hexadecimal digits; a vote that was changed keeps it."""
    vote: Vote


@dataclass(frozen=True, kw_only=True)
class PairVotes:
    """The votes on two subjects, whichever of them was on the left."""

    left: Subject
    right: Subject
    left_wins: int
    right_wins: int
    ties: int
    both_bad: int


def checked_comment(comment: str | None) -> str | None:
    """The comment without blanks around it; None where nothing is left.

    Raises:
        BadRequestError: it is longer than :data:`COMMENT_LIMIT`.
    """
    comment = (comment or "").strip()
    if len(comment) > COMMENT_LIMIT:
        raise BadRequestError(
            f"The comment has {len(comment):,} characters; shorten it to {COMMENT_LIMIT:,} or "
            "fewer and vote again."
        )
    return comment or None
