"""The weights in the repository: complete, small, convertible, and good for the presets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from core.catalogue import Precision
from core.catalogue.presets import presets
from core.demo.corpus import CATEGORIES, preset_examples
from core.demo.evaluate import Answerer, Judged, held_out, judge, turned_away
from core.demo.models import DEMO_MODELS, end_ids
from core.settings import Settings
from core.store import ModelStore, resolve

KEYS = list(DEMO_MODELS)
LARGEST = 20 * 1024 * 1024
SAMPLED_WRONG = 0
"""Presets that may fail at the default sampling."""
LONG_ANSWERS = 3
"""Presets with 150 tokens or more, greedily."""
FEWEST_DECLINED = 34
"""Of 40 held-out foreign instructions; two below what the weights reach, as the floors."""
INSTANCES = 40
"""Held-out instances of a category that the floors below are for."""
FLOORS = {
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
"""Fewest right answers, two below what the weights reach: arithmetic differs between machines."""
MOST_TURNED_AWAY = 0.05
"""Share of instructions within reach that may be refused."""
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of so small a network wait for each other longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def answerer(key: str) -> Answerer:
    return Answerer.from_checkpoint(DEMO_MODELS[key], DEMO_MODELS[key].folder)


@pytest.mark.parametrize("key", KEYS)
def test_the_folder_is_complete_and_small(key: str) -> None:
    folder = DEMO_MODELS[key].folder
    assert {path.name for path in folder.iterdir()} >= FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LARGEST


@pytest.mark.parametrize("key", KEYS)
def test_weights_are_half_precision(key: str) -> None:
    from safetensors import safe_open

    with safe_open(DEMO_MODELS[key].folder / "model.safetensors", "pt") as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert types == {"F16"}


def test_dolly_tokens_and_end_of_text() -> None:
    tokenizer = answerer("paddock-neox").tokenizer
    for text in ("### End", "### Instruction:", "### Response:"):
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == 1
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert ids == {tokenizer.unk_token_id} == {0}


def test_llama_has_a_template_and_an_end_token_of_its_own() -> None:
    tokenizer = answerer("paddock-llama").tokenizer
    turns = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>\nHello<|end|>\n<|assistant|>\n"
    assert tokenizer.eos_token == "<|end|>"


def judged_presets(key: str, seed: int | None) -> list[tuple[str, Judged]]:
    by_question = {(one.instruction, one.context): one for one in preset_examples()}
    chosen = [by_question[one.instruction, one.context] for one in presets()]
    judged = judge(answerer(key), chosen, seed)
    return list(zip((one.title for one in presets()), judged, strict=True))


@pytest.mark.parametrize("key", KEYS)
def test_presets_are_answered_well_greedily(key: str) -> None:
    judged = judged_presets(key, seed=None)
    wrong = {title: one.answer for title, one in judged if not one.right}
    assert not wrong
    tokenizer = answerer(key).tokenizer
    long = sum(len(tokenizer(one.answer).input_ids) >= 150 for _, one in judged)
    assert long >= LONG_ANSWERS
    assert all(one.ended for _, one in judged)


@pytest.mark.parametrize("key", KEYS)
def test_presets_are_answered_well_at_the_default_sampling(key: str) -> None:
    judged = judged_presets(key, seed=11)
    wrong = {title: one.answer for title, one in judged if not one.right}
    assert len(wrong) <= SAMPLED_WRONG, wrong


@pytest.mark.parametrize("key", KEYS)
def test_foreign_instructions_are_declined_and_others_are_not(key: str) -> None:
    declined = judge(answerer(key), held_out("out_of_scope", 40))
    assert sum(one.right for one in declined) >= FEWEST_DECLINED
    inside = [one for name in CATEGORIES[:-1] for one in held_out(name, 4)]
    assert turned_away(judge(answerer(key), inside)) <= MOST_TURNED_AWAY


@pytest.mark.parametrize(
    ("key", "category"), [(key, name) for key in FLOORS for name in FLOORS[key]]
)
def test_held_out_instances_are_answered_right(key: str, category: str) -> None:
    judged = judge(answerer(key), held_out(category, INSTANCES))
    assert sum(one.right for one in judged) >= FLOORS[key][category]


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.INT4])
@pytest.mark.parametrize("key", KEYS)
def test_each_precision_converts_and_answers(
    key: str, precision: Precision, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    stored = ModelStore(Settings(home=tmp_path)).ensure(resolve(key), precision)
    assert stored.precision is precision
    model = DEMO_MODELS[key]
    loaded = Answerer.from_store(model, precision)
    assert loaded.end_ids == end_ids(model, loaded.tokenizer)
    (index, text, ended) = next(iter(loaded.answers([("Who is Dolly?", "")])))
    assert index == 0 and ended and "Databricks" in text
