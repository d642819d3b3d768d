"""Tests of a model's default sampling settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.runtimes.sampling import default_sampling
from core.runtimes.spec import SamplingSettings
from core.settings import Settings
from core.store import ModelStore

USUAL = SamplingSettings()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(Settings(home=tmp_path / "home"))


def sampled(temperature: float = 0.8, top_p: float = 0.92, top_k: int = 0) -> SamplingSettings:
    return SamplingSettings(temperature=temperature, top_p=top_p, top_k=top_k)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("smollm2-135m-instruct", sampled(0.2, 0.9)),
        ("paddock-neox", USUAL),
        ("phi-2", USUAL),
        ("no such model", USUAL),
        ("remote:lab/qwen", USUAL),
    ],
)
def test_model_card_takes_precedence_over_the_defaults(
    store: ModelStore, model: str, expected: SamplingSettings
) -> None:
    assert default_sampling(store, model) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"temperature": 0.7, "top_p": 0.8, "top_k": 20, "do_sample": True}, sampled(0.7, 0.8, 20)),
        ({"temperature": 0.6}, sampled(0.6)),
        ({"do_sample": False}, SamplingSettings(greedy=True)),
        ({"temperature": 0.0}, SamplingSettings(greedy=True)),
        ({"top_k": 1000, "top_p": 0.0, "temperature": 99}, sampled(5.0, 0.05, 1000)),
        ({"top_p": "much", "top_k": None, "temperature": True}, USUAL),
        ([1], USUAL),
        ("{", USUAL),
    ],
)
def test_generation_config_gives_the_defaults_of_a_local_model(
    store: ModelStore,
    checkpoints: Callable[..., Path],
    tmp_path: Path,
    found: Any,
    expected: SamplingSettings,
) -> None:
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "mine"))
    text = found if isinstance(found, str) else json.dumps(found)
    (folder / "generation_config.json").write_text(text, encoding="utf-8")
    assert default_sampling(store, store.name(str(folder))) == expected
