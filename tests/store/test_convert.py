"""Each architecture and precision: the weights have the precision, and the model works."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.catalogue import CONVERTED_PRECISIONS, Int4Settings, Int8Settings, Precision
from core.errors import ConversionError, CorruptModelError, NotAModelError, UserError
from core.settings import CHECKOUT
from core.store import ModelStore, SourceKind, StoredModel, resolve
from core.store.compress import compress
from core.store.weights import IR_BIN, IR_XML, read_weights
from tests.builders import ARCHITECTURES, tiny_checkpoint

CheckpointOf = Callable[[str], Path]
Converted = Callable[[str, Precision], StoredModel]

TOKENS = np.arange(1, 201) % 380
"""Long enough to reveal a rounded rotary frequency."""


def openvino_logits(folder: Path) -> np.ndarray:
    """Logits (tokens, vocabulary) of the IR for :data:`TOKENS`, computed in FP32."""
    import openvino

    model = openvino.Core().compile_model(
        folder / IR_XML, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    )
    count = len(TOKENS)
    inputs = {
        "input_ids": TOKENS[None],
        "attention_mask": np.ones((1, count), dtype=np.int64),
        "position_ids": np.arange(count)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    names = {name for port in model.inputs for name in port.names}
    result = model.create_infer_request().infer({k: v for k, v in inputs.items() if k in names})
    return np.asarray(result["logits"][0])


def torch_logits(folder: Path, dtype: str = "float32") -> np.ndarray:
    """The same from the checkpoint; weights rounded to ``dtype``, arithmetic in FP32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(getattr(torch, dtype)))
        return model(torch.tensor(TOKENS[None])).logits[0].numpy()


def similarity(left: np.ndarray, right: np.ndarray) -> float:
    """Mean cosine of the logits at each position."""
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return float(((left * right).sum(axis=-1) / norms).mean())


