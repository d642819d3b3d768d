"""Answers are timed until their median is meaningful, if possible with low core-to-core latency."""

from __future__ import annotations

import pytest

from core.benchmark.stopping import (
    LONGEST_JUDGED_S,
    MAX_DISTURBED,
    MOST_ANSWERS,
    PATIENCE_S,
    StoppingRule,
    latency_during,
)

NEAR, FAR = 110.0, 300.0


def answers_until_enough(
    seconds: float, distances: list[float | None], *, wanted: int = 2, nearest: float | None = NEAR
) -> int:
    """Of that length each; the last distance goes on for ever."""
    rule = StoppingRule(wanted, nearest)
    while not rule.reached:
        rule.add(seconds, distances[min(rule.answers, len(distances) - 1)])
    return rule.answers


def test_a_second_of_short_answers_or_the_requested_long_ones():
    assert answers_until_enough(0.125, [NEAR]) == 8
    assert answers_until_enough(3.0, [None]) == 2
    assert answers_until_enough(1e-4, [NEAR]) == MOST_ANSWERS


def test_answers_with_high_latency_do_not_count():
    assert answers_until_enough(0.125, [FAR] * 5 + [NEAR]) == 5 + 8
    assert answers_until_enough(0.125, [None] * 3 + [FAR] * 5 + [NEAR]) == 5 + 8


def test_answers_with_lasting_high_latency_count():
    assert answers_until_enough(0.5, [FAR]) == PATIENCE_S / 0.5 + 1
    assert answers_until_enough(1e-4, [FAR]) == MAX_DISTURBED + 1
    rule = StoppingRule(100, NEAR)
    for _ in range(100):
        assert not rule.reached
        rule.add(0.5, FAR)
    assert rule.reached, "as many as are wanted all the same"


def test_without_a_lower_latency_none_is_high():
    assert answers_until_enough(0.125, [FAR], nearest=None) == 8
    assert answers_until_enough(0.125, [FAR, NEAR], nearest=None) == 9, "but only the first"


def test_lowest_latency_is_remembered():
    rule = StoppingRule(1, None)
    assert rule.nearest_ns is None
    for distance in (FAR, NEAR, FAR, None):
        rule.add(0.1, distance)
    assert rule.nearest_ns == NEAR


@pytest.mark.parametrize(
    ("seconds", "before", "after", "distance"),
    [
        (0.1, NEAR, NEAR + 3, NEAR + 3),
        (0.1, FAR, NEAR, FAR),
        (0.1, None, NEAR, None),
        (0.1, NEAR, None, None),
        (LONGEST_JUDGED_S, FAR, FAR, FAR),
        (LONGEST_JUDGED_S + 0.01, FAR, FAR, None),
    ],
)
def test_higher_of_before_and_after_counts(seconds, before, after, distance):
    assert latency_during(seconds, before, after) == distance
