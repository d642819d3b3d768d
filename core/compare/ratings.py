"""Ratings of models, with confidence intervals, from votes on pairs of them.

The model is that of Bradley and Terry (Rank analysis of incomplete block designs I, Biometrika 39,
1952): a subject ``i`` has a strength θᵢ, and wins against ``j`` with the probability
``p = 1 / (1 + exp(θⱼ − θᵢ))``. The strengths are maximum-likelihood estimates; Hunter (MM
algorithms for generalized Bradley–Terry models, Annals of Statistics 32, 2004) describes when they
exist and how to compute them. We use Newton's method, not his MM algorithm: both converge to the
same point, but Newton's method also yields the information matrix for the intervals and converges
quickly where the votes form a chain.

Ties
    count as half a win for each side, and "both bad" as a tie: neither answer was preferred, which
    is all that the model considers. Leaving them out would keep only the instructions on which the
    two differ and so exaggerate the difference. The public code of Chatbot Arena (Chiang et al.,
    Chatbot Arena: an open platform for evaluating LLMs by human preference, ICML 2024) does the
    same. The table counts "both bad" separately.
Prior
    The maximum-likelihood strength of a subject that never lost is infinite, as is the lead of a
    group over another one that never won (Hunter, assumption 1). So each subject has additional
    :data:`PRIOR_GAMES` tied games against an opponent of average strength θ = 0. Seven wins of ten
    give 139 points with this prior and 147 without.
Groups
    Subjects that are not connected by a chain of votes cannot be compared. Each connected group is
    rated separately, with a mean of :data:`MEAN_RATING`.
Intervals
    are computed from the observed information H, the negative second derivative of the
    log-likelihood including the prior: ``cov(θ) = C H⁻¹ Cᵀ``, where C subtracts the group's mean.
    Chiang et al. prefer a robust ("sandwich") estimate, which needs many votes: after three wins of
    three it estimates no variance at all, and so does a bootstrap. H never underestimates the
    variance: a score between 0 and 1 with mean p has its largest variance, p (1 − p), without ties.
    With many ties, the intervals are wider than necessary. They do not account for users who vote
    arbitrarily or twice: votes are treated as independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from core.db import PairVotes, Subject

POINTS_PER_LOGIT = 400 / math.log(10)
"""The Elo scale: odds of ten to one are 400 points."""
MEAN_RATING = 1000.0
Z_95 = 1.959963984540054
"""95 % of a normal distribution lies within this many standard deviations of the mean."""
PRIOR_GAMES = 1.0
"""With half a game, 13 wins of 13 are not significant although 8 of 9 are: the information
decreases faster than the lead grows (Hauck and Donner, Wald's test as applied to hypotheses in
logit analysis, JASA 72, 1977). With one, 9 of 9 are significant. With two, the 95 % intervals of
very unequal subjects (standard deviation of strengths 2) contain the true value in 86 to 92 % of
simulations; with one, in 95 %."""
EQUAL_MARGIN = 0.005
"""A win rate this close to 0.5 counts as equal: distinguishing it from 0.5 would take more than
``Z_95² / 4 / EQUAL_MARGIN²`` = 38 000 votes."""

_TOLERANCE = 1e-9
"""Newton decrement, the squared distance to the maximum in standard deviations, at the last step. A
tolerance in logits would not work: after a billion votes, rounding errors hide the prior."""
_MAX_STEPS = 100_000
"""Prevents an endless loop. A step is at most one logit, and the strengths of a thousand subjects
with a million votes on each pair span less than 20 000."""


@dataclass(frozen=True)
class Standing:
    """Row of a subject in the table of ratings."""

    subject: Subject
    wins: int
    losses: int
    ties: int
    """Without "both bad"."""
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
        """Number of votes on the subject."""
        return self.wins + self.losses + self.ties + self.both_bad


@dataclass(frozen=True)
class Difference:
    """How much better one subject of a group is than another.

    A difference can be significant although the intervals of the two ratings overlap, because
    their uncertainties are correlated.
    """

    points: float
    low: float
    """Lower end of the 95 % interval in points."""
    high: float
    win_rate: float
    """Expected share of votes won by the first subject, ties counted as half."""
    votes_needed: int | None
    """Additional votes on the two subjects until the interval excludes zero; 0 if it does
    already, None if they look equal (:data:`EQUAL_MARGIN`)."""


class Ratings:
    """Standings of all subjects with votes, and the differences between them."""

    def __init__(self, groups: Sequence[_Group]) -> None:
        self._groups = groups
        self._home = {
            subject: number for number, group in enumerate(groups) for subject in group.subjects
        }
        self.groups = tuple(group.subjects for group in groups)
        """Groups of comparable subjects, best first; the group with the most votes comes first. If
        there is more than one, votes that connect the groups are missing."""
        self.standings = tuple(
            group.standing(number, row)
            for number, group in enumerate(groups)
            for row in range(len(group.subjects))
        )
        """All rows of the table, by group, best first."""

    def difference(self, a: Subject, b: Subject) -> Difference | None:
        """Return how much better ``a`` is than ``b``, another subject with votes; None if no chain
        of votes connects them."""
        group = self._groups[self._home[a]]
        return group.difference(a, b) if self._home[b] == self._home[a] else None


def rate(pairs: Iterable[PairVotes]) -> Ratings:
    """Rate all subjects of the pairs, whose order does not matter."""
    used = [pair for pair in pairs if pair.left != pair.right and pair.votes]
    subjects = list(dict.fromkeys(one for pair in used for one in (pair.left, pair.right)))
    number = {subject: index for index, subject in enumerate(subjects)}
    # Wins of the row against the column, ties, "both bad".
    wins, ties, both_bad = counts = np.zeros((3, len(subjects), len(subjects)))
    for pair in used:
        left, right = number[pair.left], number[pair.right]
        wins[left, right] += pair.left_wins
        wins[right, left] += pair.right_wins
        for table, count in ((ties, pair.ties), (both_bad, pair.both_bad)):
            table[left, right] += count
            table[right, left] += count
    groups = [
        _Group([subjects[index] for index in members], counts[:, members][:, :, members])
        for members in _components(counts.sum(0))
    ]
    return Ratings(sorted(groups, key=lambda group: -group.votes))


def _components(votes: np.ndarray) -> list[list[int]]:
    """Return the indices of the subjects of each connected component."""
    linked = (votes + votes.T) > 0
    left, found = set(range(len(votes))), []
    while left:
        reached, edge = set(), {min(left)}
        while edge:
            reached |= edge
            edge = {int(index) for index in np.flatnonzero(linked[list(edge)].any(0))} - reached
        left -= reached
        found.append(sorted(reached))
    return found


class _Group:
    """A connected component: subjects connected by votes, best first."""

    def __init__(self, subjects: Sequence[Subject], counts: np.ndarray) -> None:
        """
        Args:
            counts: wins, ties and "both bad", (3, subjects, subjects).
        """
        wins, ties, both_bad = counts
        scores = wins + (ties + both_bad) / 2
        self.votes = scores.sum()
        strengths, information = _fit(scores)
        centre = np.eye(len(subjects)) - 1 / len(subjects)
        strengths = centre @ strengths
        order = np.argsort(-strengths, kind="stable")
        self.subjects = tuple(subjects[index] for index in order)
        self._strengths = strengths[order]
        covariance = centre @ np.linalg.inv(information) @ centre
        self._covariance = covariance[np.ix_(order, order)]
        sums = {"wins": wins.sum(1), "losses": wins.sum(0)}
        sums |= {"ties": ties.sum(1), "both_bad": both_bad.sum(1)}
        self._counts = [
            {name: round(each[index]) for name, each in sums.items()} for index in order
        ]

    def standing(self, group: int, row: int) -> Standing:
        """Return a row of the table."""
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

    def difference(self, a: Subject, b: Subject) -> Difference:
        """Return how much better ``a`` is than ``b``."""
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
            votes_needed=_more_votes(logits, variance),
        )


def _win_rate(logits: np.ndarray | float) -> np.ndarray | float:
    """Compute ``1 / (1 + exp(−x))`` without overflow and without rounding to 0."""
    tail = np.exp(-np.abs(logits))
    return np.where(np.asarray(logits) < 0, tail, 1) / (1 + tail)


def _fit(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the maximum-likelihood strengths, prior included, and their information matrix.

    Newton steps are shortened so that no difference of strengths, the prior's opponent at 0
    included, changes by more than 1. Within that range the curvature of the logistic likelihood
    grows by less than the factor e, so every step increases the likelihood (Bach, Self-concordant
    analysis for logistic regression, Electronic Journal of Statistics 4, 2010, lemma 1).

    Args:
        scores: wins of the row against the column, (subjects, subjects).

    Returns:
        Strengths in logits, (subjects,), and the information matrix, (subjects, subjects).
    """
    strengths = np.zeros(len(scores))
    for _ in range(_MAX_STEPS):
        expected = _win_rate(strengths[:, None] - strengths[None, :])
        at_prior = _win_rate(strengths)
        surprise = scores * expected.T - scores.T * expected  # scores − games · expected, exactly
        gradient = surprise.sum(1) + PRIOR_GAMES * (0.5 - at_prior)
        weights = (scores + scores.T) * expected * expected.T
        information = np.diag(weights.sum(1) + PRIOR_GAMES * at_prior * (1 - at_prior)) - weights
        step = np.linalg.solve(information, gradient)
        reach = max(step.max(), 0) - min(step.min(), 0)
        strengths = strengths + step / max(reach, 1)
        if reach <= 1 and gradient @ step < _TOLERANCE:
            return strengths, information
    raise ArithmeticError("the ratings did not converge")  # see _MAX_STEPS


def _more_votes(logits: float, variance: float) -> int | None:
    """Return the estimated number of votes on two subjects that make their difference significant.

    Their difference ``d = θₐ − θᵦ`` has the variance V. Each new vote on the two adds the
    information ``p (1 − p)`` along d, so that m votes reduce V to ``V / (1 + m p (1 − p) V)``
    (Sherman and Morrison). At the present win rate ``p = 1 / (1 + exp(−d))``, d does not change.
    The 95 % interval excludes zero once |d| exceeds :data:`Z_95` standard deviations, for the least
    whole number ::

        m > (Z_95² / d² − 1 / V) / (p (1 − p))

    The present win rate is itself uncertain, so this is only an order of magnitude.
    """
    rate = float(_win_rate(logits))
    if abs(logits) > Z_95 * math.sqrt(variance):
        return 0
    if abs(rate - 0.5) < EQUAL_MARGIN:
        return None
    missing = (Z_95 / logits) ** 2 - 1 / variance
    return math.floor(missing / (rate * (1 - rate))) + 1
