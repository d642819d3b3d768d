"""Compares the distribution with 10 000 draws of OpenVINO GenAI for each setting; takes minutes."""

from __future__ import annotations

from itertools import product

import numpy as np
import openvino
import pytest

from core.catalogue import Precision
from core.inference.distribution import Distribution, distribution
from core.runtimes.genai import GenAIRuntime
from core.runtimes.logits import LogitsRuntime, logits_spec
from core.runtimes.spec import GenAIOptions, ModelSpec, SamplingSettings, TokenRequest
from core.settings import Settings
from core.store import ModelStore

DRAWS = 10_000
BATCH = 250
TEXTS = ("The cat is", "An idea for the weekend is", "the the the")
SETTINGS = [
    {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "penalty": penalty}
    for temperature, top_p, top_k, min_p, penalty in (
        *product((0.5, 1.0, 2.5), (0.6, 0.92, 1.0), (0,), (0.0,), (1.0,)),
        *product((1.0, 2.5), (0.6, 1.0), (3, 20), (0.0, 0.1), (1.0,)),
        (1.7, 1.0, 0, 0.05, 1.0),
        (1.7, 0.9, 0, 0.02, 1.0),
        (2.0, 0.9, 10, 0.02, 1.3),
        (2.0, 0.8, 0, 0.0, 1.8),
        (2.0, 0.8, 0, 0.0, 0.7),
    )
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    store = ModelStore(Settings(home=home))
    stored = store.ensure(store.resolve("paddock-neox"), Precision.FP32)
    spec = ModelSpec("paddock-neox", Precision.FP32, "CPU")
    exact = logits_spec(spec)
    genai = GenAIRuntime(at_once=64).load(
        stored.folder, ModelSpec(**vars(spec) | {"hints": exact.hints})
    )
    yield genai, LogitsRuntime().load(stored.folder, exact)
    genai.close()


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_kept_tokens_are_those_that_are_drawn(setting: dict, models):
    genai, logits = models
    for text in TEXTS:
        ids = logits.tokenizer(text)["input_ids"]
        sampling = SamplingSettings(
            temperature=setting["temperature"],
            top_p=setting["top_p"],
            top_k=setting["top_k"],
            repetition_penalty=setting["penalty"],
            max_new_tokens=1,
        )
        found = distribution(logits.next_logits(ids), sampling, min_p=setting["min_p"], earlier=ids)
        counts = np.zeros(len(found.drawn), dtype=np.int64)
        for token in draws(genai, ids, sampling, setting["min_p"]):
            counts[token] += 1
        check(found, counts)


def draws(genai, ids: list[int], sampling: SamplingSettings, min_p: float) -> list[int]:
    """Draw with GenAI; each request returns several first tokens."""
    from core.runtimes.genai import _generation_config

    request = TokenRequest(tuple(ids), sampling, options=GenAIOptions(min_p=min_p))
    found: list[int] = []
    tensor = openvino.Tensor(np.asarray([ids], dtype=np.int64))
    while len(found) < DRAWS:
        handles = []
        for number in range(BATCH):
            config = _generation_config(request, frozenset())
            config.rng_seed = len(found) + number
            handles.append(genai._pipeline.add_request(number, tensor, config))
        while genai._pipeline.has_non_finished_requests():
            genai._pipeline.step()
        found += [handle.read_all()[0].generated_ids[0] for handle in handles]
    return found


def check(found: Distribution, counts: np.ndarray) -> None:
    drawn = set(np.flatnonzero(counts).tolist())
    kept = set(found.kept.tolist())
    assert drawn <= kept
    # A token that is expected 20 times is missing once in 500 million.
    assert {token for token in kept if found.drawn[token] * DRAWS >= 20} <= drawn
    expected = found.drawn * DRAWS
    deviation = np.abs(counts - expected) / np.sqrt(np.maximum(expected, 1))
    assert deviation.max() < 6
