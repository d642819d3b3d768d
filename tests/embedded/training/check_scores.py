"""How well the included weights answer the presets and held-out examples of the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.catalogue.presets import presets
from core.embedded.tasks import CATEGORIES, ScoredAnswer
from core.embedded.training.corpus import preset_examples
from core.embedded.training.evaluate import Answerer, refusal_rate, score
from core.embedded.training.held_out import held_out
from core.embedded.training.models import EMBEDDED_MODELS, end_ids
from core.settings import Settings
from core.store import ModelStore, resolve

KEYS = list(EMBEDDED_MODELS)
SAMPLED_WRONG = 0
"""Presets that may fail at the default sampling."""
LONG_ANSWERS = 3
"""Presets with 150 tokens or more, greedily."""
FEWEST_DECLINED = 34
"""Of 40 held-out out-of-scope instructions; two below what the weights reach, like the minimums."""
EXAMPLES = 40
"""Held-out examples of a category for the minimums below."""
MINIMUM = {
    "paddock-neox": {
        "closed_qa": 34,
        "information_extraction": 35,
        "brainstorming": 35,
        "classification": 38,
    },
    "paddock-llama": {
        "closed_qa": 34,
        "information_extraction": 38,
        "brainstorming": 38,
        "classification": 38,
    },
}
"""Correct answers, two below what the weights reach: arithmetic differs between machines."""
HIGHEST_REFUSAL_RATE = 0.05


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of such a small network wait for each other longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def answerer(key: str) -> Answerer:
    return Answerer.from_checkpoint(EMBEDDED_MODELS[key], EMBEDDED_MODELS[key].folder)


def scored_presets(key: str, seed: int | None) -> list[tuple[str, ScoredAnswer]]:
    by_question = {(each.instruction, each.context): each for each in preset_examples()}
    tasks = [by_question[preset.instruction, preset.context] for preset in presets()]
    scored = score(answerer(key), tasks, seed)
    return list(zip((preset.title for preset in presets()), scored, strict=True))


@pytest.mark.parametrize("key", KEYS)
def test_presets_are_answered_correctly_greedily(key: str) -> None:
    scored = scored_presets(key, seed=None)
    wrong = {title: each.answer for title, each in scored if not each.correct}
    assert not wrong
    tokenizer = answerer(key).tokenizer
    long = sum(len(tokenizer(each.answer).input_ids) >= 150 for _, each in scored)
    assert long >= LONG_ANSWERS
    assert all(each.ended for _, each in scored)


@pytest.mark.parametrize("key", KEYS)
def test_presets_are_answered_correctly_at_the_default_sampling(key: str) -> None:
    scored = scored_presets(key, seed=11)
    wrong = {title: each.answer for title, each in scored if not each.correct}
    assert len(wrong) <= SAMPLED_WRONG, wrong


@pytest.mark.parametrize("key", KEYS)
def test_out_of_scope_instructions_are_declined_and_others_are_not(key: str) -> None:
    declined = score(answerer(key), held_out("out_of_scope", 40))
    assert sum(each.correct for each in declined) >= FEWEST_DECLINED
    in_scope = [each for name in CATEGORIES[:-1] for each in held_out(name, 4)]
    assert refusal_rate(score(answerer(key), in_scope)) <= HIGHEST_REFUSAL_RATE


@pytest.mark.parametrize(
    ("key", "category"), [(key, name) for key in MINIMUM for name in MINIMUM[key]]
)
def test_held_out_examples_are_answered_correctly(key: str, category: str) -> None:
    scored = score(answerer(key), held_out(category, EXAMPLES))
    assert sum(each.correct for each in scored) >= MINIMUM[key][category]


@pytest.mark.parametrize("precision", [Precision.INT4])
@pytest.mark.parametrize("key", KEYS)
def test_each_precision_converts_and_answers(
    key: str, precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    stored = ModelStore(Settings(home=tmp_path)).ensure(resolve(key), precision)
    assert stored.precision is precision
    model = EMBEDDED_MODELS[key]
    loaded = Answerer.from_store(model, precision)
    assert loaded.end_ids == end_ids(model, loaded.tokenizer)
    (index, text, ended) = next(iter(loaded.answers([("Who is Dolly?", "")])))
    assert index == 0 and ended and "Databricks" in text
