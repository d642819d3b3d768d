"""The corpus: deterministic, correct by its own rules, with disjoint splits."""

from __future__ import annotations

from itertools import islice

import pytest

from core.embedded.training.corpus import CATEGORIES, Example, Split, examples, is_refusal
from core.embedded.training.corpus.made_up import LONGEST, made_up_text
from core.embedded.training.corpus.out_of_scope import wordings_of
from core.embedded.training.corpus.source import Source, held_out_value, held_out_wordings

TRAIN, HELD_OUT = Split.TRAIN, Split.HELD_OUT


def drawn(split: Split, category: str | None, count: int, seed: int = 1) -> list[Example]:
    return list(islice(examples(seed, split, category), count))


def test_the_same_seed_gives_the_same_examples() -> None:
    assert drawn(TRAIN, None, 300) == drawn(TRAIN, None, 300)
    assert drawn(TRAIN, None, 300) != drawn(TRAIN, None, 300, seed=2)


def test_the_mixture_contains_every_category() -> None:
    assert {one.category for one in drawn(TRAIN, None, 1000)} == set(CATEGORIES)


@pytest.mark.parametrize("split", list(Split))
@pytest.mark.parametrize("category", CATEGORIES)
def test_answers_pass_their_own_rules(category: str, split: Split) -> None:
    for one in drawn(split, category, 300):
        assert one.check.passes(one.answer), one
        assert one.instruction.strip() and "{" not in one.answer, one


@pytest.mark.parametrize("category", CATEGORIES)
def test_held_out_wordings_never_occur_in_training(category: str) -> None:
    trained = {one.wording for one in drawn(TRAIN, category, 6000)}
    held_out = {one.wording for one in drawn(HELD_OUT, category, 600)}
    assert len(held_out) >= 3
    assert not trained & held_out


@pytest.mark.parametrize("category", ["closed_qa", "summarization", "classification"])
def test_held_out_values_never_occur_in_training(category: str) -> None:
    trained = {value for one in drawn(TRAIN, category, 4000) for value in one.values}
    held_out = {value for one in drawn(HELD_OUT, category, 400) for value in one.values}
    assert not trained & held_out
    assert len(held_out) > 100


def test_names_for_training_are_not_held_out() -> None:
    source = Source(3, TRAIN)
    names = [source.value(lambda: source.choice(["Anna", "Bela", "Cora", "Dora", "Edda", "Fritz"]))]
    assert not any(held_out_value(name) for name in names)


@pytest.mark.parametrize("category", CATEGORIES)
def test_polite_forms_in_training_are_not_held_out_wordings(category: str) -> None:
    held_out = {one.wording for one in drawn(HELD_OUT, category, 300)}
    for one in drawn(TRAIN, category, 1500):
        for polite in ("Please ", "Can you ", "Could you ", "Would you "):
            asked = polite + one.wording[:1].lower() + one.wording[1:]
            if one.instruction.startswith(asked.partition("{")[0]):
                assert not {asked, asked[:-1] + "?"} & held_out, one


def test_held_out_examples_share_no_instruction_with_training() -> None:
    trained = {(one.instruction, one.context) for one in drawn(TRAIN, None, 8000)}
    for category in CATEGORIES:
        same = [
            one
            for one in drawn(HELD_OUT, category, 200)
            if (one.instruction, one.context) in trained
        ]
        assert not same, same[:3]


def test_a_replaced_noun_is_replaced_everywhere() -> None:
    about = [one for one in drawn(TRAIN, "closed_qa", 3000) if "e bakery" in one.context]
    assert len(about) > 5
    for one in about:
        assert "café" not in one.context + one.instruction + one.answer


def test_a_claim_is_answered_with_what_the_passage_says() -> None:
    claims = [one for one in drawn(TRAIN, "closed_qa", 3000) if "{s}" in one.wording]
    assert len(claims) > 60
    for one in claims:
        assert one.check.needs[0][0] in one.context or not one.context
        assert not one.answer.startswith(("Yes", "No,"))


def test_out_of_scope_families_are_in_one_split_only() -> None:
    assert not wordings_of(TRAIN) & wordings_of(HELD_OUT)
    assert len(wordings_of(TRAIN)) > 300
    assert len(wordings_of(HELD_OUT)) > 60


def test_a_short_list_of_wordings_is_shared() -> None:
    assert held_out_wordings(["a", "b"]) == []
    assert held_out_wordings(list("abcdefghijkl")) == ["d", "k"]


def test_long_made_up_texts_are_declined_and_occur_in_training_only() -> None:
    trained = [one for one in drawn(TRAIN, "out_of_scope", 3000) if one.wording == "made up"]
    assert not [one for one in drawn(HELD_OUT, "out_of_scope", 300) if one.wording == "made up"]
    assert all(one.check.refusal and is_refusal(one.answer) for one in trained)
    asked = [one.instruction + one.context for one in trained]
    assert len(set(asked)) == len(asked) > 800
    assert sum(len(text) > LONGEST / 2 for text in asked) > len(asked) / 8
    assert not any("{" + slot + "}" in text for text in asked for slot in "nfFvVmMNwW")


def test_a_made_up_text_is_reproducible_and_within_its_length() -> None:
    texts, again = ([made_up_text(Source(seed, TRAIN)) for seed in range(60)] for _ in range(2))
    assert texts == again
    assert all(0 < len(text) <= LONGEST for text in texts)
