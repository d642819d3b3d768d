"""From votes on pairs of models to a rating of each, with its uncertainty.

The model is that of Bradley and Terry (Rank analysis of incomplete block designs I, Biometrika 39,
1952): a subject ``i`` has a strength θᵢ, and wins against ``j`` with the probability
``p = 1 / (1 + exp(θⱼ − θᵢ))``. The strengths of greatest likelihood are found; Hunter (MM
algorithms for generalized Bradley–Terry models, Annals of Statistics 32, 2004) says when they
exist and how to get them. We take Newton steps, not his MM steps: both end at the same point, and
these yield the information that the intervals need and do not crawl where the votes form a chain.

Ties
    count as half a win for each side, and "both bad" as a tie: neither answer was preferred, which
    is all that the model asks. Leaving them out would keep only the instructions on which the two
    differ and so exaggerate the difference. The public code of Chatbot Arena (Chiang et al.,
    Chatbot Arena: an open platform for evaluating LLMs by human preference, ICML 2024) does the
    same. They are counted apart for the table, since two useless answers are no praise.
Prior
    A subject that never lost has no greatest likelihood: its strength would be infinite, and
    likewise the lead of a group over another that never won (Hunter, assumption 1). So each subject
    also plays :data:`PRIOR_GAMES`, tied, against an opponent of average strength θ = 0. Seven wins
    of ten make 139 points with it and 147 without.
Groups
    Subjects that no chain of votes connects cannot be compared. Each connected group is rated by
    itself, around a mean of :data:`MEAN_RATING`.
Intervals
    come from the observed information H, the negative second derivative of the logarithm of
    the likelihood with the prior: ``cov(θ) = C H⁻¹ Cᵀ``, where C subtracts the group's mean. Chiang
    et al. prefer a robust ("sandwich") estimate, which needs many votes: after three wins of three
    it sees no variance at all, as a bootstrap does. H never sees too little: a score between 0 and
    1 of mean p varies most, by p (1 − p), where there are no ties. With many ties, the intervals
    are wider than need be. What they do not cover is a person who votes on a whim or twice: votes
    count as independent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

POINTS_PER_LOGIT = 400 / math.log(10)
"""The scale of Elo: odds of ten to one are 400 points."""
MEAN_RATING = 1000.0
Z_95 = 1.959963984540054
"""The normal distribution holds 95 % within this many standard deviations of its mean."""
PRIOR_GAMES = 1.0
"""With half a game, 13 wins of 13 are not enough to be sure where 8 of 9 are: the information
fades faster than the lead grows (Hauck and Donner, Wald's test as applied to hypotheses in logit
analysis, JASA 72, 1977). With one, 9 of 9 are enough. With two, the 95 % intervals of very unequal
subjects (standard deviation of strengths 2) hold the truth in 86 to 92 % of simulations; with one,
in 95 %."""
EVEN = 0.005
"""A win rate this close to one half looks equal: to tell it apart from one half takes more than
``Z_95² / 4 / EVEN²`` = 38 000 votes, which nobody casts."""

_ENOUGH = 1e-9
"""Newton's decrement, the square of what is missing in standard deviations, at the last step. A
length in logits would not do: after a billion votes rounding hides where the prior puts zero."""
_MOST_STEPS = 100_000
"""A guard against a loop without end. No step is longer than a logit, and the strengths of a
thousand subjects with a million votes on each pair span less than 20 000."""

S_co = TypeVar("S_co", bound=Hashable, covariant=True)
S = TypeVar("S", bound=Hashable)


class PairCounts(Protocol[S_co]):
    """How the votes on two subjects fell, such as ``core.db.PairVotes``."""

    @property
    def left(self) -> S_co:
        """One subject."""

    @property
    def right(self) -> S_co:
        """The other; a pair of a subject with itself is left out, for it says nothing."""

    @property
    def left_wins(self) -> int:
        """Votes for ``left``."""

    @property
    def right_wins(self) -> int:
        """Votes for ``right``."""

    @property
    def ties(self) -> int:
        """Votes that found both equally good."""

    @property
    def both_bad(self) -> int:
        """Votes that found neither of use."""


@dataclass(frozen=True)
class Standing(Generic[S]):
    """One subject's row in the table."""

    subject: S
    wins: int
    losses: int
    ties: int
    """Without those that were both bad."""
    both_bad: int
    group: int
    """Index into :attr:`Ratings.groups`."""
    rating: float
    """Points; the group's mean is :data:`MEAN_RATING`."""
    low: float
    """Lower end of the 95 % interval of the rating, relative to the group's mean."""
    high: float

    @property
    def votes(self) -> int:
        """Number of votes on it."""
        return self.wins + self.losses + self.ties + self.both_bad