@pytest.mark.parametrize("precision", CONVERTED_PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_are_really_in_the_precision(
    converted: Converted, architecture: str, precision: Precision
) -> None:
    model = converted(architecture, precision)
    report = read_weights(model.folder)
    assert report.is_really(precision)
    assert not any(
        report.is_really(other) for other in CONVERTED_PRECISIONS if other is not precision
    )
    assert report.types == model.manifest.weight_types
    if precision is Precision.INT4:
        assert report.types["u4"] > 0.3 * report.parameters
        assert model.manifest.int4 is not None
        assert sum(model.manifest.int4.group_sizes.values()) == report.types["u4"]
    assert model.manifest.architecture == architecture


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fp32_gives_the_logits_of_the_checkpoint(
    converted: Converted, checkpoint_of: CheckpointOf, architecture: str
) -> None:
    expected = torch_logits(checkpoint_of(architecture))
    actual = openvino_logits(converted(architecture, Precision.FP32).folder)
    np.testing.assert_allclose(actual, expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fp16_rounds_the_weights_and_nothing_else(
    converted: Converted, checkpoint_of: CheckpointOf, architecture: str
) -> None:
    expected = torch_logits(checkpoint_of(architecture), "float16")
    actual = openvino_logits(converted(architecture, Precision.FP16).folder)
    np.testing.assert_allclose(actual, expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("precision", "at_least"), [(Precision.INT8, 0.98), (Precision.INT4, 0.6)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compressed_weights_stay_close(
    converted: Converted,
    checkpoint_of: CheckpointOf,
    architecture: str,
    precision: Precision,
    at_least: float,
) -> None:
    actual = openvino_logits(converted(architecture, precision).folder)
    assert similarity(actual, torch_logits(checkpoint_of(architecture))) > at_least


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT4])
def test_bfloat16_checkpoint_gives_every_precision(
    store: ModelStore, tmp_path: Path, precision: Precision
) -> None:
    folder = tiny_checkpoint("gpt_neox", tmp_path / "bf16", dtype="bfloat16")
    model = store.ensure(resolve(str(folder)), precision)
    assert read_weights(model.folder).is_really(precision)
    at_least = 0.6 if precision is Precision.INT4 else 0.98
    assert similarity(openvino_logits(model.folder), torch_logits(folder)) > at_least


def test_pytorch_bin_gives_what_safetensors_give(
    store: ModelStore, converted: Converted, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("gpt_neox", tmp_path / "bin", weights="bin")
    model = store.ensure(resolve(str(folder)), Precision.FP32)
    twin = converted("gpt_neox", Precision.FP32)
    assert (model.folder / IR_BIN).read_bytes() == (twin.folder / IR_BIN).read_bytes()


def test_tokenizer_and_generation_settings_are_in_the_folder(converted: Converted) -> None:
    names = {path.name for path in converted("phi", Precision.INT8).folder.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} < (
        names
    )
    assert {"openvino_tokenizer.xml", "openvino_detokenizer.xml"} < names
    assert not any(name.endswith((".safetensors", ".new")) for name in names)


def test_int4_settings_are_used(store: ModelStore, checkpoint_of: CheckpointOf) -> None:
    wish = Int4Settings(symmetric=True, group_size=32, ratio=1.0)
    model = store.ensure(resolve(str(checkpoint_of("llama"))), Precision.INT4, compression=wish)
    report = read_weights(model.folder)
    assert report.types["i4"] > 0
    assert report.group_sizes == {32: report.types["i4"]}
    record = model.manifest.int4
    assert record is not None
    assert (record.symmetric, record.group_size, record.ratio) == (True, 32, 1.0)


def test_int8_settings_are_used(store: ModelStore, checkpoint_of: CheckpointOf) -> None:
    source = resolve(str(checkpoint_of("llama")))
    model = store.ensure(source, Precision.INT8, compression=Int8Settings(symmetric=True))
    assert read_weights(model.folder).types["i8"] > 0
    assert "u8" not in read_weights(model.folder).types
    assert model.manifest.int8 is not None
    assert model.manifest.int8.symmetric
    store.delete(model)
    again = store.ensure(source, Precision.INT8)
    assert "i8" not in read_weights(again.folder).types
    assert again.manifest.int8 is not None
    assert not again.manifest.int8.symmetric


def test_scale_estimation_uses_texts_of_the_model_itself(
    store: ModelStore, converted: Converted, checkpoint_of: CheckpointOf
) -> None:
    folder = checkpoint_of("llama")
    plain = Int4Settings(symmetric=False, group_size=32, ratio=1.0)
    fitted = replace(plain, scale_estimation=True)
    steps: list[str] = []
    model = store.ensure(
        resolve(str(folder)),
        Precision.INT4,
        compression=fitted,
        progress=lambda step: steps.append(step.message),
    )
    assert "Generating texts for scale estimation." in steps
    assert model.manifest.int4 is not None
    assert model.manifest.int4.scale_estimation
    report = read_weights(model.folder)
    assert report.is_really(Precision.INT4)
    close = similarity(openvino_logits(model.folder), torch_logits(folder))
    store.delete(model)
    without = store.ensure(resolve(str(folder)), Precision.INT4, compression=plain)
    assert read_weights(without.folder).types == report.types
    assert without.manifest.int4 is not None
    assert not without.manifest.int4.scale_estimation
    weights = IR_BIN
    assert without.manifest.files[weights].sha256 != model.manifest.files[weights].sha256
    assert close > similarity(openvino_logits(without.folder), torch_logits(folder)) - 0.02


def test_compressed_weights_are_those_of_optimum_intel(
    converted: Converted, tmp_path: Path
) -> None:
    import openvino
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    source = converted("gpt_neox", Precision.FP32).folder
    for settings, same in (
        (Int8Settings(), OVWeightQuantizationConfig(bits=8, sym=False)),
        (
            Int4Settings(False, 32, 0.8),
            OVWeightQuantizationConfig(bits=4, sym=False, group_size=32, ratio=0.8),
        ),
    ):
        ours, theirs = tmp_path / f"{same.bits}-ours", tmp_path / f"{same.bits}-theirs"
        ours.mkdir()
        theirs.mkdir()
        compress(source, ours, settings)
        model = OVModelForCausalLM.from_pretrained(
            str(source), export=False, compile=False, quantization_config=same
        )
        openvino.save_model(model.model, theirs / IR_XML, compress_to_fp16=False)
        assert (ours / IR_BIN).read_bytes() == (theirs / IR_BIN).read_bytes()


def test_manifest_records_the_source(converted: Converted, checkpoint_of: CheckpointOf) -> None:
    manifest = converted("gpt_neox", Precision.INT8).manifest
    before = (checkpoint_of("gpt_neox") / "model.safetensors").stat().st_size
    assert (manifest.source_of_weights, manifest.source_bytes) == ("checkpoint", before)
    assert manifest.weight_bytes < before / 2


@pytest.mark.parametrize(
    ("hidden", "intermediate", "groups"),
    [(48, 80, {16}), (40, 72, {-1})],
    ids=["a smaller group divides", "no group divides"],
)
def test_int4_if_channels_are_not_divisible_by_the_group_size(
    store: ModelStore, tmp_path: Path, hidden: int, intermediate: int, groups: set[int]
) -> None:
    folder = tiny_checkpoint(
        "llama", tmp_path / "odd", hidden=hidden, intermediate=intermediate, heads=4
    )
    model = store.ensure(resolve(str(folder)), Precision.INT4)
    assert set(read_weights(model.folder).group_sizes) == groups
    assert model.manifest.int4 is not None
    assert set(model.manifest.int4.group_sizes) == groups


def test_weights_beyond_the_range_of_fp16_are_refused(store: ModelStore, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_checkpoint("llama", tmp_path / "wide")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][0, 0] = 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConversionError, match="range of FP16"):
        store.ensure(resolve(str(folder)), Precision.FP16)
    assert store.list() == []


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_pickle_that_would_run_code_is_refused(store: ModelStore, tmp_path: Path) -> None:
    import torch

    folder = tiny_checkpoint("gpt_neox", tmp_path / "evil", weights="bin")
    trap = tmp_path / "trap"
    torch.save({"gpt_neox.embed_in.weight": _Evil(trap)}, folder / "pytorch_model.bin")
    with pytest.raises(NotAModelError, match="could run code"):
        store.ensure(resolve(str(folder)), Precision.INT8)
    assert not trap.exists()
    assert store.list() == []


def test_damaged_pickle_is_corrupt(store: ModelStore, tmp_path: Path) -> None:
    folder = tiny_checkpoint("gpt_neox", tmp_path / "broken", weights="bin")
    weights = folder / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CorruptModelError, match=str(folder)):
        store.ensure(resolve(str(folder)), Precision.INT8)


def test_weights_of_another_shape_are_corrupt(store: ModelStore, tmp_path: Path) -> None:
    folder = tiny_checkpoint("gpt_neox", tmp_path / "shape")
    wider = tiny_checkpoint("gpt_neox", tmp_path / "wider", hidden=128)
    shutil.copyfile(wider / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(CorruptModelError, match="cannot be loaded"):
        store.ensure(resolve(str(folder)), Precision.INT8)


def test_unreadable_tokenizer_is_named(store: ModelStore, tmp_path: Path) -> None:
    folder = tiny_checkpoint("gpt_neox", tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(NotAModelError, match="tokenizer"):
        store.ensure(resolve(str(folder)), Precision.INT8)


def test_missing_tensors_are_not_filled_with_random_ones(store: ModelStore, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_checkpoint("llama", tmp_path / "partial")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptModelError, match="up_proj"):
        store.ensure(resolve(str(folder)), Precision.INT8)


# From an IR


@pytest.fixture
def ir_of(converted: Converted, tmp_path: Path) -> Callable[[Precision], Path]:
    """A folder with an IR of that precision from another program: without a manifest."""

    def copy(precision: Precision) -> Path:
        target = tmp_path / f"ir-{precision}"
        shutil.copytree(converted("mistral", precision).folder, target)
        (target / "paddock.json").unlink()
        return target

    return copy


@pytest.mark.parametrize("precision", CONVERTED_PRECISIONS)
def test_ir_of_the_same_precision_is_copied(
    store: ModelStore, ir_of: Callable[[Precision], Path], precision: Precision
) -> None:
    folder = ir_of(precision)
    source = resolve(str(folder))
    assert source.kind is SourceKind.IR
    model = store.ensure(source, precision)
    assert (model.folder / IR_BIN).read_bytes() == (folder / IR_BIN).read_bytes()
    assert model.manifest.precision is precision
    assert (model.manifest.int4 is not None) == (precision is Precision.INT4)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (Precision.FP32, Precision.FP16),
        (Precision.FP32, Precision.INT8),
        (Precision.FP16, Precision.INT8),
        (Precision.FP16, Precision.INT4),
    ],
)
def test_ir_is_compressed_to_a_lower_precision(
    store: ModelStore, ir_of: Callable[[Precision], Path], have: Precision, want: Precision
) -> None:
    folder = ir_of(have)
    model = store.ensure(resolve(str(folder)), want)
    assert read_weights(model.folder).is_really(want)
    assert model.manifest.source_of_weights == "ir"
    assert model.manifest.source_bytes == (folder / IR_BIN).stat().st_size
    assert np.isfinite(openvino_logits(model.folder)).all()


def test_scale_estimation_works_on_an_ir_too(
    store: ModelStore, ir_of: Callable[[Precision], Path]
) -> None:
    wish = Int4Settings(symmetric=True, group_size=32, ratio=1.0, scale_estimation=True)
    model = store.ensure(resolve(str(ir_of(Precision.FP16))), Precision.INT4, compression=wish)
    assert read_weights(model.folder).types["i4"] > 0
    assert model.manifest.int4 is not None
    assert model.manifest.int4.scale_estimation
    assert np.isfinite(openvino_logits(model.folder)).all()


@pytest.mark.parametrize("have", [Precision.FP16, Precision.FP32])
def test_lower_precision_is_converted_from_a_stored_model_without_the_original(
    store: ModelStore, tmp_path: Path, have: Precision
) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "mine")
    source = resolve(str(folder))
    higher = store.ensure(source, have)
    shutil.rmtree(folder)
    for name in (str(folder), source.key):
        assert store.resolve(name) == source
    made = store.ensure(store.resolve(str(folder)), Precision.INT4)
    assert read_weights(made.folder).is_really(Precision.INT4)
    assert made.manifest.source_of_weights == "ir"
    assert made.manifest.source_bytes == higher.manifest.weight_bytes
    assert made.manifest.source == higher.manifest.source
    assert np.isfinite(openvino_logits(made.folder)).all()
    assert store.ensure(source, Precision.INT4) == made


