"""OpenVINO models of other programs: copied with any mix of types, and labelled correctly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from core.catalogue import Precision
from core.errors import PaddockError, UserError
from core.settings import Settings
from core.store import ModelStore, StoredModel, resolve
from core.store.convert import export, load_tokenizer, write_openvino_tokenizer
from core.store.estimate import estimate
from core.store.hub import HubAccess, describe
from core.store.weights import IR_BIN, IR_XML, read_weights
from core.units import int4_text
from tests.builders import edit_json, tiny_checkpoint
from tests.store.hub_server import Hub

pytestmark = pytest.mark.usefixtures("online")

HIDDEN = 64
"""Only the second matrix of the feed-forward part, which is twice as wide, fits groups of 128."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(Settings(home=tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "llama"
    return tiny_checkpoint("llama", folder, hidden=HIDDEN, intermediate=2 * HIDDEN)


@pytest.fixture(scope="module")
def own(shared: ModelStore, checkpoint: Path) -> Callable[[Precision], StoredModel]:
    """The same model converted by Paddock."""
    return cache(lambda precision: shared.ensure(resolve(str(checkpoint)), precision))


def without_record(stored: StoredModel, folder: Path) -> Path:
    """A stored model as a folder of another program."""
    shutil.copytree(stored.folder, folder)
    (folder / "paddock.json").unlink()
    return folder


