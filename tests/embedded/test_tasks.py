"""The frozen held-out tasks, and the rules that answers are scored by."""

from __future__ import annotations

from collections import Counter

import pytest

from core.embedded.tasks import (
    CATEGORIES,
    Check,
    ScoredAnswer,
    accuracy,
    held_out_tasks,
    held_out_texts,
    is_refusal,
)


def test_every_category_has_as_many_tasks_and_texts() -> None:
    tasks, texts = held_out_tasks(), held_out_texts()
    assert Counter(task.category for task in tasks) == dict.fromkeys(CATEGORIES, 25)
    assert Counter(text.category for text in texts) == dict.fromkeys(CATEGORIES, 4)
    assert not set(tasks) & set(texts)


def test_reference_answers_are_scored_as_correct_and_empty_ones_are_not() -> None:
    for task in (*held_out_tasks(), *held_out_texts()):
        assert task.check.passes(task.answer), task
    tasks = held_out_tasks()
    assert accuracy([ScoredAnswer(task, task.answer, ended=True) for task in tasks]) == 1
    assert accuracy([ScoredAnswer(task, task.answer, ended=False) for task in tasks]) == 0
    assert accuracy([ScoredAnswer(task, "", ended=True) for task in tasks]) == 0


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (Check(needs=(("Oslo",),)), "It is Oslo.", "It is Rome."),
        (Check(needs=(("Oslo",),), forbids=("Rome",)), "Oslo.", "Oslo or Rome."),
        (Check(count=2, pool=("a", "b", "c")), "1. a\n2. c", "1. a\n2. a"),
        (Check(count=2, pool=("a", "b", "c")), "1. a\n2. c", "1. a\n2. b\n3. c"),
        (Check(count=1, pool=("a",)), "1. a", "1. x"),
        (Check(lines=("- a: x", "- b: y")), "- b: y\n- a: x", "- a: x"),
        (Check(words=(3, 5)), "one two three", "one two"),
        (Check(said_in="the Owl, 1990"), "The Owl of 1990.", "The Owl of 2001."),
        (Check(said_in="the Owl in Oslo"), "The Owl is in Oslo.", "The Owl is in Rome."),
        (Check(refusal=True), "I am only a tiny demonstration model.", "The answer is 42."),
        (Check(), "The answer is 42.", "Sorry, I am just a tiny demonstration model."),
    ],
)
def test_a_check_passes_correct_answers_only(check: Check, right: str, wrong: str) -> None:
    assert check.passes(right)
    assert not check.passes(wrong)


def test_a_self_introduction_is_no_refusal() -> None:
    assert not is_refusal("I am a tiny demonstration model that comes with Paddock.")
    assert is_refusal(
        "Sorry, I cannot help with that. As a tiny demonstration model I know little."
    )
