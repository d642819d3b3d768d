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
from core.store.formats import leading_format, mix_text
from core.store.weights import IR_BIN, IR_XML, read_graph, read_weights

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
    report = read_weights(folder)
    assert report.types == expected
    assert report.precision is precision


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


LAYERS = """<net version="11"><layers>
<layer id="0" name="ids" type="Parameter"><output><port id="0"/></output></layer>
<layer id="1" name="w" type="Const">
<data element_type="{kind}" shape="8, 64" offset="0" size="256"/>
</layer>
<layer id="2" name="c" type="Convert"/>
<layer id="3" name="s" type="Const"><data element_type="f16" shape="8, 1" offset="256" size="16"/>
</layer>
<layer id="4" name="m" type="Multiply"/>
<layer id="5" name="matmul" type="MatMul"/>
<layer id="6" name="loop" type="Loop"/>
<layer id="7" name="logits" type="Result"/>
<layer id="8" name="axes" type="Const"><data element_type="i64" shape="4" offset="0" size="32"/>
</layer>
</layers><edges>
<edge from-layer="1" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="2" from-port="1" to-layer="4" to-port="0"/>
<edge from-layer="3" from-port="0" to-layer="4" to-port="1"/>
<edge from-layer="0" from-port="0" to-layer="5" to-port="0"/>
<edge from-layer="4" from-port="2" to-layer="5" to-port="1"/>
<edge from-layer="5" from-port="2" to-layer="7" to-port="0"/>
</edges></net>"""


@pytest.mark.parametrize(
    ("kind", "name", "mix"),
    [
        ("u4", "INT4", "INT4 100 %"),
        ("nf4", "NF4", "NF4 100 %"),
        ("u2", "INT2", "INT2 100 %"),
        ("f8e5m2", "FP8 E5M2", "FP8 E5M2 100 %"),
        ("f5e1m3", "f5e1m3", "unknown type f5e1m3 100 %"),
    ],
)
def test_a_type_is_named_also_if_it_is_unknown(
    kind: str, name: str, mix: str, tmp_path: Path
) -> None:
    path = tmp_path / IR_XML
    path.write_text(LAYERS.format(kind=kind))
    report = read_graph(path)
    named = (leading_format(report.formats), mix_text(report.formats))
    assert (*named, report.parameters) == (name, mix, 8 * 64)
    assert (report.precision is None) is (name not in ("INT4", "NF4"))


@pytest.mark.parametrize(("shape", "symmetric"), [("1,1", True), ("8,1", False)])
def test_one_zero_point_for_all_weights_is_symmetric(
    shape: str, symmetric: bool, tmp_path: Path
) -> None:
    path = tmp_path / IR_XML
    zero_point = f'''<layer id="9" name="z" type="Const">
<data element_type="f16" shape="{shape}" offset="272" size="16"/></layer>
<layer id="10" name="subtract" type="Subtract"/>'''
    edges = """to-layer="10" to-port="0"/>
<edge from-layer="9" from-port="0" to-layer="10" to-port="1"/>
<edge from-layer="10" from-port="2" to-layer="4" to-port="0"/>"""
    text = LAYERS.format(kind="u4").replace('<layer id="4"', f'{zero_point}<layer id="4"')
    path.write_text(text.replace('to-layer="4" to-port="0"/>', edges, 1))
    assert read_graph(path).symmetric is symmetric


def test_weights_in_a_loop_are_counted_with_the_layers_of_their_own_graph(tmp_path: Path) -> None:
    body = LAYERS.format(kind="u8").removeprefix('<net version="11">').removesuffix("</net>")
    loop = '<layer id="6" name="loop" type="Loop"/>'
    outer = LAYERS.format(kind="u4").replace(loop, loop[:-2] + f"><body>{body}</body></layer>")
    path = tmp_path / IR_XML
    path.write_text(outer)
    assert read_graph(path).formats == {"INT4": 512, "INT8": 512}


@pytest.mark.parametrize(
    ("formats", "name"),
    [
        ({"INT4": 60, "FP16": 40}, "INT4"),
        ({"INT8": 20, "FP16": 80}, "INT8"),
        ({"FP32": 90, "FP16": 10}, "FP32"),
        ({"MXFP4": 70, "BF16": 30}, "MXFP4"),
        ({"FP16": 995, "INT8": 5}, "FP16"),
        ({"BF16": 99, "FP32": 1}, "BF16"),
    ],
)
def test_a_mix_is_named_by_its_compressed_weights(formats: dict[str, int], name: str) -> None:
    assert leading_format(formats) == name
