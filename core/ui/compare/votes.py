"""Convert a user's judgement of a comparison to votes on pairs of sides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from core.compare.match import Match
from core.compare.setup import LETTERS
from core.db import GUEST, CompareMode, Subject, Verdict, Vote
from core.inference.answer import Answer
from core.runtimes.spec import ModelSpec
from core.ui.instruct.conversation import model_title


class NoWinner(StrEnum):
    """Judgements without a best side."""

    TIE = "tie"
    BOTH_BAD = "both_bad"


@dataclass(frozen=True)
class Judgement:
    """A user's judgement of a comparison."""

    best: int | NoWinner
    """Index of the best side, or no winner."""
    comment: str = ""
    blind: bool = False
    """Whether the names were hidden."""

    def sentence(self, sides: int) -> str:
        """Return the judgement as a sentence, for a comparison of this many sides."""
        if self.best is NoWinner.TIE:
            return "You chose a tie."
        if self.best is NoWinner.BOTH_BAD:
            return f"You chose “{'both' if sides == 2 else 'all'} bad”."
        return f"You chose {LETTERS[self.best]}."


def pair_ids(match: Match) -> list[str]:
    """Return the ids of all pairs of a comparison, under which votes are stored."""
    return [_pair_id(match, pair) for pair in _pairs(match)]


def votes_of(
    match: Match, judgement: Judgement, *, session: str | None, owner: str = GUEST
) -> list[Vote]:
    """Return the votes that follow from a judgement.

    With more than two sides, the best side wins against each of the others; nothing follows for
    pairs of the others. A tie or "all bad" counts for every pair.
    """
    subjects = list(map(_subject, match.setup.sides, match.answers))
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
        if isinstance(judgement.best, NoWinner) or judgement.best in (left, right)
    ]


def _pairs(match: Match) -> list[tuple[int, int]]:
    return list(combinations(range(len(match.setup.sides)), 2))


def _pair_id(match: Match, pair: tuple[int, int]) -> str:
    return f"{match.id}:{LETTERS[pair[0]]}{LETTERS[pair[1]]}"


def _verdict(best: int | NoWinner, left: int) -> Verdict:
    if isinstance(best, NoWinner):
        return Verdict(best.value)
    return Verdict.LEFT if best == left else Verdict.RIGHT


def _subject(spec: ModelSpec, answer: Answer | None) -> Subject:
    return Subject(
        model=spec.model,
        title=model_title(spec),
        precision=spec.precision_name,
        device=spec.device,
        runtime=spec.runtime.value,
        weights=answer.weights if answer is not None else None,
    )
