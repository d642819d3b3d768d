"""Tests of the distribution of the next token, and of the probabilities that a model computes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from core.errors import BadRequestError, ModelBusyError
from core.inference.contention import MONITOR
from core.inference.distribution import (
    distribution,
    kl_divergence,
    log_softmax,
    order_changes,
    softmax,
)
from core.inference.token_probabilities import probabilities
from core.runtimes.genai import GenAIRuntime
from core.runtimes.logits import PIECE_TOKENS, logits_spec
from core.runtimes.spec import GenAIOptions, ModelSpec, SamplingSettings, TokenRequest

CAT = np.log([0.5, 0.25, 0.15, 0.05, 0.05])
"""The cat is: playing, sleeping, eating, driving, flying."""
TEXTS = (
    "The cat is",
    "a",
    "Where does the river go?",
    "one two three " * 80,
    "don't stop",
    "7 + 5 =",
    "Die Katze ist",
    "naïve café 🙂",
    "\n\n### Response:\n",
    "<|endoftext|>The end",
)


def settings(**given: float) -> SamplingSettings:
    return SamplingSettings(**{"temperature": 1.0, "top_p": 1.0} | given)


@pytest.mark.parametrize(
    ("given", "kept", "mass"),
    [
        ({}, 5, 1.0),
        ({"top_p": 0.45}, 1, 0.5),
        ({"top_p": 0.8}, 3, 0.9),
        ({"top_k": 3}, 3, 0.9),
        ({"top_k": 2, "top_p": 0.6}, 1, 0.5),  # top-k first: playing then has two thirds
        ({"greedy": True}, 1, 0.5),
        ({"top_k": 4}, 4, 0.95),  # of equal tokens the first one
    ],
)
def test_cut_offs_of_the_cat(given: dict, kept: int, mass: float):
    found = distribution(CAT, settings(**given))
    assert found.kept.tolist() == list(range(kept))
    assert found.kept_mass == pytest.approx(mass, abs=1e-6)
    assert found.drawn.sum() == pytest.approx(1)
    assert set(np.flatnonzero(found.draw(1000, seed=1))) <= set(range(kept))


def test_min_p_temperature_and_penalty_of_the_cat():
    assert distribution(CAT, settings(), min_p=0.29).kept.tolist() == [0, 1, 2]
    assert distribution(CAT, settings(temperature=0.2)).tempered[0] > 0.96
    assert distribution(CAT, settings(temperature=5.0)).tempered[0] < 0.3
    penalised = distribution(CAT, settings(repetition_penalty=2.5), earlier=[0, 0, 0])
    assert penalised.order[0] == 1, "a token that was used before is penalised once"


def test_a_slider_is_computed_in_20_ms():
    logits = np.random.default_rng(0).normal(0, 3, 49_152).astype(np.float32)
    times = []
    for _ in range(10):
        started = time.thread_time()  # of this thread: other work does not count
        distribution(logits, settings(temperature=0.8, top_p=0.92), min_p=0.01, earlier=range(100))
        times.append(time.thread_time() - started)
    assert min(times) < 0.02


def test_divergence_and_order_of_two_models():
    other = np.log([0.25, 0.5, 0.15, 0.05, 0.05])
    assert kl_divergence(CAT, CAT) == 0
    assert kl_divergence(CAT, other) == pytest.approx(0.25 * np.log(2))
    assert [tuple(each) for each in order_changes(CAT, other, 5)] == [(0, 1, 2), (1, 2, 1)]


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_probabilities_equal_those_of_transformers(architecture, engine, spec_of, checkpoints):
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(checkpoints(architecture)).eval()
    with engine.logits(spec_of(architecture)) as model:
        for text in TEXTS:
            ids = model.tokenizer(text)["input_ids"]
            with torch.inference_mode():
                wanted = softmax(reference(torch.tensor([ids])).logits[0].numpy())
            rows = np.concatenate(list(model.rows(ids, 1)))
            assert rows.shape == wanted.shape
            assert np.abs(softmax(rows) - wanted).max() < 1e-3
            assert softmax(rows).sum(axis=-1) == pytest.approx(1)
            found = probabilities(model, ids, 1, 5)
            expected = [row[token] for row, token in zip(log_softmax(rows), ids[1:], strict=False)]
            assert [each.log_probability for each in found] == pytest.approx(expected, abs=1e-4)
            assert all(
                each.alternatives[0].token.id == row.argmax()
                for each, row in zip(found, rows, strict=False)
            )
            # Going on, going back and another branch give what the whole text gives.
            for branch in (ids, [*ids, 7], [*ids, 7, 9], ids, [*ids, 8]):
                step = softmax(model.next_logits(branch))
                model._request.reset_state()
                model._read.clear()
                assert np.abs(step - softmax(model.next_logits(branch))).max() < 1e-4


def test_the_kept_tokens_are_those_that_genai_draws(engine, spec_of):
    """The same with 10 000 draws for many settings: ``check_distribution.py``."""
    spec = logits_spec(spec_of("llama"))
    stored = engine.store.get(engine.store.resolve(spec.model), spec.precision)
    genai = GenAIRuntime().load(
        stored.folder, ModelSpec(spec.model, spec.precision, "CPU", hints=spec.hints)
    )
    sampling = settings(
        temperature=0.7, top_p=0.6, top_k=6, repetition_penalty=1.2, max_new_tokens=1
    )
    with engine.logits(spec) as model:
        ids = tuple(model.tokenizer("The cat is")["input_ids"])
        found = distribution(model.next_logits(ids), sampling, min_p=0.3, earlier=ids)
    drawn: set[int] = set()
    for seed in range(60):
        request = TokenRequest(
            ids,
            SamplingSettings(**vars(sampling) | {"seed": seed}),
            options=GenAIOptions(min_p=0.3),
        )
        genai.generate(request, lambda token: not drawn.add(int(token)))
    genai.close()
    assert 1 < len(found.kept) < 6
    assert drawn == set(found.kept.tolist())


def test_the_pool_counts_it_and_measurements_are_not_disturbed(engine, spec_of):
    spec = spec_of("llama")
    with engine.logits(spec) as model:
        assert engine.named(logits_spec(spec)) in {
            info.spec for info in engine.pool.loaded() if info.in_use
        }
        long = [1] * (model.positions + 1)
        with pytest.raises(BadRequestError, match="context length"):
            model.next_logits(long)
        assert model.positions > PIECE_TOKENS
    with (
        MONITOR.running(measured=True),
        pytest.raises(ModelBusyError, match="benchmark"),
        engine.logits(spec),
    ):
        pass
    with pytest.raises(BadRequestError, match="Remote"):
        logits_spec(ModelSpec.of_remote("remote:box/model"))
    assert engine.pool.unload(engine.named(logits_spec(spec)))
