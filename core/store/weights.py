"""Read the actual precision of the weights of an OpenVINO IR.

The element types are taken from the ``Const`` layers of the XML, whose offsets point into the
``.bin`` file: that is what the runtime maps into memory. No heavy library is imported, so pages can
use it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from core.catalogue import Precision
from core.errors import CorruptModelError

IR_XML = "openvino_model.xml"
IR_BIN = "openvino_model.bin"

_FOUR_BITS = ("u4", "i4", "nf4")
_EIGHT_BITS = ("u8", "i8")
_LOW_BITS = _FOUR_BITS + _EIGHT_BITS
_FLOATS = ("f16", "bf16", "f32", "f64")

_ATTENTION = "ScaledDotProductAttention"

_CACHE_STEPS = (
    "Broadcast",
    "Concat",
    "Convert",
    "Gather",
    "Reshape",
    "Slice",
    "Squeeze",
    "StridedSlice",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
"""Layers between the state of a KV cache and the attention that reads it: they move keys and values
without computing."""

_LARGEST_OTHER_SHARE = 0.1
"""Largest share of parameters in another precision: biases, norms, rotary tables. It is below 0.1 %
in real models and a few per cent in the tiny models of the tests."""


@dataclass(frozen=True)
class WeightReport:
    """Description of the weights of one IR."""

    types: dict[str, int]
    """Parameters by OpenVINO element type (``u4``, ``u8``, ``f16``, …), without the scales and
    zero points for decompression."""
    group_sizes: dict[int, int]
    """4-bit parameters by group size; −1 is one scale per output channel."""
    symmetric: bool
    """True if no 4-bit weight has a zero point."""
    bytes: int
    """Size of the weight file."""
    other_states: tuple[str, ...] = ()
    """Variables of the model that are not part of a KV cache: recurrent or convolutional states.
    Empty if the attention is not a single operation."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(self.types.values())

    def share(self, element_types: Iterable[str]) -> float:
        """Return the share of the parameters that have one of these types, 0 to 1."""
        return sum(self.types.get(name, 0) for name in element_types) / max(self.parameters, 1)

    @property
    def four_bit_share(self) -> float:
        """Share of the parameters that have four bits, 0 to 1."""
        return self.share(_FOUR_BITS)

    @property
    def precision(self) -> Precision | None:
        """Precision of the weights; None for one that Paddock has no name for, such as BF16.

        A model counts as INT4 if any weight has four bits, since NNCF then compresses the other
        weights to INT8; otherwise the majority decides.
        """
        if self.four_bit_share > 0:
            return Precision.INT4
        kinds = {
            Precision.INT8: _EIGHT_BITS,
            Precision.FP16: ("f16",),
            Precision.FP32: ("f32",),
        }
        return next((name for name, types in kinds.items() if self.share(types) > 0.5), None)

    def is_really(self, precision: Precision) -> bool:
        """Return whether the weights have this precision, except biases and norms."""
        expected = {
            Precision.INT4: _LOW_BITS,
            Precision.INT8: _EIGHT_BITS,
            Precision.FP16: ("f16",),
            Precision.FP32: ("f32",),
        }[precision]
        return self.precision is precision and self.share(expected) >= 1 - _LARGEST_OTHER_SHARE


@dataclass(frozen=True)
class _Constant:
    layer: str
    element_type: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class _Graph:
    """Layers of an IR by id, with their connections."""

    def __init__(self, root: ElementTree.Element) -> None:
        self.types = {layer.attrib["id"]: layer.attrib["type"] for layer in root.iter("layer")}
        self.states = {
            layer.attrib["id"]: layer.find("data").attrib["variable_id"]
            for layer in root.iter("layer")
            if layer.attrib["type"] == "ReadValue"
        }
        """Names of variables by the id of the layer that reads them."""
        self.consumers: dict[str, list[tuple[str, int]]] = {}
        self.producers: dict[tuple[str, int], str] = {}
        for edge in root.iter("edge"):
            source, target = edge.attrib["from-layer"], edge.attrib["to-layer"]
            port = int(edge.attrib["to-port"])
            self.consumers.setdefault(source, []).append((target, port))
            self.producers[target, port] = source

    def reaches(self, layer: str, kind: str, port: int) -> str | None:
        """Return the id of the layer of that kind with ``layer`` as input ``port``, directly or
        after conversions."""
        for target, target_port in self.consumers.get(layer, []):
            if self.types[target] == kind and target_port == port:
                return target
            if self.types[target] == "Convert":
                found = self.reaches(target, kind, port)
                if found is not None:
                    return found
        return None

    def is_attention_cache(self, state: str) -> bool:
        """Return whether the state read by that layer contains keys or values of an attention."""
        seen, ahead = {state}, [state]
        while ahead:
            for target, port in self.consumers.get(ahead.pop(), []):
                if self.types[target] == _ATTENTION and port in (1, 2):  # keys and values
                    return True
                if self.types[target] in _CACHE_STEPS and target not in seen:
                    seen.add(target)
                    ahead.append(target)
        return False

    def origin(self, layer: str) -> str:
        """Return the id of the layer at the start of the chain of first inputs of ``layer``."""
        while self.types[layer] in ("Convert", "Subtract") and (layer, 0) in self.producers:
            layer = self.producers[layer, 0]
        return layer


