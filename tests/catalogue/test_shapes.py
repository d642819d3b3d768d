"""Tests of parameter counts and configurations against transformers' models without weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.catalogue import Shape, benchmark_shapes, catalogue
from core.catalogue.shapes import (
    active_share,
    parameter_count,
    shape_from_config,
    transformers_config,
)

SHAPES = {key: (row.architecture, row.shape) for key, row in catalogue().items()}
SHAPES |= benchmark_shapes()


def config_of(architecture: str, shape: Shape) -> object:
    return AutoConfig.for_model(**transformers_config(architecture, shape))


@pytest.mark.parametrize("name", SHAPES)
def test_parameter_count_matches_the_model(name: str):
    architecture, shape = SHAPES[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(architecture, shape))
    assert parameter_count(architecture, shape) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "phi", "mistral"])
def test_parameter_count_with_tied_embeddings(architecture: str):
    shape = Shape(64, 2, 4, 4, 96, 300, 128, tied_embeddings=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(architecture, shape))
    assert parameter_count(architecture, shape) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", SHAPES)
def test_shape_round_trips_through_config_json(name: str, tmp_path: Path):
    architecture, shape = SHAPES[name]
    config_of(architecture, shape).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert shape_from_config(written) == shape


@pytest.mark.parametrize(
    ("settings", "fraction", "theta"),
    [
        ({"model_type": "gpt_neox", "rotary_pct": 0.25, "rotary_emb_base": 20000}, 0.25, 20000),
        ({"model_type": "phi", "partial_rotary_factor": 0.4, "rope_theta": 5e5}, 0.4, 5e5),
    ],
)
def test_config_json_of_earlier_releases(settings: dict, fraction: float, theta: float):
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 300,
        "max_position_embeddings": 128,
    }
    shape = shape_from_config(sizes | settings)
    assert (shape.rotary_fraction, shape.rope_theta) == (fraction, theta)
    assert shape.parallel_residual == (settings["model_type"] == "gpt_neox")


def test_published_sizes():
    rows = catalogue()
    assert rows["dolly-v2-3b"].parameters == pytest.approx(2.775e9, rel=1e-3)
    assert rows["tiny-llama-1b-chat"].parameters == pytest.approx(1.1e9, rel=1e-2)
    assert rows["phi-2"].parameters == pytest.approx(2.78e9, rel=1e-2)
    assert rows["mistral-7b"].parameters == pytest.approx(7.24e9, rel=1e-2)
    assert rows["llama-3-8b-instruct"].parameters == pytest.approx(8.03e9, rel=1e-2)
    assert rows["llama-3.2-1b-instruct"].parameters == pytest.approx(1.23e9, rel=1e-2)
    assert rows["llama-3.2-3b-instruct"].parameters == pytest.approx(3.21e9, rel=1e-2)
    assert rows["gemma-3-270m-it"].parameters == pytest.approx(268e6, rel=1e-2)
    assert rows["qwen3-0.6b"].parameters == pytest.approx(0.6e9, rel=2e-2)
    assert rows["qwen3-8b"].parameters == pytest.approx(8.19e9, rel=1e-2)
    assert rows["phi-4-mini-instruct"].parameters == pytest.approx(3.84e9, rel=1e-2)
    assert rows["gpt-oss-20b"].parameters == pytest.approx(20.9e9, rel=1e-2)


MIXTURES = {
    "Mixtral-8x7B": (46.7e9, 12.9e9, (4096, 32, 14336, 32000), {"num_local_experts": 8}, 2, 0),
    "Qwen1.5-MoE-A2.7B": (14.3e9, 2.7e9, (2048, 24, 5632, 151936), {"num_experts": 60}, 4, 1408),
    "Qwen3-30B-A3B": (30.5e9, 3.3e9, (2048, 48, 6144, 151936), {"num_experts": 128}, 8, 768),
    "GLM-4.5-Air": (106e9, 12e9, (4096, 46, 10944, 151552), {"n_routed_experts": 128}, 8, 1408),
}
"""Published parameters, the active ones, sizes, experts, active experts, width of an expert."""


@pytest.mark.parametrize("name", MIXTURES)
def test_active_parameters_of_a_mixture_of_experts_are_those_published(name: str):
    total, active, sizes, experts, chosen, width = MIXTURES[name]
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
    config = dict(zip(names, sizes, strict=True)) | experts | {"num_experts_per_tok": chosen}
    config |= {"num_attention_heads": 16, "max_position_embeddings": 4096}
    config |= {"moe_intermediate_size": width} if width else {}
    shape = shape_from_config(config)
    embeddings = shape.vocabulary * shape.hidden
    share = active_share(shape, int(total))
    assert embeddings + share * (total - embeddings) == pytest.approx(active, rel=0.15)


def test_matrices_without_idle_experts_are_read_completely():
    row = catalogue()["gpt-oss-20b"]
    matrices = row.parameters - row.shape.vocabulary * row.shape.hidden
    share = active_share(row.shape, row.parameters)
    assert share * matrices == pytest.approx(3.6e9, rel=5e-3)  # as published
    assert active_share(catalogue()["qwen3-8b"].shape, 8_190_000_000) == 1
    assert active_share(None, 0) == 1
    small = replace(row.shape, intermediate=10 * row.shape.intermediate)
    assert 0 < active_share(small, row.parameters) < 0.2  # the sizes contradict the count


def test_embeddings_that_a_released_configuration_does_not_mention(tmp_path: Path):
    architecture, shape = SHAPES["gemma-3-1b-it"]
    config_of(architecture, shape).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    written.pop("tie_word_embeddings", None)
    assert shape_from_config(written).tied_embeddings


def test_mistral_has_no_sliding_window():
    assert config_of("mistral", catalogue()["mistral-7b"].shape).sliding_window is None


def test_unknown_architecture_raises():
    shape = replace(catalogue()["phi-2"].shape)
    with pytest.raises(ValueError, match="bert"):
        parameter_count("bert", shape)
    with pytest.raises(ValueError, match="bert"):
        transformers_config("bert", shape)
