"""The precision of weights read from the XML, compared with the model loaded by OpenVINO."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from core.catalogue import CONVERTED_PRECISIONS, Precision
from core.errors import CorruptModelError
from core.store import StoredModel
from core.store.weights import IR_BIN, IR_XML, read_weights, stored_precision, weight_bits

Converted = Callable[[str, Precision], StoredModel]


@pytest.fixture
def ir(converted: Converted, tmp_path: Path) -> Path:
    """An INT8 IR that the test may change."""
    return Path(shutil.copytree(converted("llama", Precision.INT8).folder, tmp_path / "ir"))


@pytest.mark.parametrize("precision", CONVERTED_PRECISIONS)
def test_precision_agrees_with_the_model_that_openvino_loads(
    converted: Converted, precision: Precision
) -> None:
    import openvino

    folder = converted("llama", precision).folder
    loaded: Counter[str] = Counter()
    for node in openvino.Core().read_model(folder / IR_XML).get_ops():
        name = node.get_friendly_name()
        if node.get_type_name() != "Constant" or name.endswith(("/zero_point", "/scale")):
            continue
        loaded[node.get_element_type().get_type_name()] += math.prod(node.get_shape())
    floats_and_low_bits = {"f32", "f16", "bf16", "u8", "i8", "u4", "i4"}
    expected = {name: count for name, count in loaded.items() if name in floats_and_low_bits}
    assert weight_bits(folder) == expected
    assert stored_precision(folder) is precision


def test_truncated_weights_are_found(ir: Path) -> None:
    content = (ir / IR_BIN).read_bytes()
    (ir / IR_BIN).write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptModelError, match=r"openvino_model\.bin .* truncated"):
        read_weights(ir)


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_truncated_graph_is_found(ir: Path, keep: int) -> None:
    (ir / IR_XML).write_bytes((ir / IR_XML).read_bytes()[:keep])
    with pytest.raises(CorruptModelError, match=r"openvino_model\.xml"):
        read_weights(ir)


@pytest.mark.parametrize("name", [IR_XML, IR_BIN])
def test_missing_file_is_named(ir: Path, name: str) -> None:
    (ir / name).unlink()
    with pytest.raises(CorruptModelError, match=f"{name} is missing"):
        read_weights(ir)
