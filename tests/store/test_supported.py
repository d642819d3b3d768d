"""What is not supported is named with the reason, from the list of files and the small files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.catalogue import Precision
from core.errors import CorruptModelError, ModelFilesError, NotAModelError, UserError
from core.settings import Settings
from core.store import ModelStore, StoredModel, convert_in_process, resolve
from core.store.estimate import estimate
from core.store.hub import HubAccess, describe
from core.store.model_files import ModelFiles
from core.store.supported import Selection, check_supported
from tests.builders import edit_json
from tests.store.hub_server import Hub

pytestmark = pytest.mark.usefixtures("online")

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
WHOLE = {"config.json": LLAMA, "tokenizer.json": {}, "model.safetensors": None}


def checked(files: dict[str, Any], **card: Any) -> Selection:
    return check_supported(
        ModelFiles("some-org/model", frozenset(files), files.__getitem__, lambda: card)
    )


def without_weights(*names: str, **files: Any) -> dict[str, Any]:
    whole = {name: content for name, content in WHOLE.items() if name != "model.safetensors"}
    return whole | dict.fromkeys(names) | files


QUANTISER = {"quant_method": "gptq", "bits": 4}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an adapter": (
        {"adapter_config.json": {"base_model_name_or_path": "some-org/base"}}
        | {"adapter_model.safetensors": None, "tokenizer.json": {}},
        {},
        "is an adapter.* base model some-org/base, or a version with the adapter merged into it",
    ),
    "an adapter of an unknown base": (
        {"adapter_config.json": {}, "adapter_model.bin": None},
        {"base_model": ["some-org/base"]},
        "base model some-org/base",
    ),
    "an adapter of a folder": (
        {"adapter_config.json": {"base_model_name_or_path": "/home/me/m"}},
        {"base_model": "some-org/base"},
        "base model some-org/base",
    ),
    "adapters in folders": (
        {
            "checkpoint-9/adapter_config.json": {"base_model_name_or_path": "some-org/base"},
            "checkpoint-9/adapter_model.safetensors": None,
        },
        {},
        "base model some-org/base",
    ),
    "an adapter of Diffusers": (
        {"pytorch_lora_weights.safetensors": None},
        {"base_model": "a/b"},
        "is an adapter.* base model a/b",
    ),
    "an adapter named lora": ({"lora.safetensors": None}, {}, "Use its base model, or"),
    "another class under a known architecture": (
        WHOLE | {"config.json": LLAMA | {"architectures": ["BitnetForCausalLM"]}},
        {},
        "class BitnetForCausalLM, which is not that of its architecture 'llama'",
    ),
    "QuIP#": (WHOLE | {"config.json": LLAMA | {"quip_params": {"a": 1}}}, {}, "is quantised,"),
    "a quantisation named by a string": (
        WHOLE | {"config.json": LLAMA | {"quantization_config": "w8a8"}},
        {},
        "quantised with w8a8",
    ),
    "quantised, without an original": (
        WHOLE | {"config.json": LLAMA | {"quantization_config": {"quant_method": "mxfp4"}}},
        {},
        "not quantised, if there is one, or one that is published as an OpenVINO model or a GGUF",
    ),
    "speech synthesis": (WHOLE, {"pipeline_tag": "text-to-speech"}, "speech or audio model"),
    "speech recognition": (
        WHOLE,
        {"pipeline_tag": "automatic-speech-recognition"},
        "speech or audio model",
    ),
    "pieces of a GGUF file": (
        {"m.Q8_0.gguf.part1of2": None, "m.Q8_0.gguf.part2of2": None},
        {},
        r"no config\.json, but m\.Q8_0\.gguf\.part1of2, m\.Q8_0\.gguf\.part2of2\. Choose",
    ),
    "only a projector": (
        {"mmproj-m-F16.gguf": None, "config.json": LLAMA},
        {},
        r"neither .*, but mmproj-m-F16\.gguf\.",
    ),
    "a GGUF file in a subfolder": ({"q8/m.gguf": None}, {}, r"a GGUF file \(q8/m\.gguf\)"),
    "quantised, original on the card": (
        WHOLE | {"config.json": LLAMA | {"quantization_config": QUANTISER}},
        {"base_model": "some-org/original"},
        "quantised with gptq.* Use some-org/original",
    ),
    "a quantisation in a file of its own": (
        WHOLE | {"quantize_config.json": {}},
        {"base_model": "some-org/original"},
        "is quantised, and these weights.* Use some-org/original",
    ),
    "an embedding model by its task": (
        WHOLE,
        {"pipeline_tag": "feature-extraction"},
        "embedding model",
    ),
    "a reranker by its task": (WHOLE, {"pipeline_tag": "text-ranking"}, "reranking model"),
    "a reranker by the task of a classifier": (
        WHOLE,
        {"pipeline_tag": "text-classification", "library_name": "sentence-transformers"},
        "reranking model",
    ),
    "an embedding model by its library": (
        WHOLE,
        {"library_name": "sentence-transformers"},
        "embedding model",
    ),
    "a reranker by its architecture": (
        WHOLE | {"config.json": LLAMA | {"architectures": ["LlamaForSequenceClassification"]}},
        {},
        "classification or reranking model",
    ),
    "a vision-language model": (
        WHOLE | {"config.json": {"model_type": "gemma3", "vision_config": {"depth": 2}}},
        {},
        "vision-language model",
    ),
    "ONNX": (
        without_weights("onnx/", "onnx/model.onnx", "onnx/model.onnx_data", "README.md"),
        {},
        r"openvino_model\.xml, but onnx/model\.onnx, onnx/model\.onnx_data\. Choose",
    ),
    "the developer's format": (
        {"consolidated.safetensors": None, "params.json": {}},
        {},
        r"no config\.json, but consolidated\.safetensors\.",
    ),
    "a Diffusers pipeline": (
        {"model_index.json": {}, "unet/openvino_model.xml": None},
        {},
        "Diffusers pipeline",
    ),
    "several IRs": (
        without_weights("openvino_postnet.xml", "openvino_vocoder.xml"),
        {},
        r"OpenVINO models \(openvino_postnet\.xml, openvino_vocoder\.xml\), but not",
    ),
    "a variant": (without_weights("model.fp16.safetensors"), {}, r"but model\.fp16\.safetensors"),
    "shards without an index": (
        without_weights("model-00001-of-00001.safetensors"),
        {},
        r"neither model\.safetensors nor its index.*but model-00001-of-00001\.safetensors",
    ),
    "an IR in a subfolder": (
        without_weights("openvino/openvino_model.xml", "openvino/openvino_model.bin"),
        {},
        r"\(openvino/openvino_model\.xml\), but not openvino_model\.xml and .* at the top",
    ),
    "an IR without its weights": (
        without_weights("openvino_model.xml"),
        {},
        r"not openvino_model\.xml and openvino_model\.bin",
    ),
    "an IR named otherwise": (without_weights("qwen.xml", "qwen.bin"), {}, r"\(qwen\.xml\)"),
    "a vision-language model with code of its own": (
        WHOLE | {"config.json": LLAMA | {"model_type": "phi3_v", "img_processor": {}}},
        {},
        "vision-language model",
    ),
    "code of its own, not named ForCausalLM": (
        WHOLE
        | {
            "config.json": {
                "architectures": ["ChatGLMModel"],
                "model_type": "chatglm",
                "auto_map": {"AutoModelForCausalLM": "modeling.Chat"},
            }
        },
        {},
        "trust_remote_code",
    ),
    "a tokenizer named otherwise": (
        {"config.json": LLAMA, "model.safetensors": None, "ice_text.model": None},
        {},
        r"contains no tokenizer\.json and no tokenizer\.model",
    ),
    "no weights": (without_weights(), {}, r"neither .*, nor openvino_model\.xml\. Choose"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_reason_is_named(what: str) -> None:
    files, card, words = REFUSED[what]
    with pytest.raises(NotAModelError, match=words) as refused:
        checked(files, **card)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("llama", "LLaMAForCausalLM"),
        ("mpt", "MPTForCausalLM"),
        ("gpt2", "GPT2LMHeadModel"),
        ("phimoe", "PhiMoEForCausalLM"),
        ("gemma3_text", "Gemma3ForCausalLM"),
    ],
)
def test_another_spelling_of_a_class_is_accepted(model_type: str, architecture: str) -> None:
    config = {"model_type": model_type, "architectures": [architecture]}
    assert checked(WHOLE | {"config.json": config}).config == config


def test_incomplete_weights_are_damaged_unless_there_are_others() -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    files = without_weights("one.safetensors") | {"model.safetensors.index.json": index}
    with pytest.raises(CorruptModelError, match=r"two\.safetensors"):
        checked(files)
    assert checked(files | {"pytorch_model.bin": None}).weights == ("pytorch_model.bin",)


def test_an_openvino_model_may_have_any_architecture() -> None:
    config = {"model_type": "olmo3", "architectures": ["Olmo3ForCausalLM"]}
    config |= {"quantization_config": QUANTISER}  # of the checkpoint that was exported
    files = without_weights("openvino_model.xml", "openvino_model.bin") | {"config.json": config}
    assert checked(files).weights[0] == "openvino_model.xml"


def test_the_original_is_read_from_the_model_card_of_a_folder(
    checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint_of("llama"), tmp_path / "model"))
    edit_json(folder / "config.json", quantization_config=QUANTISER)
    card = "---\nlicense: mit\nbase_model:\n- some-org/original\n---\n# A model\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    with pytest.raises(NotAModelError, match="Use some-org/original"):
        resolve(str(folder))


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.uint8, torch.int16, torch.uint16, torch.int64]
)
def test_quantised_weights_that_no_configuration_names_are_refused(
    dtype: torch.dtype, checkpoint_of: Callable[[str], Path], tmp_path: Path, hub: Hub
) -> None:
    folder = Path(shutil.copytree(checkpoint_of("llama"), tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    packed = {
        name: each[:, :: 2 * dtype.itemsize].to(dtype) if each.ndim == 2 else each  # 4 bits each
        for name, each in weights.items()
    }
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotAModelError, match="quantised weights"):
        resolve(str(folder))
    hub.add("some-org/packed", folder)
    with pytest.raises(NotAModelError, match="quantised weights"):
        describe("some-org/packed", HubAccess(endpoint=hub.url))


def with_weights(folder: Path, *names: str) -> Path:
    weights = load_file(folder / "model.safetensors")
    weights |= {name: torch.ones(4) for name in names}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_weight_that_the_architecture_does_not_have_is_refused(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, store: ModelStore
) -> None:
    folder = Path(shutil.copytree(checkpoint_of("llama"), tmp_path / "model"))
    with_weights(folder, "model.layers.0.mlp.ffn_layernorm.weight")
    with pytest.raises(NotAModelError, match=r"ffn_layernorm\.weight, which the architecture"):
        store.ensure(resolve(str(folder)), Precision.FP32)


def test_masks_tables_and_the_value_head_of_training_are_ignored(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, store: ModelStore
) -> None:
    folder = Path(shutil.copytree(checkpoint_of("llama"), tmp_path / "model"))
    attention = "model.layers.0.self_attn"
    with_weights(folder, f"{attention}.rotary_emb.inv_freq", f"{attention}.bias", "v_head.weight")
    assert store.ensure(resolve(str(folder)), Precision.FP32)


# An OpenVINO model of another precision


def test_the_precision_of_an_ir_is_known_before_its_weights_are_downloaded(
    hub: Hub, converted: Callable[[str, Precision], StoredModel], settings: Settings
) -> None:
    stored = converted("llama", Precision.INT8)
    hub.add("some-org/model-int8-ov", stored.folder)
    access = HubAccess(endpoint=hub.url)
    source = resolve("some-org/model-int8-ov")
    about = describe(str(source.location), access)
    assert about.ir is not None and about.ir.precision is Precision.INT8
    assert about.ir.parameters == stored.manifest.parameters
    with pytest.raises(UserError, match="INT8 weights"):
        estimate(source, Precision.FP16, settings, hub=about)
    with pytest.raises(UserError, match="INT8 weights"):
        convert_in_process(source, Precision.INT4, settings=settings, access=access)
    assert not hub.fetched("openvino_model.bin")
    assert ModelStore(settings).ensure(source, Precision.INT8, access=access)


def test_a_compressed_ir_has_its_own_precision_by_default(
    hub: Hub, converted: Callable[[str, Precision], StoredModel], settings: Settings
) -> None:
    name = "some-org/model-int4-ov"
    hub.add(name, converted("llama", Precision.INT4).folder)
    access, store = HubAccess(endpoint=hub.url), ModelStore(settings)
    assert store.default_precision(name) is Precision.INT8, "the hub was not asked"
    assert store.default_precision(name, ask_hub=True, access=access) is Precision.INT4
    source = resolve(name)
    store.ensure(source, Precision.INT4, access=access)
    store.delete_download(source.key)
    assert store.default_precision(name) is Precision.INT4, "the stored model tells"


def test_a_model_compressed_from_an_ir_leaves_the_default_precision(
    hub: Hub, converted: Callable[[str, Precision], StoredModel], settings: Settings
) -> None:
    name = "some-org/model-fp16-ov"
    hub.add(name, converted("llama", Precision.FP16).folder)
    source, store = resolve(name), ModelStore(settings)
    store.ensure(source, Precision.INT4, access=HubAccess(endpoint=hub.url))
    store.delete_download(source.key)
    assert store.default_precision(name) is Precision.INT8


# Files


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_a_model_is_not_a_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"content")
    with pytest.raises(NotAModelError, match=r"not a GGUF file.*Specify the model's folder"):
        resolve(str(path))


def test_a_truncated_gguf_file_leaves_nothing(tmp_path: Path, settings: Settings) -> None:
    file = tmp_path / "tiny.Q4_0.gguf"
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(64))
    with pytest.raises(ModelFilesError, match="cannot be read"):
        convert_in_process(str(file), Precision.INT4, settings=settings)
    assert not settings.models_dir.exists()
