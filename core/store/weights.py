"""Read the precision of the weights of an OpenVINO IR, and its INT4 settings, from its constants.

The element types are taken from the ``Const`` layers of the XML, whose offsets point into the
``.bin`` file: that is what the runtime maps into memory. What a constant is (weight, scale, zero
point; of an embedding, a layer or the output) follows from the layers that read it. No heavy
library is imported, so pages can use it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

from core.catalogue import Precision
from core.errors import CorruptModelError, NotAModelError
from core.store.formats import INDEX_TYPES, bits_of, format_of, precision_of

IR_XML = "openvino_model.xml"
IR_BIN = "openvino_model.bin"

_FOUR_BITS = ("u4", "i4", "nf4")
_EIGHT_BITS = ("u8", "i8")
_ATTENTION = "ScaledDotProductAttention"

_CACHE_STEPS = {
    *("Broadcast", "Concat", "Convert", "Gather", "Reshape", "Slice", "Squeeze"),
    *("StridedSlice", "Tile", "Transpose", "Unsqueeze"),
}
"""Layers between the state of a KV cache and the attention that reads it: they move keys and values
without computing."""

_LARGEST_OTHER_SHARE = 0.1
"""Largest share of parameters in another precision after a conversion: biases, norms, rotary
tables. It is below 0.1 % in real models and a few per cent in the tiny models of the tests."""

_INPUTS = {
    *("input_ids", "inputs_embeds", "attention_mask", "position_ids", "token_type_ids"),
    *("beam_idx", "cache_position"),
}
"""Names of inputs that are not a cache."""

_MATRIX_PRODUCTS = ("MatMul", "Convolution", "GroupConvolution")
_AFTER_OUTPUT = {"Add", "Convert", "Divide", "Multiply", "Subtract", "Tanh"}
"""Layers between the output matrix and the result: bias, scaling and soft cap of the logits."""


class Cache(StrEnum):
    """How an IR keeps the keys and values of earlier tokens."""

    STATE = "state"
    """As a state of the model, as Optimum Intel exports it."""
    INPUTS = "inputs"
    """As inputs and outputs, which GenAI's pipeline cannot run."""
    NONE = "none"
    """Not at all: exported without a cache."""