@pytest.fixture(scope="module")
def compressed(
    own: Callable[[Precision], StoredModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The FP16 model compressed by NNCF with these options; do not change it."""

    @cache
    def make(mode: str, *, left: str = "", backup: str = "INT8_ASYM", **options: Any) -> Path:
        import nncf
        import openvino

        mode_ = nncf.CompressWeightsMode[mode]
        if left:
            options["ignored_scope"] = nncf.IgnoredScope(patterns=[left])
        if backup != "INT8_ASYM":
            options["backup_mode"] = nncf.BackupMode[backup]
        folder = without_record(own(Precision.FP16), tmp_path_factory.mktemp("ir") / "ir")
        model = openvino.Core().read_model(own(Precision.FP16).folder / IR_XML)
        model = nncf.compress_weights(model, mode=mode_, **options)
        openvino.save_model(model, folder / IR_XML, compress_to_fp16=False)
        return folder

    return make


# Mixes


@pytest.mark.parametrize(
    ("precision", "options", "types"),
    [
        (Precision.INT4, {"mode": "INT4_SYM", "group_size": 32}, {"i4", "u8"}),
        (Precision.INT4, {"mode": "NF4", "group_size": 32}, {"nf4", "u8"}),
        pytest.param(
            Precision.INT4,
            {"mode": "INT4_ASYM", "group_size": 32, "backup": "NONE", "all_layers": True},
            {"u4"},
        ),
        pytest.param(
            Precision.INT4,
            {"mode": "INT4_SYM", "group_size": 32, "backup": "NONE"},
            {"i4", "f16"},
        ),
        pytest.param(
            Precision.INT4,
            {"mode": "INT4_SYM", "group_size": 32, "left": r".*layers\.0.*"},
            {"i4", "u8", "f16"},
        ),
        pytest.param(
            Precision.INT8,
            {"mode": "INT8_ASYM", "left": r".*embed_tokens.*"},
            {"u8", "f16"},
        ),
        pytest.param(
            Precision.INT8,
            {"mode": "INT8_SYM", "left": r".*lm_head.*"},
            {"i8", "f16"},
        ),
    ],
    ids=[
        *("INT4 with INT8", "NF4 with INT8", "INT4 throughout", "INT4 with FP16"),
        *("INT4, a layer in FP16", "INT8, FP16 embeddings", "INT8, FP16 output"),
    ],
)
def test_an_ir_is_copied_with_its_mix(
    precision: Precision,
    options: dict[str, Any],
    types: set[str],
    compressed: Callable[..., Path],
    store: ModelStore,
) -> None:
    folder = compressed(**options)
    stored = store.ensure(resolve(str(folder)), precision)
    assert (stored.folder / IR_BIN).read_bytes() == (folder / IR_BIN).read_bytes()
    assert types <= stored.manifest.weight_types.keys()
    assert stored.label == ("NF4" if "nf4" in types else precision.label)


# Types without a precision in Paddock

FLOATS_OF_FEW_BITS = {
    "MXFP4": ({"mode": "MXFP4"}, "f4e2m1"),
    "FP4": ({"mode": "FP4", "group_size": 32}, "f4e2m1"),
    "NVFP4": ({"mode": "NVFP4"}, "f4e2m1"),
    "FP8": ({"mode": "FP8_E4M3", "group_size": 64}, "f8e4m3"),
    "MXFP8": ({"mode": "MXFP8_E4M3"}, "f8e4m3"),
}


@pytest.mark.parametrize("name", FLOATS_OF_FEW_BITS)
def test_every_weight_is_counted(
    name: str, compressed: Callable[..., Path], own: Callable[[Precision], StoredModel]
) -> None:
    options, element = FLOATS_OF_FEW_BITS[name]
    report = read_weights(compressed(**options))
    assert element in report.types
    whole = read_weights(own(Precision.FP16).folder).parameters
    assert report.parameters == pytest.approx(whole, rel=0.01)  # except a few scales


@pytest.mark.parametrize(
    ("name", "passes_as"),
    [
        ("MXFP4", Precision.FP32),
        ("FP4", Precision.FP16),
        ("NVFP4", Precision.INT8),
        ("FP8", Precision.FP16),
        ("MXFP8", Precision.FP32),
    ],
)
def test_weights_are_not_labelled_as_another_precision(
    name: str, passes_as: Precision, compressed: Callable[..., Path], store: ModelStore
) -> None:
    options, element = FLOATS_OF_FEW_BITS[name]
    with pytest.raises(PaddockError) as refused:
        store.ensure(resolve(str(compressed(**options))), passes_as)
    said = str(refused.value).lower()
    assert name.lower() in said or element in said


@pytest.fixture(scope="module")
def bf16(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model exported with its weights in BF16."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("bf16")
    tokenizer = load_tokenizer(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    export(model.eval(), tokenizer, folder)
    write_openvino_tokenizer(tokenizer, folder)
    return folder


def test_bf16_weights_are_counted_and_can_be_compressed(bf16: Path, store: ModelStore) -> None:
    assert read_weights(bf16).types["bf16"] > 100_000
    assert store.ensure(resolve(str(bf16)), Precision.INT8).precision is Precision.INT8


def test_a_bf16_ir_is_copied(bf16: Path, store: ModelStore) -> None:
    taken = set()
    for precision in set(Precision) - {Precision.INT8, Precision.INT4}:
        try:
            taken |= store.ensure(resolve(str(bf16)), precision).manifest.weight_types.keys()
        except UserError:
            continue
    assert "bf16" in taken


# INT4 settings


def test_int4_settings_of_a_converted_and_of_a_copied_model_are_equal(
    own: Callable[[Precision], StoredModel], store: ModelStore, tmp_path: Path
) -> None:
    made = own(Precision.INT4)
    taken = store.ensure(resolve(str(without_record(made, tmp_path / "ir"))), Precision.INT4)
    assert taken.manifest.int4.group_sizes == made.manifest.int4.group_sizes
    assert int4_text(**asdict(taken.int4)) == int4_text(**asdict(made.int4))


# On the hub


@pytest.fixture
def int4_repository(
    own: Callable[[Precision], StoredModel], hub: Hub, tmp_path: Path
) -> Callable[[str], str]:
    """A repository with a ready INT4 IR of this architecture."""

    def make(architecture: str) -> str:
        folder = without_record(own(Precision.INT4), tmp_path / architecture)
        edit_json(folder / "config.json", model_type=architecture)
        hub.add(f"some-org/{architecture}-int4-ov", folder)
        return f"some-org/{architecture}-int4-ov"

    return make


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_the_precision_of_an_ir_on_the_hub_is_known_before_a_conversion(
    architecture: str, int4_repository: Callable[[str], str], hub: Hub, settings: Settings
) -> None:
    source = resolve(int4_repository(architecture))
    already = len(hub.fetched(IR_BIN))
    with pytest.raises(UserError, match="INT4"):
        about = describe(str(source.location), HubAccess(endpoint=hub.url))
        estimate(source, Precision.INT8, settings, hub=about)
    assert len(hub.fetched(IR_BIN)) == already


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_an_ir_of_another_precision_is_refused_before_its_download(
    architecture: str, int4_repository: Callable[[str], str], hub: Hub, store: ModelStore
) -> None:
    source = resolve(int4_repository(architecture))
    already = len(hub.fetched(IR_BIN))
    with pytest.raises(UserError, match="INT4"):
        store.ensure(source, Precision.INT8, access=HubAccess(endpoint=hub.url))
    assert len(hub.fetched(IR_BIN)) == already
