"""Tests of parameter counts and configurations against transformers' models without weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.catalogue import Shape, benchmark_shapes, catalogue
from core.catalogue.shapes import parameter_count, shape_from_config, transformers_config

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


def test_mistral_has_no_sliding_window():
    assert config_of("mistral", catalogue()["mistral-7b"].shape).sliding_window is None


def test_unknown_architecture_raises():
    shape = replace(catalogue()["phi-2"].shape)
    with pytest.raises(ValueError, match="bert"):
        parameter_count("bert", shape)
    with pytest.raises(ValueError, match="bert"):
        transformers_config("bert", shape)
