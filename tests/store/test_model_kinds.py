"""The kind of a model is recognised from its configuration before its weights are downloaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.catalogue import Precision
from core.errors import CorruptModelError, NotAModelError, PaddockError
from core.settings import Settings
from core.store import resolve
from core.store.estimate import estimate
from core.store.hub import HubAccess, HubModel, describe
from tests.builders import edit_json
from tests.store.hub_server import Hub

pytestmark = pytest.mark.usefixtures("online")

VISION_IR = ("language_model", "vision_embeddings_model", "text_embeddings_model")
ENCODER_DECODER_IR = ("encoder_model", "decoder_model")
LLAVA = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"}
PHI3_V = {"architectures": ["Phi3VForCausalLM"], "model_type": "phi3_v"}
T5 = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
WHISPER = {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"}
ENCODER_DECODER = {"is_encoder_decoder": True}

UNKNOWN_TO_TRANSFORMERS = ("newmodel2027",)
UNKNOWN_TO_OPTIMUM = (
    *("olmo3", "olmoe", "nemotron", "helium", "mamba2", "seed_oss", "apertus", "ernie4_5"),
    *("ministral", "ministral3", "glm4_moe", "falcon_h1"),
)
"""Architectures of transformers that Optimum 2.1 cannot export."""
ABOVE_OPTIMUMS_CEILING = (
    *("deepseek_v2", "deepseek_v3", "qwen3_next", "granitemoehybrid", "bitnet", "dbrx"),
    *("llama4_text", "lfm2", "lfm2_moe", "mamba", "falcon_mamba", "zamba2"),
)
"""Architectures that it only exports with an earlier version of transformers; without that limit
the export fails, or its result was not verified."""
EXPORTED = ("llama", "qwen3", "gpt_oss", "granite", "smollm3", "gemma3_text")


@pytest.fixture(scope="module")
def checkpoint(
    checkpoint_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A Llama checkpoint with a changed configuration."""

    def make(**config: Any) -> Path:
        folder = tmp_path_factory.mktemp("folder") / "model"
        shutil.copytree(checkpoint_of("llama"), folder)
        edit_json(folder / "config.json", **config)
        return folder

    return make


