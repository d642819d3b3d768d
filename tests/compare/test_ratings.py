"""Ratings from votes: known strengths are recovered, and few votes give wide intervals."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.compare.ratings import (
    MEAN_RATING,
    POINTS_PER_LOGIT,
    PRIOR_GAMES,
    Z_95,
    Ratings,
    rate,
)


@dataclass(frozen=True)
class Pair:
    """Counts of the votes on two subjects."""

    left: str
    right: str
    left_wins: float = 0
    right_wins: float = 0
    ties: float = 0
    both_bad: float = 0

    @property
    def votes(self) -> float:
        """Number of votes."""
        return self.left_wins + self.right_wins + self.ties + self.both_bad

    def turned(self) -> Pair:
        """The same votes with exchanged sides."""
        return Pair(
            self.right, self.left, self.right_wins, self.left_wins, self.ties, self.both_bad
        )

    def reversed(self) -> Pair:
        """The opposite votes."""
        return Pair(
            self.left, self.right, self.right_wins, self.left_wins, self.ties, self.both_bad
        )


def rows(ratings: Ratings) -> dict[str, tuple[float, float, float]]:
    """Rating and interval of each subject."""
    return {row.subject: (row.rating, row.low, row.high) for row in ratings.standings}


def simulated(
    strengths: Sequence[float], votes: int, tie_share: float, chance: np.random.Generator
) -> list[Pair]:
    """Votes that Bradley-Terry subjects get, the same number on each pair.

    A share of ties takes as much from wins as from losses, so that the mean score stays.
    """
    pairs = []
    for a, b in itertools.combinations(range(len(strengths)), 2):
        p = 1 / (1 + math.exp(strengths[b] - strengths[a]))
        tie = 2 * tie_share * min(p, 1 - p)
        wins, losses, ties = chance.multinomial(votes, [p - tie / 2, 1 - p - tie / 2, tie])
        pairs.append(Pair(str(a), str(b), int(wins), int(losses), int(ties)))
    return pairs


# Known results


def test_two_subjects_get_the_log_odds_of_their_votes() -> None:
    found = rate([Pair("a", "b", 7000, 3000)]).difference("a", "b")
    assert found.points == pytest.approx(400 * math.log10(7 / 3), abs=0.1)
    assert found.win_rate == pytest.approx(0.7, abs=1e-4)
    margin = Z_95 * POINTS_PER_LOGIT / math.sqrt(10_000 * 0.7 * 0.3)
    assert found.high - found.points == pytest.approx(margin, rel=1e-3)
    assert found.points - found.low == pytest.approx(margin, rel=1e-3)


def test_strengths_equal_those_of_hunters_mm_algorithm() -> None:
    pairs = simulated([1.5, 0.4, 0.0, -0.7, -1.2], 12, 0.2, np.random.default_rng(3))
    pairs[4] = Pair(pairs[4].left, pairs[4].right)  # not every pair has votes
    scores = np.zeros((5, 5))
    for pair in pairs:
        left, right = int(pair.left), int(pair.right)
        scores[left, right] += pair.left_wins + pair.ties / 2
        scores[right, left] += pair.right_wins + pair.ties / 2
    games, worth = scores + scores.T, np.ones(5)
    for _ in range(20_000):
        faced = (games / (worth[:, None] + worth[None, :])).sum(1) + PRIOR_GAMES / (worth + 1)
        worth = (scores.sum(1) + PRIOR_GAMES / 2) / faced
    expected = MEAN_RATING + POINTS_PER_LOGIT * (np.log(worth) - np.log(worth).mean())
    found = rows(rate(pairs))
    assert [found[str(i)][0] for i in range(5)] == pytest.approx(list(expected), abs=1e-3)


@pytest.mark.parametrize(
    ("votes", "spread", "tie_share"), [(4, 0.8, 0), (30, 0.8, 0), (10, 2, 0), (30, 0.8, 0.3)]
)
def test_coverage_of_the_confidence_intervals(votes: int, spread: float, tie_share: float) -> None:
    """Six subjects of random strength (standard deviation in logits), 800 times.

    Were all intervals of one time right or wrong together, the share would have a standard
    deviation of √(0.95 · 0.05 / 800) = 0.8 %; three of them are allowed. An interval of 90 or
    99 % would fall outside. With ties the intervals are wider than need be, never narrower.
    """
    chance, inside_ratings, inside_differences = np.random.default_rng(5), [], []
    for _ in range(800):
        truth = chance.normal(0, spread, 6)
        truth -= truth.mean()
        ratings = rate(simulated(truth, votes, tie_share, chance))
        assert len(ratings.groups) == 1
        for name, (_, low, high) in rows(ratings).items():
            true = MEAN_RATING + POINTS_PER_LOGIT * truth[int(name)]
            inside_ratings.append(low <= true <= high)
        for a, b in itertools.combinations(range(6), 2):
            found = ratings.difference(str(a), str(b))
            true = POINTS_PER_LOGIT * (truth[a] - truth[b])
            inside_differences.append(found.low <= true <= found.high)
    tolerance = 3 * math.sqrt(0.95 * 0.05 / 800)
    for share in (np.mean(inside_ratings), np.mean(inside_differences)):
        assert share > 0.95 - tolerance
        assert tie_share or share < 0.95 + tolerance


def test_many_votes_recover_the_strengths() -> None:
    truth = np.array([1.0, 0.5, 0.1, -0.4, -1.2])
    found = rows(rate(simulated(truth, 200_000, 0.0, np.random.default_rng(8))))
    expected = MEAN_RATING + POINTS_PER_LOGIT * truth
    assert [found[str(i)][0] for i in range(5)] == pytest.approx(list(expected), abs=3)
    assert sorted(found, key=lambda name: -found[name][0]) == list("01234")


# Symmetry


def test_sides_and_order_do_not_matter() -> None:
    pairs = simulated([1.0, 0.2, -0.3, -0.9], 9, 0.3, np.random.default_rng(2))
    turned = [pair.turned() for pair in pairs]
    random.Random(4).shuffle(turned)
    split = [half for pair in pairs for half in (Pair(pair.left, pair.right, 1), pair)]
    joined = [
        Pair(pair.left, pair.right, pair.left_wins + 1, pair.right_wins, pair.ties)
        for pair in pairs
    ]
    for one, other in ((pairs, turned), (split, joined)):
        expected, found = rows(rate(one)), rows(rate(other))
        assert expected.keys() == found.keys()
        for name in expected:
            assert found[name] == pytest.approx(expected[name], abs=1e-2)


def test_opposite_votes_give_opposite_ratings() -> None:
    pairs = simulated([1.0, 0.2, -0.3, -0.9], 9, 0.3, np.random.default_rng(2))
    forth, back = rows(rate(pairs)), rows(rate([pair.reversed() for pair in pairs]))
    for name, (rating, low, high) in forth.items():
        mirrored = tuple(2 * MEAN_RATING - points for points in (rating, high, low))
        assert back[name] == pytest.approx(mirrored, abs=1e-2)
    ratings = rate(pairs)
    one, other = ratings.difference("0", "3"), ratings.difference("3", "0")
    assert (one.points, one.low, one.high) == pytest.approx(
        (-other.points, -other.high, -other.low)
    )
    assert one.win_rate == pytest.approx(1 - other.win_rate)
    assert one.votes_needed == other.votes_needed


# The table


def test_table_counts_each_verdict_separately() -> None:
    table = rate([Pair("a", "b", 5, 2, 3, 4), Pair("c", "a", 1, 6, 0, 2)]).standings
    counts = {r.subject: (r.wins, r.losses, r.ties, r.both_bad, r.votes) for r in table}
    assert counts == {
        "a": (11, 3, 3, 6, 23),
        "b": (2, 5, 3, 4, 14),
        "c": (1, 6, 0, 2, 9),
    }
    assert table[0].subject == "a" and table[0].rating > table[1].rating > table[2].rating


def test_both_bad_rates_like_a_tie() -> None:
    tied = rows(rate([Pair("a", "b", 5, 2, ties=4), Pair("b", "c", 3, 1)]))
    bad = rows(rate([Pair("a", "b", 5, 2, both_bad=4), Pair("b", "c", 3, 1)]))
    left_out = rows(rate([Pair("a", "b", 5, 2), Pair("b", "c", 3, 1)]))
    assert bad == tied
    assert left_out["a"][0] - left_out["b"][0] > bad["a"][0] - bad["b"][0] + 20


# Few votes


@pytest.mark.parametrize("pairs", [[], [Pair("a", "b")], [Pair("a", "a", 4, 3, 2, 1)]])
def test_no_votes_on_two_subjects_make_no_table(pairs: list[Pair]) -> None:
    ratings = rate(pairs)
    assert ratings.standings == () and ratings.groups == ()


def test_a_pair_of_a_subject_with_itself_changes_nothing() -> None:
    pair = Pair("a", "b", 3, 1)
    assert rows(rate([pair, Pair("a", "a", 9, 9)])) == rows(rate([pair]))


def test_only_ties_give_the_mean_rating() -> None:
    for name, (rating, low, high) in rows(rate([Pair("a", "b", ties=3, both_bad=2)])).items():
        assert rating == pytest.approx(MEAN_RATING), name
        assert low < MEAN_RATING - 50 and high > MEAN_RATING + 50


def test_undefeated_subject_has_a_finite_rating_that_grows_with_wins() -> None:
    found = [rate([Pair("a", "b", wins)]).difference("a", "b") for wins in (1, 3, 10, 1000)]
    points = [one.points for one in found]
    assert points == sorted(points) and points[-1] < 3000
    assert found[0].low < 0, "one vote proves nothing"
    assert found[2].low > 0, "ten of ten do"


def test_undefeated_subject_is_as_significant_as_one_with_a_loss() -> None:
    """Wald intervals can fail here; the prior was chosen so that they do not."""

    def fewest(losses: int) -> int:
        def sure(wins: int) -> bool:
            return rate([Pair("a", "b", wins, losses)]).difference("a", "b").low > 0

        return next(wins for wins in range(1, 100) if sure(wins)) + losses

    assert (fewest(0), fewest(1)) == (9, 9)


def test_a_group_that_never_won_against_another_is_still_rated() -> None:
    """The maximum-likelihood estimate does not exist, although all subjects of a group won and
    lost."""
    pairs = [Pair("a", "b", 3, 3), Pair("c", "d", 3, 3), Pair("a", "c", 5), Pair("b", "d", 5)]
    ratings = rate(pairs)
    assert len(ratings.groups) == 1
    assert {*ratings.groups[0][:2]} == {"a", "b"}
    assert all(math.isfinite(number) for row in rows(ratings).values() for number in row)


def test_long_chain_of_undefeated_subjects_is_rated_in_order() -> None:
    ratings = rate([Pair(f"{i:02}", f"{i + 1:02}", 10**6) for i in range(60)])
    assert list(ratings.groups[0]) == [f"{i:02}" for i in range(61)]


def test_votes_with_diverging_full_newton_steps_are_rated() -> None:
    """Very unequal numbers of contradicting votes, found by search."""
    wins = [
        [0, 0, 0, 100_000, 100],
        [0, 0, 1000, 0, 10],
        [100_000, 1, 0, 100, 100],
        [1, 100, 10, 0, 10],
        [10, 100_000, 0, 100_000, 0],
    ]
    pairs = [
        Pair(str(a), str(b), wins[a][b], wins[b][a]) for a, b in itertools.combinations(range(5), 2)
    ]
    ratings = rate(pairs)
    for a in range(5):  # at the maximum, wins equal expected wins
        expected = sum(
            (wins[a][b] + wins[b][a]) * ratings.difference(str(a), str(b)).win_rate
            for b in range(5)
            if b != a
        )
        assert sum(wins[a]) == pytest.approx(expected, abs=PRIOR_GAMES)


def test_unconnected_subjects_are_rated_separately() -> None:
    pairs = [Pair("x", "y", 1), Pair("a", "b", 8, 2), Pair("c", "b", 2, 8), Pair("d", "e", ties=4)]
    ratings = rate(pairs)
    assert ratings.groups == (("a", "b", "c"), ("d", "e"), ("x", "y"))
    assert [row.group for row in ratings.standings] == [0, 0, 0, 1, 1, 2, 2]
    assert rows(ratings)["x"] == rows(rate(pairs[:1]))["x"]
    for number in range(3):
        mean = np.mean([row.rating for row in ratings.standings if row.group == number])
        assert mean == pytest.approx(MEAN_RATING)
    assert ratings.difference("a", "x") is None
    joined = rate([*pairs, Pair("c", "x", 1, 1)])
    assert {*joined.groups[0]} == set("abcxy")
    assert joined.difference("a", "x") is not None


def test_ends_of_a_chain_are_compared_with_more_uncertainty() -> None:
    ratings = rate([Pair("a", "b", 70, 30), Pair("b", "c", 60, 40)])
    ab, bc, ac = (ratings.difference(*pair) for pair in (("a", "b"), ("b", "c"), ("a", "c")))
    assert ac.points == pytest.approx(ab.points + bc.points)
    variances = [((one.high - one.low) / 2) ** 2 for one in (ab, bc, ac)]
    assert variances[2] == pytest.approx(variances[0] + variances[1], rel=0.02)


def test_subjects_without_votes_are_rejected() -> None:
    ratings = rate([Pair("a", "b", 1)])
    with pytest.raises(KeyError):
        ratings.difference("a", "nobody")
    with pytest.raises(KeyError):
        ratings.difference("nobody", "a")


COUNTS = st.sampled_from([0, 0, 1, 2, 7, 1000, 10**6, 10**9])


@settings(max_examples=200)
@given(
    st.lists(
        st.builds(Pair, st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh"), *[COUNTS] * 4),
        max_size=20,
    )
)
def test_any_votes_give_finite_ratings_around_the_mean(pairs: list[Pair]) -> None:
    ratings = rate(pairs)
    for row in ratings.standings:
        assert math.isfinite(row.rating) and row.low < row.rating < row.high < math.inf
        assert math.isfinite(row.low)
    for number, group in enumerate(ratings.groups):
        of_group = [row for row in ratings.standings if row.group == number]
        assert tuple(row.subject for row in of_group) == group and len(group) > 1
        assert np.mean([row.rating for row in of_group]) == pytest.approx(MEAN_RATING)
        assert of_group == sorted(of_group, key=lambda row: -row.rating)


# Votes needed


@pytest.mark.parametrize(
    "pairs",
    [
        [Pair("a", "b", 12, 9)],
        [Pair("a", "b", 1)],
        [Pair("a", "b", 5, 8, 3), Pair("b", "c", 9, 4), Pair("c", "a", 2, 7)],
        [Pair("a", "c", 6, 4), Pair("c", "b", 6, 4)],
    ],
    ids=["two", "one vote", "three", "never met"],
)
def test_votes_needed_is_the_smallest_sufficient_number(pairs: list[Pair]) -> None:
    now = rate(pairs).difference("a", "b")
    more = now.votes_needed
    assert now.low < 0 < now.high and more > 0

    def after(votes: int) -> tuple[float, float]:
        new = Pair("a", "b", votes * now.win_rate, votes * (1 - now.win_rate))
        found = rate([*pairs, new]).difference("a", "b")
        assert found.points == pytest.approx(now.points, abs=1e-2), "the rate is the present one"
        return found.low, found.high

    low, high = after(more)
    assert low > 0 or high < 0
    low, high = after(more - 1)
    assert low <= 0 <= high


def test_significant_difference_needs_no_more_votes() -> None:
    ratings = rate([Pair("a", "b", 90, 10)])
    assert (
        ratings.difference("a", "b").votes_needed == ratings.difference("b", "a").votes_needed == 0
    )


def test_equal_win_rate_has_no_number_of_votes() -> None:
    assert rate([Pair("a", "b", 10, 10)]).difference("a", "b").votes_needed is None
    assert rate([Pair("a", "b", 1001, 999)]).difference("a", "b").votes_needed is None
    close = rate([Pair("a", "b", 520, 480)]).difference("a", "b").votes_needed
    assert 1000 < close < 2000, "two percentage points take about 2400 votes in all"


def test_small_difference_is_significant_after_many_votes() -> None:
    votes = 10**6
    assert (
        rate([Pair("a", "b", votes * 0.502, votes * 0.498)]).difference("a", "b").votes_needed == 0
    )
