"""Convert a user's judgement of a comparison to votes on pairs of sides."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from core.compare.match import Match
from core.compare.setup import LETTERS
from core.db import GUEST, Subject, Verdict, Vote
from core.inference.answer import Answer
from core.runtimes.spec import ModelSpec
from core.ui.instruct.conversation import model_title


@dataclass(frozen=True)
class Judgement:
    """A user's judgement of a comparison."""

    best: int | Verdict
    """Index of the best side, or a verdict without one: a tie, or all bad."""
    comment: str = ""
    blind: bool = False
    """Whether the names were hidden."""

    def sentence(self, sides: int) -> str:
        """Return the judgement as a sentence, for a comparison of this many sides."""
        if self.best is Verdict.TIE:
            return "You chose a tie."
        if self.best is Verdict.BOTH_BAD:
            return f"You chose “{'both' if sides == 2 else 'all'} bad”."
        return f"You chose {LETTERS[self.best]}."


def pairs_of(match: Match) -> dict[str, tuple[int, int]]:
    """Return all pairs of sides, by the ids under which votes on them are stored."""
    pairs = combinations(range(len(match.setup.sides)), 2)
    return {f"{match.id}:{LETTERS[left]}{LETTERS[right]}": (left, right) for left, right in pairs}


def votes_of(
    match: Match, judgement: Judgement, *, session: str | None, owner: str = GUEST
) -> list[Vote]:
    """Return the votes that follow from a judgement.

    With more than two sides, the best side wins against each of the others; nothing follows for
    pairs of the others. A tie or "all bad" counts for every pair.
    """
    subjects = list(map(_subject, match.setup.sides, match.answers))
    runs = [job.run_id if job is not None else None for job in match.jobs]
    best, votes = judgement.best, []
    for comparison, (left, right) in pairs_of(match).items():
        if isinstance(best, Verdict):
            verdict = best
        elif best in (left, right):
            verdict = Verdict.LEFT if best == left else Verdict.RIGHT
        else:
            continue
        votes.append(
            Vote(
                comparison=comparison,
                left=subjects[left],
                right=subjects[right],
                verdict=verdict,
                blind=judgement.blind,
                mode=match.setup.mode,
                left_run=runs[left],
                right_run=runs[right],
                comment=judgement.comment,
                session=session,
                owner=owner,
            )
        )
    return votes


def _subject(spec: ModelSpec, answer: Answer | None) -> Subject:
    return Subject(
        model=spec.model,
        title=model_title(spec),
        precision=spec.precision_name,
        device=spec.device,
        runtime=spec.runtime.value,
        weights=answer.weights if answer is not None else None,
    )