@pytest.fixture(scope="module")
def ir(checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """A folder of minimal OpenVINO models with these names."""

    def make(names: Sequence[str], **config: Any) -> Path:
        folder = checkpoint(**config)
        (folder / "model.safetensors").unlink()
        for name in names:
            (folder / f"openvino_{name}.xml").write_text("<net/>", encoding="utf-8")
            (folder / f"openvino_{name}.bin").write_bytes(bytes(64))
        return folder

    return make


def described(hub: Hub, folder: Path) -> HubModel:
    hub.add("some-org/model", folder)
    return describe("some-org/model", HubAccess(endpoint=hub.url))


# OpenVINO models of other kinds


@pytest.mark.parametrize(
    ("names", "config", "word"),
    [
        (VISION_IR, LLAVA, "vision"),
        (VISION_IR, PHI3_V, "vision"),
        (ENCODER_DECODER_IR, T5 | ENCODER_DECODER, "encoder-decoder"),
        (ENCODER_DECODER_IR, WHISPER | ENCODER_DECODER, "encoder-decoder"),
    ],
    ids=["vision", "vision, ForCausalLM", "T5", "Whisper"],
)
def test_the_kind_of_an_ir_on_the_hub_is_named(
    names: Sequence[str], config: dict[str, Any], word: str, hub: Hub, ir: Callable[..., Path]
) -> None:
    with pytest.raises(NotAModelError) as refused:
        described(hub, ir(names, **config))
    assert word in str(refused.value).lower()


@pytest.mark.parametrize(
    ("names", "config", "word"),
    [
        (VISION_IR, LLAVA, "LlavaForConditionalGeneration"),
        (ENCODER_DECODER_IR, T5 | ENCODER_DECODER, "T5ForConditionalGeneration"),
        (("model",), {"architectures": ["BertModel"], "model_type": "bert"}, "BertModel"),
        pytest.param(VISION_IR, PHI3_V, "vision"),
    ],
    ids=["vision", "T5", "BERT", "vision, ForCausalLM"],
)
def test_the_kind_of_an_ir_in_a_folder_is_named(
    names: Sequence[str], config: dict[str, Any], word: str, ir: Callable[..., Path]
) -> None:
    with pytest.raises(NotAModelError) as refused:
        resolve(str(ir(names, **config)))
    assert word.lower() in str(refused.value).lower()


def test_an_ir_without_its_weights_is_damaged(ir: Callable[..., Path]) -> None:
    folder = ir(["model"])
    (folder / "openvino_model.bin").unlink()
    with pytest.raises(CorruptModelError, match=r"openvino_model\.bin is missing"):
        from core.store.weights import read_weights

        read_weights(folder)


# Models that do not generate text


def test_a_classifier_is_refused(hub: Hub, checkpoint: Callable[..., Path]) -> None:
    for architecture in ("LlamaForSequenceClassification", "LlamaModel"):
        folder = checkpoint(architectures=[architecture])
        with pytest.raises(NotAModelError, match=architecture):
            described(hub, folder)
        with pytest.raises(NotAModelError, match=architecture):
            resolve(str(folder))


def with_pooling(folder: Path) -> Path:
    """A folder as written by Sentence Transformers."""
    layers = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    (folder / "modules.json").write_text(json.dumps(layers), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 64, "pooling_mode_lasttoken": True}
    edit_json(folder / "1_Pooling" / "config.json", **pooling)
    return folder


def embedding_ir(folder: Path) -> Path:
    """An IR that returns hidden states, in a folder whose other files are those of a model."""
    import numpy as np
    import openvino
    from openvino import opset13

    inputs = [opset13.parameter([-1, -1], np.int64) for _ in range(2)]
    for each, name in zip(inputs, ("input_ids", "attention_mask"), strict=True):
        each.output(0).set_names({name})
    table, axis = opset13.constant(np.ones((64, 8), np.float32)), opset13.constant(0)
    mask = opset13.unsqueeze(opset13.convert(inputs[1], "f32"), opset13.constant(2))
    states = opset13.multiply(opset13.gather(table, inputs[0], axis), mask)
    states.output(0).set_names({"last_hidden_state"})
    openvino.save_model(openvino.Model([states], inputs), folder / "openvino_model.xml")
    (folder / "model.safetensors").unlink()
    return folder


def test_an_ir_of_an_embedding_model_is_named_before_its_weights(
    hub: Hub, checkpoint: Callable[..., Path], settings: Settings
) -> None:
    folder = embedding_ir(checkpoint())
    about, name = described(hub, folder), "is an embedding model"
    with pytest.raises(NotAModelError, match=name):
        estimate(resolve("some-org/model"), Precision.FP16, settings, hub=about)
    assert not hub.fetched("openvino_model.bin")
    with pytest.raises(NotAModelError, match=name):
        estimate(resolve(str(folder)), Precision.FP16, settings)


def test_a_stateless_ir_on_the_hub_is_named_before_its_weights(
    hub: Hub, checkpoint: Callable[..., Path], settings: Settings
) -> None:
    folder = embedding_ir(checkpoint())
    xml = folder / "openvino_model.xml"
    xml.write_text(xml.read_text("utf-8").replace("last_hidden_state", "logits"), "utf-8")
    with pytest.raises(NotAModelError, match="exported without a cache"):
        estimate(resolve("some-org/model"), Precision.FP16, settings, hub=described(hub, folder))


@pytest.mark.parametrize("look", ["hub", "folder"])
def test_an_embedding_model_is_named_as_such(
    look: str, hub: Hub, checkpoint: Callable[..., Path]
) -> None:
    folder = with_pooling(checkpoint())
    try:
        said = repr(described(hub, folder) if look == "hub" else resolve(str(folder)))
    except NotAModelError as refused:
        said = str(refused)
    assert "embedding model" in said.lower()


# Architectures that cannot be exported


def config_of(model_type: str) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [f"{model_type.title()}ForCausalLM"]}


@pytest.mark.parametrize(
    "model_type", [*UNKNOWN_TO_TRANSFORMERS, *UNKNOWN_TO_OPTIMUM, *ABOVE_OPTIMUMS_CEILING]
)
def test_an_architecture_that_cannot_be_exported_is_refused_before_its_download(
    model_type: str, hub: Hub, checkpoint: Callable[..., Path]
) -> None:
    folder = checkpoint(**config_of(model_type))
    with pytest.raises(PaddockError, match=model_type):
        described(hub, folder)
    assert not hub.fetched(".safetensors")
    with pytest.raises(PaddockError, match=model_type):
        resolve(str(folder))


@pytest.mark.parametrize("model_type", EXPORTED)
def test_an_architecture_that_can_be_exported_is_accepted(
    model_type: str, hub: Hub, checkpoint: Callable[..., Path]
) -> None:
    assert described(hub, checkpoint(**config_of(model_type))).files
