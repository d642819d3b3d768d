"""Answers are timed until their median says something, of near cores where those come about."""

from __future__ import annotations

import pytest

from core.benchmark.stopping import (
    LONGEST_JUDGED_S,
    MOST_ANSWERS,
    MOST_APART,
    PATIENCE_S,
    Enough,
    distance_during,
)

NEAR, FAR = 110.0, 300.0


def answers_until_enough(
    seconds: float, distances: list[float | None], *, wanted: int = 2, nearest: float | None = NEAR
) -> int:
    """Of that length each; the last distance goes on for ever."""
    enough = Enough(wanted, nearest)
    while not enough.reached:
        enough.add(seconds, distances[min(enough.answers, len(distances) - 1)])
    return enough.answers


def test_a_second_of_short_answers_and_as_many_long_ones_as_wanted():
    assert answers_until_enough(0.125, [NEAR]) == 8
    assert answers_until_enough(3.0, [None]) == 2
    assert answers_until_enough(1e-4, [NEAR]) == MOST_ANSWERS


def test_answers_of_cores_apart_come_on_top():
    assert answers_until_enough(0.125, [FAR] * 5 + [NEAR]) == 5 + 8
    assert answers_until_enough(0.125, [None] * 3 + [FAR] * 5 + [NEAR]) == 5 + 8


def test_they_are_taken_when_it_goes_on_for_long():
    assert answers_until_enough(0.5, [FAR]) == PATIENCE_S / 0.5 + 1
    assert answers_until_enough(1e-4, [FAR]) == MOST_APART + 1
    enough = Enough(100, NEAR)
    for _ in range(100):
        assert not enough.reached
        enough.add(0.5, FAR)
    assert enough.reached, "as many as are wanted all the same"


def test_where_nothing_shorter_is_known_far_is_near():
    assert answers_until_enough(0.125, [FAR], nearest=None) == 8
    assert answers_until_enough(0.125, [FAR, NEAR], nearest=None) == 9, "but only the first"


def test_the_nearest_is_learned():
    enough = Enough(1, None)
    assert enough.nearest_ns is None
    for distance in (FAR, NEAR, FAR, None):
        enough.add(0.1, distance)
    assert enough.nearest_ns == NEAR


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
def test_the_longer_of_before_and_after_counts(seconds, before, after, distance):
    assert distance_during(seconds, before, after) == distance
