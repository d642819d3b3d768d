"""Bytes read per token, compared with manual computation for models of known sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.benchmark.weights import (
    bytes_per_token,
    checkpoint_weight_bytes,
    weight_bytes,
)
from core.catalogue import Precision, benchmark_shapes, catalogue
from core.catalogue.shapes import transformers_config
from core.errors import CorruptModelError
from core.inference.engine import Engine
from core.runtimes.kv_cache import kv_bytes_per_position
from core.runtimes.spec import ModelSpec
from core.store import resolve

HIDDEN, LAYERS, INNER = 64, 2, 128
MATRICES = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
"""Of the tiny GPT-NeoX, the output layer aside."""


@pytest.fixture
def folder_of(spec_of: Callable[..., ModelSpec], engine: Engine) -> Callable[[Precision], Path]:
    def find(precision: Precision) -> Path:
        spec = spec_of("gpt_neox", precision)
        stored = engine.store.get(resolve(spec.model), precision)
        assert stored is not None
        return stored.folder

    return find


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_uncompressed_model_reads_all_matrices_except_embedding(folder_of):
    folder = folder_of(Precision.FP32)
    matrices = MATRICES + config_of(folder)["vocab_size"] * HIDDEN
    assert weight_bytes(folder) == pytest.approx(4 * matrices, abs=64)  # and rotary frequencies


def test_compressed_weights_count_with_scales_and_zero_points(folder_of):
    folder = folder_of(Precision.INT8)
    vocabulary = config_of(folder)["vocab_size"]
    rows = LAYERS * (3 * HIDDEN + HIDDEN + INNER + HIDDEN) + vocabulary
    matrices = MATRICES + vocabulary * HIDDEN
    # One byte a weight; a scale (f16 or f32) and a zero point (u8) a row.
    assert matrices + 3 * rows <= weight_bytes(folder) <= matrices + 5 * rows + 64


def test_checkpoint_configuration_gives_the_same_size(folder_of):
    folder = folder_of(Precision.FP32)
    by_arithmetic = checkpoint_weight_bytes(config_of(folder), "f32")
    assert by_arithmetic == pytest.approx(weight_bytes(folder), rel=0.02)  # norms, biases
    assert checkpoint_weight_bytes(config_of(folder), "bf16") == by_arithmetic / 2


def test_tied_embeddings_are_the_output_layer_and_are_read():
    architecture, shape = benchmark_shapes()["neox-410m"]
    config = transformers_config(architecture, shape)
    untied = checkpoint_weight_bytes(config, "bf16")
    assert checkpoint_weight_bytes(config | {"tie_word_embeddings": True}, "bf16") == untied
    assert untied == pytest.approx(2 * 354e6, rel=0.01)  # 405 M without the 51 M of the embedding


def test_unknown_sizes_are_none():
    assert checkpoint_weight_bytes({"model_type": "mamba"}, "bf16") is None
    assert checkpoint_weight_bytes({}, None) is None
    assert kv_bytes_per_position({}, "u8") is None
    assert kv_bytes_per_position({"num_attention_heads": 0}, "u8") is None


def test_kv_cache_size():
    row = catalogue()["tiny-llama-1b-chat"]
    config = transformers_config(row.architecture, row.shape)
    assert kv_bytes_per_position(config, "bf16") == 2 * 22 * 4 * 64 * 2
    assert kv_bytes_per_position(config, "u8") == 2 * 22 * 4 * (64 + 8)
    assert kv_bytes_per_position(config, None) is None


def test_bytes_per_token_use_half_of_the_answer():
    assert bytes_per_token(1000, 10, 32, 8) == 1000 + 10 * 36
    assert bytes_per_token(1000, None, 32, 8) == 1000
    assert bytes_per_token(None, 10, 32, 8) is None


@pytest.mark.parametrize("text", ["", "<net/>", "not xml"])
def test_damaged_ir_is_an_error(text: str, tmp_path: Path):
    (tmp_path / "openvino_model.xml").write_text(text)
    with pytest.raises(CorruptModelError, match="not a readable OpenVINO model"):
        weight_bytes(tmp_path)
    with pytest.raises(CorruptModelError):
        weight_bytes(tmp_path / "elsewhere")


def test_other_constants_do_not_count(tmp_path: Path):
    """A hand-made graph: weight → Convert → MatMul, a bias, and a constant mixed with the input."""
    layers = {
        "0": ("Parameter", None),
        "1": ("Const", 400),
        "2": ("Convert", None),
        "3": ("MatMul", None),
        "4": ("Const", 8),
        "5": ("Add", None),
        "6": ("Const", 16),
        "7": ("Multiply", None),
    }
    edges = [("0", "7"), ("6", "7"), ("7", "3"), ("1", "2"), ("2", "3"), ("3", "5"), ("4", "5")]
    xml = "<net><layers>"
    for name, (kind, size) in layers.items():
        data = f'<data element_type="u8" shape="{size}" offset="0" size="{size}"/>' if size else ""
        xml += f'<layer id="{name}" type="{kind}">{data}</layer>'
    xml += "</layers><edges>"
    xml += "".join(
        f'<edge from-layer="{one}" to-layer="{other}" to-port="{port}"/>'
        for port, (one, other) in enumerate(edges)
    )
    (tmp_path / "openvino_model.xml").write_text(f"{xml}</edges></net>")
    assert weight_bytes(tmp_path) == 400