@dataclass(frozen=True)
class WeightReport:
    """Description of the weights of one IR."""

    types: dict[str, int]
    """Parameters by OpenVINO element type (``u4``, ``u8``, ``f16``, …), without the scales and
    zero points for decompression."""
    formats: dict[str, int]
    """The same by format: INT4, MXFP4, FP16, …; an element type without a known format has its own
    name."""
    group_sizes: dict[int, int]
    """4-bit integer parameters by group size; −1 is one scale per output channel."""
    symmetric: bool
    """True if no 4-bit weight has zero points of its own."""
    layer_share: float
    """Share of the weights of the layers, without embeddings and output, that are 4-bit integers:
    what NNCF's ``ratio`` asks for."""
    methods: frozenset[str]
    """What NNCF notes in the XML of how it compressed: ``awq``, ``scale_estimation``."""
    bytes: int
    """Size of the weight file; without the file, the bytes that the XML refers to."""
    multiplied_bytes: int
    """Of it, what matrix multiplications read for each token, with scales and zero points. The
    embedding table counts only if it is also the output layer: a look-up reads a single row."""
    other_states: tuple[str, ...] = ()
    """Variables of the model that are not part of a KV cache: recurrent or convolutional states.
    Empty if the attention is not a single operation."""
    cache: Cache = Cache.STATE
    """How the keys and values of earlier tokens are kept."""
    outputs: frozenset[str] = frozenset({"logits"})
    """Names of what the model returns."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(self.types.values())

    def share(self, element_types: Iterable[str]) -> float:
        """Return the share of the parameters that have one of these types, 0 to 1."""
        return sum(self.types.get(name, 0) for name in element_types) / max(self.parameters, 1)

    @property
    def four_bit_share(self) -> float:
        """Share of the parameters that are 4-bit integers, 0 to 1."""
        return self.share(_FOUR_BITS)

    @property
    def precision(self) -> Precision | None:
        """Precision of the weights; None for one that only can be kept as stored."""
        return precision_of(self.formats)

    def is_really(self, precision: Precision) -> bool:
        """Return whether a conversion to this precision succeeded: all weights but biases and
        norms have it."""
        expected = {
            Precision.INT4: _FOUR_BITS + _EIGHT_BITS,
            Precision.INT8: _EIGHT_BITS,
            Precision.FP16: ("f16",),
            Precision.FP32: ("f32",),
        }[precision.base]
        compressed = self.four_bit_share > 0
        return compressed is precision.int4 and self.share(expected) >= 1 - _LARGEST_OTHER_SHARE


@dataclass
class _Constant:
    """A constant of a graph, and its use, which :func:`_weights` finds."""

    element_type: str
    count: int
    """Number of its values."""
    bytes: int
    end: int
    """Offset in the weight file at which it ends."""
    scale: _Constant | None = None
    zero_point: bool = False
    """Whether it has zero points of its own; one for all is the middle of an unsigned type."""
    grouped: bool = False
    """Whether the decompressed weights are reshaped, which joins the groups to rows."""
    role: str = ""
    """``layer``, ``output``, ``embedding``, or empty for others, such as biases."""

    @property
    def compressed(self) -> bool:
        return bits_of(format_of(self.element_type)) < 16

    @property
    def group_size(self) -> int:
        """Number of weights that share a scale; −1 for one scale per output channel."""
        if not self.grouped or self.scale is None or self.scale.count <= 1:
            return -1
        return self.count // self.scale.count


class _Graph:
    """The layers of an IR, or of the body of one of its loops or branches."""

    def __init__(self, element: ElementTree.Element) -> None:
        layers = element.find("layers")
        assert layers is not None, "the caller has looked for it"
        self.types: dict[str, str] = {}
        """Types of the layers by id, in the order of the file, in which inputs come first."""
        self.constants: dict[str, _Constant] = {}
        self.states: dict[str, str] = {}
        """Names of variables by the id of the layer that reads them."""
        self.inputs: list[str] = []
        """Names of the model's inputs."""
        names: dict[tuple[str, str], list[str]] = {}
        """Names of what a layer returns, by its id and port."""
        for layer in layers:
            number, kind = layer.attrib["id"], layer.attrib["type"]
            self.types[number] = kind
            if kind == "Const":
                self.constants[number] = _constant(layer)
            elif kind == "ReadValue":
                data = layer.find("data")
                self.states[number] = "" if data is None else data.attrib["variable_id"]
            elif kind == "Parameter":
                of_input = [layer.attrib.get("name", "")]
                for port in layer.iter("port"):
                    of_input += port.attrib.get("names", "").split(",")
                self.inputs.append(" ".join(of_input))
            for port in layer.iterfind("output/port"):
                names[number, port.attrib["id"]] = port.attrib.get("names", "").split(",")
        self.consumers: dict[str, list[tuple[str, int]]] = {}
        self.producers: dict[str, dict[int, str]] = {}
        self.outputs: set[str] = set()
        """Names of the model's outputs."""
        for edge in element.iterfind("edges/edge"):
            source, target = edge.attrib["from-layer"], edge.attrib["to-layer"]
            port = int(edge.attrib["to-port"])
            self.consumers.setdefault(source, []).append((target, port))
            self.producers.setdefault(target, {})[port] = source
            if self.types[target] == "Result":
                self.outputs |= set(names.get((source, edge.attrib.get("from-port", "")), []))

    def is_attention_cache(self, state: str) -> bool:
        """Return whether the state read by that layer contains keys or values of an attention."""
        return self._reaches(state, _CACHE_STEPS, {(_ATTENTION, 1), (_ATTENTION, 2)})

    def is_output(self, layer: str) -> bool:
        """Return whether a matrix product gives the logits."""
        return self._reaches(layer, _AFTER_OUTPUT, {("Result", 0)})

    def _reaches(self, layer: str, steps: Set[str], ends: Set[tuple[str, int]]) -> bool:
        """Return whether what a layer returns reaches an end (type and input port), through layers
        of these types alone."""
        seen, ahead = {layer}, [layer]
        while ahead:
            for target, port in self.consumers.get(ahead.pop(), []):
                if (self.types[target], port) in ends:
                    return True
                if self.types[target] in steps and target not in seen:
                    seen.add(target)
                    ahead.append(target)
        return False


def _weights(graph: _Graph) -> tuple[list[_Constant], int]:
    """Return the weights of a graph, without scales and zero points, and the bytes of the constants
    from which alone an input of a MatMul is computed.

    The use of a constant follows from the layers that depend on constants only; it is written into
    the constants of the graph.
    """
    found = graph.constants
    main = {number: number for number in found}
    """The constant with the weights, for each layer that depends on constants only."""
    parts = {number: {number} for number in found}
    """The constants that are computed together with it."""
    auxiliary: set[str] = set()
    multiplied: set[str] = set()
    for layer, kind in graph.types.items():
        inputs = graph.producers.get(layer, {})
        if not inputs or any(source not in main for source in inputs.values()):
            continue
        mains = [main[inputs[port]] for port in sorted(inputs)]
        chosen = mains[0]
        if kind in ("Multiply", "Divide", "Subtract", "Add") and len(mains) == 2:
            chosen, other = sorted(mains, key=lambda number: -found[number].count)
            if chosen != other and found[chosen].compressed:
                auxiliary.add(other)
                if kind in ("Multiply", "Divide"):
                    found[chosen].scale = found[other]
                else:
                    found[chosen].zero_point = found[other].count > 1
        elif kind == "Reshape":
            found[chosen].grouped = True
        parts[chosen].update(*(parts[each] for each in mains))
        main[layer] = chosen
    for layer, kind in graph.types.items():
        if layer in main:
            continue
        for port, source in graph.producers.get(layer, {}).items():
            if source not in main:
                continue
            weights = found[main[source]]
            if kind == "MatMul":
                multiplied |= parts[main[source]]
            if kind == "Gather" and port == 0:
                weights.role = "embedding"
            elif kind in _MATRIX_PRODUCTS and weights.role != "embedding":
                weights.role = "output" if graph.is_output(layer) else "layer"
    weights = [
        weights
        for number, weights in found.items()
        if number not in auxiliary and weights.element_type not in INDEX_TYPES
    ]
    return weights, sum(found[number].bytes for number in multiplied)