@dataclass(frozen=True)
class Difference:
    """How much better one subject of a group is than another.

    Two ratings can differ for sure although their intervals overlap, and this tells: the
    uncertainty of both ratings has a common part.
    """

    points: float
    low: float
    """Lower end of the 95 % interval in points."""
    high: float
    win_rate: float
    """Share of the votes that the first is expected to win, ties as halves."""
    votes_to_be_sure: int | None
    """How many more votes on these two it takes until the interval excludes zero, 0 where it
    does now. None where they look equal (:data:`EVEN`)."""


class Ratings(Generic[S]):
    """The standings of all subjects that were voted on, and the differences between them."""

    def __init__(self, groups: Sequence[_Group[S]]) -> None:
        self._groups = groups
        self._home = {
            subject: number for number, group in enumerate(groups) for subject in group.subjects
        }

    @property
    def groups(self) -> tuple[tuple[S, ...], ...]:
        """Subjects whose ratings can be compared, the best first; the group with most votes first.

        More than one means that some pair must be voted on before all can be compared.
        """
        return tuple(group.subjects for group in self._groups)

    @property
    def standings(self) -> tuple[Standing[S], ...]:
        """The table, group by group, the best first."""
        return tuple(
            group.standing(number, row)
            for number, group in enumerate(self._groups)
            for row in range(len(group.subjects))
        )

    def difference(self, a: S, b: S) -> Difference | None:
        """How much better ``a`` is than ``b``; None where no chain of votes connects them.

        Raises:
            KeyError: nobody voted on one of them.
            ValueError: they are the same.
        """
        if a == b:
            raise ValueError("a subject does not differ from itself")
        group = self._groups[self._home[a]]
        return group.difference(a, b) if self._home[b] == self._home[a] else None

    def votes_to_be_sure(self, a: S, b: S) -> int | None:
        """How many more votes on ``a`` against ``b`` settle which is better, as it looks now.

        The difference ``d = θₐ − θᵦ`` has the variance V. Each new vote on the two adds the
        information ``p (1 − p)`` along d, so that m of them leave ``V / (1 + m p (1 − p) V)``
        (Sherman and Morrison); at the present win rate ``p = 1 / (1 + exp(−d))``, d stays where
        it is. The 95 % interval excludes zero once |d| exceeds :data:`Z_95` standard deviations,
        for the least whole number ::

            m > (Z_95² / d² − 1 / V) / (p (1 − p))

        The present win rate is itself uncertain, so that this is an order of magnitude.

        Returns:
            0 where they differ for sure; None where they look equal (:data:`EVEN`), or no chain
            of votes connects them.

        Raises:
            KeyError: nobody voted on one of them.
            ValueError: they are the same.
        """
        found = self.difference(a, b)
        return None if found is None else found.votes_to_be_sure


def rate(pairs: Iterable[PairCounts[S]]) -> Ratings[S]:
    """Rate all subjects of the pairs; the order of pairs, and of a pair's sides, is no matter.

    Raises:
        ValueError: a count is negative.
    """
    table = _Table(pairs)
    groups = [_Group(table, members) for members in table.components()]
    return Ratings(sorted(groups, key=lambda group: -group.votes))


class _Table(Generic[S]):
    """The counts as matrices over the subjects, in the order of their first appearance."""

    def __init__(self, pairs: Iterable[PairCounts[S]]) -> None:
        used = [pair for pair in pairs if pair.left != pair.right and _votes(pair) > 0]
        self.subjects: list[S] = list(
            dict.fromkeys(subject for pair in used for subject in (pair.left, pair.right))
        )
        number = {subject: index for index, subject in enumerate(self.subjects)}
        size = (len(self.subjects),) * 2
        self.wins = np.zeros(size)
        """Of the row against the column."""
        self.ties, self.both_bad = np.zeros(size), np.zeros(size)
        for pair in used:
            left, right = number[pair.left], number[pair.right]
            self.wins[left, right] += pair.left_wins
            self.wins[right, left] += pair.right_wins
            for counts, count in ((self.ties, pair.ties), (self.both_bad, pair.both_bad)):
                counts[left, right] += count
                counts[right, left] += count

    @property
    def scores(self) -> np.ndarray:
        """Wins of the row against the column, ties and both bad as halves."""
        return self.wins + (self.ties + self.both_bad) / 2

    def components(self) -> list[list[int]]:
        """Numbers of the subjects that chains of votes connect."""
        linked = (self.scores + self.scores.T) > 0
        left, found = set(range(len(self.subjects))), []
        while left:
            reached, edge = set(), {min(left)}
            while edge:
                reached |= edge
                edge = {int(one) for one in np.flatnonzero(linked[list(edge)].any(0))} - reached
            left -= reached
            found.append(sorted(reached))
        return found


