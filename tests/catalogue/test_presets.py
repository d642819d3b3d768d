"""Tests of the example instructions of the Instruct page."""

from __future__ import annotations

from collections import Counter

import pytest

from core.catalogue.presets import CATEGORIES, TITLE_LENGTH, presets

# A distinctive phrase of each of the ten instructions of the original demo.
SUBJECTS = (
    "pineapple",
    "OpenVINO release",
    "GPU",
    "five things a family",
    "androids",
    "Dolly",
    "résumé",
    "three advantages of being a cat",
    "AI engineer",
    "love letter",
)
NEED_CONTEXT = {"closed_qa", "information_extraction", "summarization"}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_subject_of_the_original_demo_has_a_preset(subject: str) -> None:
    assert sum(subject in preset.instruction for preset in presets()) == 1


def test_every_category_has_two_presets_or_more() -> None:
    counts = Counter(preset.category for preset in presets())
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) >= 2


def test_titles_are_short_and_unique() -> None:
    titles = [preset.title for preset in presets()]
    assert len(set(titles)) == len(titles)
    assert all(0 < len(title) <= TITLE_LENGTH for title in titles)


def test_instructions_about_a_passage_have_a_context() -> None:
    for preset in presets():
        if preset.category in NEED_CONTEXT:
            assert len(preset.context.split()) >= 20, preset.title
        assert preset.instruction == preset.instruction.strip() != ""
        assert preset.context == preset.context.strip()