def test_higher_precision_is_not_converted_from_a_stored_model(
    store: ModelStore, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "mine")
    source = resolve(str(folder))
    store.ensure(source, Precision.INT8)
    shutil.rmtree(folder)
    with pytest.raises(NotAModelError, match="is missing"):
        store.ensure(source, Precision.FP16)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (Precision.FP16, Precision.FP32),
        (Precision.INT8, Precision.FP16),
        (Precision.INT8, Precision.INT4),
        (Precision.INT4, Precision.INT8),
    ],
)
def test_precision_that_an_ir_cannot_be_converted_to_is_refused(
    store: ModelStore, ir_of: Callable[[Precision], Path], have: Precision, want: Precision
) -> None:
    with pytest.raises(UserError, match=f"has {have.label} weights, .* to {want.label}"):
        store.ensure(resolve(str(ir_of(have))), want)
    assert store.list() == []


def test_truncated_ir_is_refused_before_anything_is_stored(
    store: ModelStore, ir_of: Callable[[Precision], Path]
) -> None:
    folder = ir_of(Precision.FP16)
    content = (folder / IR_BIN).read_bytes()
    (folder / IR_BIN).write_bytes(content[: -struct.calcsize("q")])
    with pytest.raises(CorruptModelError, match="truncated"):
        store.ensure(resolve(str(folder)), Precision.FP16)
    assert store.list() == []


# The libraries


def test_conversion_libraries_send_no_telemetry() -> None:
    script = (
        "import sys\n"
        "from core.store.convert import load_libraries\n"
        "load_libraries()\n"
        "assert 'nncf' in sys.modules\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, check=True)