def read_weights(folder: Path) -> WeightReport:
    """Count the weights of the IR in ``folder`` by element type.

    Raises:
        CorruptModelError: a file is missing, is not an IR, or the weight file is truncated.
    """
    size = _bin_size(folder)
    graph, constants = _constants(folder, size)
    low = {item.layer: item for item in constants if item.element_type in _LOW_BITS}
    types: Counter[str] = Counter()
    groups: Counter[int] = Counter()
    symmetric = True
    for item in constants:
        if _is_zero_point(graph, item, low) or _is_scale(graph, item, low):
            continue
        types[item.element_type] += item.count
        if item.element_type in _FOUR_BITS:
            groups[item.shape[-1] if len(item.shape) == 3 else -1] += item.count
            symmetric &= graph.reaches(item.layer, "Subtract", 0) is None
    others: tuple[str, ...] = ()
    if _ATTENTION in graph.types.values():  # else KV caches cannot be distinguished from states
        others = tuple(
            name for layer, name in graph.states.items() if not graph.is_attention_cache(layer)
        )
    return WeightReport(dict(types), dict(groups), symmetric, size, others)


def weight_bits(folder: Path) -> dict[str, int]:
    """Return the parameters of the IR in ``folder`` by element type; see :func:`read_weights`."""
    return read_weights(folder).types


def stored_precision(folder: Path) -> Precision | None:
    """Return the precision of the IR in ``folder``; see :attr:`WeightReport.precision`."""
    return read_weights(folder).precision


def _bin_size(folder: Path) -> int:
    for name in (IR_XML, IR_BIN):
        if not (folder / name).is_file():
            raise CorruptModelError(
                f"{name} is missing in {folder}. Convert or copy the model again."
            )
    return (folder / IR_BIN).stat().st_size


def _constants(folder: Path, size: int) -> tuple[_Graph, list[_Constant]]:
    try:
        root = ElementTree.parse(folder / IR_XML).getroot()
        if root.tag != "net":
            raise ValueError("no <net> element")
        found = [
            constant
            for layer in root.iter("layer")
            if layer.attrib["type"] == "Const"
            and (constant := _constant(layer, folder, size)) is not None
        ]
        return _Graph(root), found
    except (ElementTree.ParseError, AttributeError, KeyError, ValueError) as error:
        raise CorruptModelError(
            f"{IR_XML} in {folder} is not a readable OpenVINO model ({error}). "
            "Convert or copy the model again."
        ) from error


def _constant(layer: ElementTree.Element, folder: Path, size: int) -> _Constant | None:
    data = layer.find("data")
    if data is None:
        raise ValueError(f"constant {layer.attrib.get('name')!r} has no data")
    if int(data.attrib["offset"]) + int(data.attrib["size"]) > size:
        raise CorruptModelError(
            f"{IR_BIN} in {folder} is truncated: it has only {size} bytes. Convert or copy the "
            "model again."
        )
    element_type = data.attrib["element_type"]
    if element_type not in _LOW_BITS + _FLOATS:
        return None
    shape = tuple(int(part) for part in data.attrib["shape"].split(",") if part.strip())
    return _Constant(layer.attrib["id"], element_type, shape)


def _is_zero_point(graph: _Graph, item: _Constant, low: dict[str, _Constant]) -> bool:
    target = graph.reaches(item.layer, "Subtract", 1)
    return target is not None and graph.origin(target) in low


def _is_scale(graph: _Graph, item: _Constant, low: dict[str, _Constant]) -> bool:
    if item.element_type not in _FLOATS:
        return False
    target = graph.reaches(item.layer, "Multiply", 1)
    if target is None or (target, 0) not in graph.producers:
        return False
    return graph.origin(graph.producers[target, 0]) in low
