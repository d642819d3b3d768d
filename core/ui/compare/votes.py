"""From a person's judgement on a match to votes: one for each pair of sides that it settles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from core.compare.match import Match
from core.compare.setup import LETTERS
from core.db import GUEST, CompareMode, Subject, Verdict, Vote
from core.runtimes.spec import ModelSpec
from core.ui.instruct.history import model_title


class NoBest(StrEnum):
    """Judgements that prefer no side."""

    TIE = "tie"
    BOTH_BAD = "both_bad"


@dataclass(frozen=True)
class Judgement:
    """What a person found of a match."""

    best: int | NoBest
    """The side that was better than every other, or none."""
    comment: str = ""
    blind: bool = False
    """Whether the names were hidden."""

    def sentence(self, sides: int) -> str:
        """It in words."""
        if self.best is NoBest.TIE:
            return "You found them equally good."
        if self.best is NoBest.BOTH_BAD:
            return f"You found {'both' if sides == 2 else 'all'} of no use."
        return f"You found {LETTERS[self.best]} {'better' if sides == 2 else 'best'}."


def pair_ids(match: Match) -> list[str]:
    """Ids of all pairs of a match, under which its votes are kept."""
    return [_pair_id(match, pair) for pair in _pairs(match)]


def votes_of(
    match: Match, judgement: Judgement, *, session: str | None, owner: str = GUEST
) -> list[Vote]:
    """The votes that a judgement makes.

    With more than two sides the best one won against each of the others, of which nothing is said
    among themselves; a tie, or all bad, holds for every pair.
    """
    subjects = [_subject(spec) for spec in match.setup.sides]
    runs = [job.run_id if job is not None else None for job in match.jobs]
    return [
        Vote(
            comparison=_pair_id(match, (left, right)),
            left=subjects[left],
            right=subjects[right],
            verdict=_verdict(judgement.best, left),
            blind=judgement.blind,
            mode=CompareMode(match.setup.mode.value),
            left_run=runs[left],
            right_run=runs[right],
            comment=judgement.comment,
            session=session,
            owner=owner,
        )
        for left, right in _pairs(match)
        if isinstance(judgement.best, NoBest) or judgement.best in (left, right)
    ]


def _pairs(match: Match) -> list[tuple[int, int]]:
    return list(combinations(range(len(match.setup.sides)), 2))


def _pair_id(match: Match, pair: tuple[int, int]) -> str:
    return f"{match.id}:{LETTERS[pair[0]]}{LETTERS[pair[1]]}"


def _verdict(best: int | NoBest, left: int) -> Verdict:
    if isinstance(best, NoBest):
        return Verdict(best.value)
    return Verdict.LEFT if best == left else Verdict.RIGHT


def _subject(spec: ModelSpec) -> Subject:
    return Subject(
        model=spec.model,
        title=model_title(spec),
        precision=spec.precision_name,
        device=spec.device,
        runtime=spec.runtime.value,
    )
