"""Quantised checkpoints cannot be exported: they are refused before a download.

Only ``config.json`` says how the weights are quantised, so each test has ordinary weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import NotAModelError
from core.store import SourceKind, resolve
from core.store.hub import HubAccess, describe
from tests.builders import edit_json
from tests.store.hub_server import Hub

pytestmark = pytest.mark.usefixtures("online")

WEIGHTS_4BIT = {
    "num_bits": 4,
    "type": "int",
    "symmetric": True,
    "strategy": "group",
    "group_size": 128,
}
KINDS: dict[str, dict[str, Any]] = {
    "gptq": {"bits": 4, "group_size": 128, "desc_act": True, "sym": True},
    "awq": {"bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
    "bitsandbytes 4-bit": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
    },
    "bitsandbytes 8-bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "fp8": {"activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "compressed-tensors": {
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": WEIGHTS_4BIT}},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    },
    "mxfp4": {"modules_to_not_convert": ["model.embed_tokens"]},
    "hqq": {"quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
    "torchao": {"quant_type": "int8_weight_only"},
    "quanto": {"weights": "int4"},
    "eetq": {"weights": "int8"},
    "aqlm": {"nbits_per_codebook": 16},
    "vptq": {},
    "higgs": {"bits": 4},
    "spqr": {"bits": 3},
    "bitnet": {},
    "exl2": {"bits": 4.25},
    "modelopt": {"quant_algo": "FP8"},
    "mlx": {"quant_method": None, "group_size": 64, "bits": 4},
}
"""``quantization_config`` by the name of the tool; ``quant_method`` is that name if not specified.
MLX writes no ``quant_method``, and the same object also as ``quantization``."""


def config_changes(kind: str) -> dict[str, Any]:
    """The field in ``config.json`` written by this tool."""
    settings = {"quant_method": kind} | KINDS[kind]
    settings = {name: value for name, value in settings.items() if value is not None}
    changes = {"quantization_config": settings}
    return changes | ({"quantization": settings} if kind == "mlx" else {})


def words(kind: str) -> str:
    """What the error must contain."""
    return "is quantised," if kind == "mlx" else f"is quantised with {kind.split()[0]},"


@pytest.fixture(scope="module")
def quantised(
    checkpoint_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A folder with a configuration for weights quantised in this way."""

    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint") / "model"
        shutil.copytree(checkpoint_of("llama"), folder)
        edit_json(folder / "config.json", **config_changes(kind))
        return folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_checkpoint_is_refused_before_its_download(
    kind: str, hub: Hub, quantised: Callable[[str], Path]
) -> None:
    hub.add("some-org/packed", quantised(kind))
    with pytest.raises(NotAModelError) as refused:
        describe("some-org/packed", HubAccess(endpoint=hub.url))
    assert words(kind) in str(refused.value)
    assert not hub.fetched(".safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_checkpoint_in_a_folder_is_refused(
    kind: str, quantised: Callable[[str], Path]
) -> None:
    with pytest.raises(NotAModelError) as refused:
        resolve(str(quantised(kind)))
    assert words(kind) in str(refused.value)


def test_the_refusal_names_the_original_model(hub: Hub, quantised: Callable[[str], Path]) -> None:
    tags = ["base_model:some-org/original", "base_model:quantized:some-org/original"]
    hub.add("some-org/packed", quantised("gptq"), tags=tags)
    with pytest.raises(NotAModelError, match="some-org/original"):
        describe("some-org/packed", HubAccess(endpoint=hub.url))


@pytest.mark.parametrize("settings", [{}, {"quantization_config": {}}])
def test_a_checkpoint_without_quantisation_is_accepted(
    settings: dict[str, Any], hub: Hub, checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint_of("llama"), tmp_path / "plain"))
    edit_json(folder / "config.json", **settings)
    hub.add("some-org/plain", folder)
    assert describe("some-org/plain", HubAccess(endpoint=hub.url)).files
    assert resolve(str(folder)).kind is SourceKind.CHECKPOINT