class _Group(Generic[S]):
    """Subjects that chains of votes connect, the best first."""

    def __init__(self, table: _Table[S], members: Sequence[int]) -> None:
        block = np.ix_(members, members)
        strengths, information = _fit(table.scores[block])
        centre = np.eye(len(members)) - 1 / len(members)
        order = np.argsort(-strengths, kind="stable")
        self.subjects = tuple(table.subjects[members[index]] for index in order)
        self._strengths = (centre @ strengths)[order]
        covariance = centre @ np.linalg.inv(information) @ centre
        self._covariance = covariance[np.ix_(order, order)]
        self._counts = [
            Counter(
                wins=round(table.wins[block][index].sum()),
                losses=round(table.wins[block][:, index].sum()),
                ties=round(table.ties[block][index].sum()),
                both_bad=round(table.both_bad[block][index].sum()),
            )
            for index in order
        ]

    @property
    def votes(self) -> int:
        """Number of votes within the group."""
        return sum(counts.total() for counts in self._counts) // 2

    def standing(self, group: int, row: int) -> Standing[S]:
        """The row of the table."""
        rating = MEAN_RATING + POINTS_PER_LOGIT * float(self._strengths[row])
        margin = POINTS_PER_LOGIT * Z_95 * math.sqrt(self._covariance[row, row])
        return Standing(
            subject=self.subjects[row],
            group=group,
            rating=rating,
            low=rating - margin,
            high=rating + margin,
            **self._counts[row],
        )

    def difference(self, a: S, b: S) -> Difference:
        """How much better ``a`` is than ``b``."""
        contrast = np.zeros(len(self.subjects))
        contrast[[self.subjects.index(a), self.subjects.index(b)]] = 1, -1
        logits = float(contrast @ self._strengths)
        variance = float(contrast @ self._covariance @ contrast)
        points, margin = POINTS_PER_LOGIT * logits, POINTS_PER_LOGIT * Z_95 * math.sqrt(variance)
        return Difference(
            points=points,
            low=points - margin,
            high=points + margin,
            win_rate=float(_win_rate(logits)),
            votes_to_be_sure=_more_votes(logits, variance),
        )


def _votes(pair: PairCounts[Hashable]) -> int:
    counts = (pair.left_wins, pair.right_wins, pair.ties, pair.both_bad)
    if min(counts) < 0:
        raise ValueError(f"counts of votes are not negative: {counts}")
    return sum(counts)


def _win_rate(logits: np.ndarray | float) -> np.ndarray | float:
    """``1 / (1 + exp(−x))``, written so that it neither overflows nor rounds to 0."""
    tail = np.exp(-np.abs(logits))
    return np.where(np.asarray(logits) < 0, tail, 1) / (1 + tail)


def _fit(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strengths of greatest likelihood, prior included, and the information about them.

    Newton's steps are shortened so that no difference of strengths changes by more than 1, the
    opponent at 0 included. Within that, the curvature of the logistic likelihood grows by less
    than the factor e, and so every step gains (Bach, Self-concordant analysis for logistic
    regression, Electronic Journal of Statistics 4, 2010, lemma 1).

    Args:
        scores: wins of the row against the column, (subjects, subjects).

    Returns:
        Strengths in logits, (subjects,), and the information matrix, (subjects, subjects).
    """
    strengths = np.zeros(len(scores))
    for _ in range(_MOST_STEPS):
        expected = _win_rate(strengths[:, None] - strengths[None, :])
        at_prior = _win_rate(strengths)
        surprise = scores * expected.T - scores.T * expected  # scores − games · expected, exactly
        gradient = surprise.sum(1) + PRIOR_GAMES * (0.5 - at_prior)
        weights = (scores + scores.T) * expected * expected.T
        information = np.diag(weights.sum(1) + PRIOR_GAMES * at_prior * (1 - at_prior)) - weights
        step = np.linalg.solve(information, gradient)
        reach = max(step.max(), 0) - min(step.min(), 0)
        strengths = strengths + step / max(reach, 1)
        if reach <= 1 and gradient @ step < _ENOUGH:
            return strengths, information
    raise ArithmeticError("the ratings did not settle")  # see _MOST_STEPS


def _more_votes(logits: float, variance: float) -> int | None:
    """See :meth:`Ratings.votes_to_be_sure`."""
    rate = float(_win_rate(logits))
    if abs(logits) > Z_95 * math.sqrt(variance):
        return 0
    if abs(rate - 0.5) < EVEN:
        return None
    missing = (Z_95 / logits) ** 2 - 1 / variance
    return math.floor(missing / (rate * (1 - rate))) + 1
