"""Computes the bytes that a model reads for one token, which bound its decode rate by memory
bandwidth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from core.catalogue.shapes import parameter_count, shape_from_config
from core.errors import CorruptModelError
from core.runtimes.kv_cache import ELEMENT_BYTES
from core.store.weights import IR_XML


def weight_bytes(folder: Path) -> int:
    """Return the bytes of the constants that are operands of matrix multiplications in an IR.

    Compressed weights count as stored, with their scales and zero points. The embedding table
    counts only if it is also the output layer: a look-up reads a single row.

    Raises:
        CorruptModelError: the IR is not readable.
    """
    try:
        root = ElementTree.parse(folder / IR_XML).getroot()
        graph = _Graph(root)
        return sum(graph.sizes[constant] for constant in graph.multiplied())
    except (OSError, ElementTree.ParseError, KeyError, ValueError, AttributeError) as error:
        raise CorruptModelError(
            f"{IR_XML} in {folder} is not a readable OpenVINO model ({error}). Convert or copy the "
            "model again."
        ) from error


def checkpoint_weight_bytes(config: Mapping[str, Any], precision: str | None) -> int | None:
    """Return the same for a PyTorch checkpoint loaded in this precision, from its configuration.

    Norms and biases, less than a thousandth, are included.

    Returns:
        None if the architecture's parameter count or the precision is unknown.
    """
    size = ELEMENT_BYTES.get(precision or "")
    try:
        shape = shape_from_config(dict(config))
        count = parameter_count(str(config.get("model_type")), shape)
    except (KeyError, TypeError, ValueError):
        return None
    if size is None:
        return None
    looked_up = 0 if shape.tied_embeddings else shape.vocabulary * shape.hidden
    return size * (count - looked_up)


def bytes_per_token(
    weights: int | None, kv_per_position: int | None, prompt_tokens: int, new_tokens: int
) -> int | None:
    """Return the bytes read per token of an answer: all weights, and the KV cache at half its
    length."""
    if weights is None:
        return None
    return weights + (kv_per_position or 0) * (prompt_tokens + new_tokens // 2)


class _Graph:
    """Layers of an IR, their inputs, and the sizes of its constants."""

    def __init__(self, root: ElementTree.Element) -> None:
        # Not iter(): the bodies of loops have their own layers and ids.
        layers = root.find("layers").findall("layer")
        self._kinds = {layer.attrib["id"]: layer.attrib["type"] for layer in layers}
        self.sizes = {
            layer.attrib["id"]: int(layer.find("data").attrib["size"])
            for layer in layers
            if layer.attrib["type"] == "Const"
        }
        self._inputs: dict[str, list[str]] = {}
        for edge in root.find("edges").findall("edge"):
            self._inputs.setdefault(edge.attrib["to-layer"], []).append(edge.attrib["from-layer"])
        self._constants: dict[str, frozenset[str] | None] = {}

    def multiplied(self) -> frozenset[str]:
        """Return the ids of the constants from which alone an input of a matrix multiplication is
        computed."""
        found: set[str] = set()
        for layer, kind in self._kinds.items():
            if kind == "MatMul":
                for source in self._inputs.get(layer, []):
                    found |= self._constants_of(source) or frozenset()
        return frozenset(found)

    def _constants_of(self, layer: str) -> frozenset[str] | None:
        """Return the constants from which ``layer`` is computed; None if it has other inputs."""
        todo = [layer]
        while todo:
            here = todo[-1]
            if here in self._constants:
                todo.pop()
                continue
            sources = self._inputs.get(here, [])
            if here in self.sizes or not sources:
                self._constants[here] = frozenset([here]) if here in self.sizes else None
                continue
            unknown = [source for source in sources if source not in self._constants]
            if unknown:
                todo.extend(unknown)
                continue
            parts = [self._constants[source] for source in sources]
            self._constants[here] = None if None in parts else frozenset().union(*parts)
        return self._constants[layer]