def read_weights(folder: Path) -> WeightReport:
    """Count the weights of the IR in ``folder`` by element type and format.

    Raises:
        CorruptModelError: a file is missing, is not an IR, or the weight file is truncated.
    """
    for name in (IR_XML, IR_BIN):
        if not (folder / name).is_file():
            raise CorruptModelError(
                f"{name} is missing in {folder}. Convert or copy the model again."
            )
    size = (folder / IR_BIN).stat().st_size
    report = read_graph(folder / IR_XML)
    if report.bytes > size:
        raise CorruptModelError(
            f"{IR_BIN} in {folder} is truncated: it has only {size} bytes. Convert or copy the "
            "model again."
        )
    return replace(report, bytes=size)


def read_graph(xml: Path) -> WeightReport:
    """Count the weights of an IR by its XML alone, such as before its weights are downloaded.

    Raises:
        CorruptModelError: it is not an IR.
    """
    try:
        state = xml.stat()
        return _report(xml, state.st_size, state.st_mtime_ns)
    except (
        *(ElementTree.ParseError, AttributeError, LookupError, ValueError, TypeError),
        OSError,
    ) as error:
        raise CorruptModelError(
            f"{xml.name} in {xml.parent} is not a readable OpenVINO model ({error}). "
            "Convert or copy the model again."
        ) from error


@lru_cache(maxsize=64)
def _report(xml: Path, _size: int, _mtime_ns: int) -> WeightReport:
    root = ElementTree.parse(xml).getroot()
    if root.tag != "net" or root.find("layers") is None:
        raise ValueError("no <net> element with layers")
    # The graphs of loops and branches number their layers on their own.
    graphs = [_Graph(each) for each in root.iter() if each.find("layers") is not None]
    model, states = graphs[0], ()
    if _ATTENTION in model.types.values():  # else KV caches look like other states
        states = tuple(
            name for layer, name in model.states.items() if not model.is_attention_cache(layer)
        )
    cache = Cache.STATE
    if not model.states:
        others = [names for names in model.inputs if not set(names.split()) & _INPUTS]
        cache = Cache.INPUTS if others else Cache.NONE
    types: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    groups: Counter[int] = Counter()
    layers: Counter[bool] = Counter()
    symmetric = True
    found = [_weights(graph) for graph in graphs]
    for weights in (each for of_graph, _ in found for each in of_graph):
        scale, count = weights.scale, weights.count
        types[weights.element_type] += count
        formats[format_of(weights.element_type, scale and scale.element_type)] += count
        four_bits = weights.element_type in _FOUR_BITS
        if four_bits:
            groups[weights.group_size] += count
            symmetric &= not weights.zero_point
        if weights.role == "layer":
            layers[four_bits] += count
    return WeightReport(
        types=dict(types),
        formats=dict(formats),
        group_sizes=dict(groups),
        symmetric=symmetric,
        layer_share=layers[True] / max(layers.total(), 1),
        methods=frozenset(
            name
            for name in ("awq", "scale_estimation")
            if (note := root.find(f"rt_info/nncf/weight_compression/{name}")) is not None
            and note.attrib.get("value") == "True"
        ),
        bytes=max((each.end for graph in graphs for each in graph.constants.values()), default=0),
        multiplied_bytes=found[0][1],
        other_states=states,
        cache=cache,
        outputs=frozenset(model.outputs),
    )


def check_cache(name: Path | str, report: WeightReport) -> None:
    """Check that an IR keeps the keys and values of earlier tokens.

    Raises:
        NotAModelError: it was exported without a cache, so no runtime generates text with it; or it
            is an embedding model.
    """
    if report.cache is Cache.NONE and "logits" not in report.outputs:
        raise NotAModelError(
            f"The OpenVINO model {name} is an embedding model, which does not write text: it has "
            "no output named logits. Choose an instruction model."
        )
    if report.cache is Cache.NONE:
        raise NotAModelError(
            f"The OpenVINO model {name} was exported without a cache, so no runtime can generate "
            "text with it. Export it with the task text-generation-with-past, or use the original "
            "checkpoint."
        )


def _constant(layer: ElementTree.Element) -> _Constant:
    data = layer.find("data")
    if data is None:
        raise ValueError(f"constant {layer.attrib.get('name')!r} has no data")
    count = math.prod(int(part) for part in data.attrib["shape"].split(",") if part.strip())
    size = int(data.attrib["size"])
    end = int(data.attrib["offset"]) + size
    return _Constant(data.attrib["element_type"], count, size, end)
