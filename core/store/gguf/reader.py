"""Read GGUF files (versions 2 and 3): metadata, and memory-mapped tensors.

A model may be split into several files, whose names end in ``-00001-of-00003.gguf``. Of a file on a
hub only the beginning is read, which has the metadata and the list of tensors. All values are
checked against the file's size before use: an impossible count is refused before memory for it is
allocated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.catalogue import Shape
from core.errors import CorruptModelError, NotAModelError
from core.store.gguf.blocks import TENSOR_TYPES, Bytes, Floats, Groups, TensorType
from core.store.names import part_names

BUILT = ("llama", "qwen2", "qwen3")
"""Architectures whose OpenVINO model is built from the file, with the weights as stored."""

THROUGH_TRANSFORMERS = {
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}
"""Architectures whose dequantised weights transformers reads, and their ``model_type``."""

_VERSIONS = (2, 3)
_LONGEST_NAME = 2**16
"""Longest key or tensor name in bytes; the format's limit for keys, far above any tensor name."""
_MOST_DIMENSIONS = 4

_SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Types of values by their number in the file, as in :mod:`struct`."""
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Tensor:
    """A tensor, memory-mapped from the file."""

    name: str
    shape: tuple[int, ...]
    """In NumPy's order: rows before columns."""
    type: TensorType
    raw: Bytes
    """Empty if only the beginning of the file was read."""

    @property
    def count(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    def groups(self) -> Groups:
        """Return the quantised weights of a matrix."""
        assert self.type.unpack is not None
        return self.type.unpack(self.raw.reshape(self.shape[0], -1, self.type.block_bytes))

    def floats(self) -> Floats:
        """Return the dequantised weights in float32."""
        rows = self.raw.reshape(math.prod(self.shape[:-1]), -1)  # dequantised by several at a time
        return self.type.floats(rows).reshape(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """Content of a GGUF file, or of the files of a split model together."""

    name: str
    """Of the (first) file, for messages."""
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    bytes: int
    """Size of all files."""

    def value(self, key: str, kind: type, default: Any = None) -> Any:
        """Return a value of the metadata; ``{arch}`` in ``key`` is replaced by the architecture.

        Raises:
            CorruptModelError: it has another type, or is missing while ``default`` is None.
        """
        name = key.replace("{arch}", self.architecture)
        found = self.metadata.get(name, default)
        wanted = (int, float) if kind is float else kind
        if not isinstance(found, wanted) or (isinstance(found, bool) and kind is not bool):
            state = "lacks" if found is None else "has an unusable value for"
            raise CorruptModelError(
                f"{self.name} {state} {name}, so it cannot be read. Download or copy it again."
            )
        return found

    @property
    def architecture(self) -> str:
        """``general.architecture``."""
        return str(self.metadata.get("general.architecture"))


def shape_of(file: GgufFile) -> Shape:
    """Return the shape of the model in ``file``.

    Raises:
        CorruptModelError: a size is missing or impossible.
    """
    layers = file.value("{arch}.block_count", int)
    hidden = file.value("{arch}.embedding_length", int)
    heads = file.value("{arch}.attention.head_count", int)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2 or embedding.shape[1] != hidden:
        raise unreadable(file.name, "it has no token embeddings of the model's width")
    kv_heads = file.value("{arch}.attention.head_count_kv", int, heads)
    if min(layers, hidden, heads, kv_heads) < 1 or heads % kv_heads or layers > len(file.tensors):
        raise unreadable(file.name, "its number of layers or heads is impossible")
    return Shape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        intermediate=file.value("{arch}.feed_forward_length", int),
        vocabulary=embedding.shape[0],
        positions=file.value("{arch}.context_length", int),
        rope_theta=float(file.value("{arch}.rope.freq_base", float, 10_000.0)),
        tied_embeddings="output.weight" not in file.tensors,
        head_dim=file.value("{arch}.attention.key_length", int, hidden // heads),
        experts=file.value("{arch}.expert_count", int, 0),
        active_experts=file.value("{arch}.expert_used_count", int, 0),
        expert_intermediate=file.value("{arch}.expert_feed_forward_length", int, 0),
    )


class MoreNeeded(Exception):
    """The header continues after the bytes that were read."""


def read_gguf(path: Path) -> GgufFile:
    """Read the metadata of a file and memory-map its tensors; with all parts of a split model.

    Raises:
        CorruptModelError: it is truncated or damaged, or a part is missing.
        NotAModelError: it is not a GGUF file, an adapter, or its version, architecture or a tensor
            type is not supported.
    """
    parts = []
    for name in part_names(path.name):
        part = path.with_name(name)
        try:
            data = np.memmap(part, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise unreadable(name, str(error)) from error
        parts.append(parse(name, data, len(data)))
    return joined(parts)


def parse(name: str, data: Bytes, size: int) -> GgufFile:
    """Parse one file.

    Args:
        data: the file, or its beginning.
        size: of the whole file in bytes.

    Raises:
        MoreNeeded: the header is longer than ``data``.
        CorruptModelError, NotAModelError: see :func:`read_gguf`.
    """
    cursor = _Cursor(data, size)
    try:
        tensor_count, pair_count = _header(name, cursor)
        metadata = {}
        for _ in range(pair_count):
            key = cursor.text(_LONGEST_NAME)
            if key in metadata:
                raise ValueError(f"it has {key[:80]!r} twice")
            metadata[key] = cursor.value(cursor.scalar("I"))
        if "general.architecture" not in metadata and not metadata.get("split.no"):
            raise ValueError("it names no architecture")
        if not metadata.get("split.no"):  # only the first part has the architecture
            _check_architecture(name, metadata)
        tensors = _tensors(name, cursor, tensor_count, metadata)
    except (ValueError, IndexError, struct.error) as error:
        raise unreadable(name, str(error)) from error
    return GgufFile(name, metadata, tensors, size)


def joined(parts: Sequence[GgufFile]) -> GgufFile:
    """Return the files of a split model as one; the first has the metadata.

    Raises:
        CorruptModelError: the parts do not belong together.
    """
    first = parts[0]
    count = int(first.metadata.get("split.count", 1))
    if count != max(len(parts), 1) and not (count == 0 and len(parts) == 1):
        raise unreadable(first.name, f"it is one of {count} parts, of which there are {len(parts)}")
    tensors: dict[str, Tensor] = {}
    for number, part in enumerate(parts):
        if len(parts) > 1 and part.metadata.get("split.no") != number:
            raise unreadable(part.name, f"it is not part {number + 1} of the model")
        if repeated := tensors.keys() & part.tensors.keys():
            raise unreadable(part.name, f"it has {min(repeated)[:80]!r} of another part again")
        tensors |= part.tensors
    if not tensors:
        raise unreadable(first.name, "it has no tensors")
    return GgufFile(first.name, first.metadata, tensors, sum(part.bytes for part in parts))


def _header(name: str, cursor: _Cursor) -> tuple[int, int]:
    if bytes(cursor.take(4)) != b"GGUF":
        raise NotAModelError(f"{name} does not start like a GGUF file. Choose another file.")
    version = cursor.scalar("I")
    if version not in _VERSIONS:
        raise NotAModelError(
            f"{name} has GGUF version {version}; only versions 2 and 3 in little-endian order "
            "are supported. Convert it again with llama.cpp."
        )
    tensor_count, pair_count = cursor.scalar("Q"), cursor.scalar("Q")
    cursor.check_count(tensor_count, 24)  # a name's length, a dimension, a type and an offset
    cursor.check_count(pair_count, 13)  # a key's length, a type and a byte
    return tensor_count, pair_count


def _check_architecture(name: str, metadata: dict[str, Any]) -> None:
    if metadata.get("general.type") == "adapter":
        raise NotAModelError(
            f"{name} is an adapter (LoRA), not a whole model. Use its base model, or a file with "
            "the adapter merged into it."
        )
    architecture = metadata.get("general.architecture")
    supported = (*BUILT, *THROUGH_TRANSFORMERS)
    if architecture not in supported:
        raise NotAModelError(
            f"{name} has the architecture {str(architecture)[:40]!r}; only GGUF files of "
            f"{', '.join(supported)} are supported. Use the model's safetensors instead."
        )


def _tensors(
    file_name: str, cursor: _Cursor, count: int, metadata: dict[str, Any]
) -> dict[str, Tensor]:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError("its alignment is not a power of two")
    found = []
    for _ in range(count):
        name = cursor.text(_LONGEST_NAME)
        dimensions = cursor.scalar("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"{name[:80]!r} has {dimensions} dimensions")
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))
        number, offset = cursor.scalar("I"), cursor.scalar("Q")
        if number not in TENSOR_TYPES:
            from gguf import GGMLQuantizationType

            names = {each.value: each.name for each in GGMLQuantizationType}
            raise NotAModelError(
                f"{file_name} has tensors of type {names.get(number, number)} "
                f"({name[:80]}), which are not supported. Choose another quantisation of the "
                "model, such as Q4_K_M or Q8_0."
            )
        found.append((name, shape, TENSOR_TYPES[number], offset))
    begin = -(-cursor.at // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for name, shape, kind, offset in found:
        weights = math.prod(shape)
        if name in tensors or not weights or shape[0] % kind.block_weights:
            raise ValueError(f"{name[:80]!r} has an impossible shape, or occurs twice")
        size = weights // kind.block_weights * kind.block_bytes
        if begin + offset + size > cursor.size:
            raise ValueError(f"it is truncated before the end of {name[:80]!r}")
        raw = cursor.data[begin + offset : begin + offset + size]
        tensors[name] = Tensor(name, shape[::-1], kind, raw)
    return tensors


class _Cursor:
    """Position in the header of the file.

    Its methods raise ValueError if the file ends too early, and ``MoreNeeded`` if only the part of
    it that was read does.
    """

    def __init__(self, data: Bytes, size: int) -> None:
        self.data = data
        self.size = size
        self.at = 0
        self._buffer = memoryview(data)

    def take(self, size: int) -> memoryview:
        end = self.at + size
        if end > self.size:
            raise ValueError(f"it is truncated at {self.size} bytes")
        if end > len(self._buffer):
            raise MoreNeeded
        taken = self._buffer[self.at : end]
        self.at = end
        return taken

    def check_count(self, count: int, least_bytes: int) -> None:
        """Check that the rest of the file can contain ``count`` entries."""
        if count * least_bytes > self.size - self.at:
            raise ValueError(f"it is too short for the {count} entries that it announces")

    def scalar(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self, longest: int | None = None) -> str:
        size = self.scalar("Q")
        if longest is not None and size > longest:
            raise ValueError(f"a name in it has {size} bytes")
        return str(self.take(size), "utf-8")

    def _texts(self, count: int) -> list[str]:
        """Read strings: hundreds of thousands of a vocabulary, so without a call for each."""
        length, buffer, end = struct.Struct("<Q").unpack_from, self._buffer, self.at
        found = []
        for _ in range(count):
            start = end + 8
            end = start + length(buffer, end)[0] if start <= len(buffer) else start
            if end > len(buffer):
                self.take(end - self.at)  # raises the error
            found.append(str(buffer[start:end], "utf-8"))
        self.at = end
        return found

    def value(self, kind: int) -> Any:
        """Read a value of the metadata: numeric arrays as NumPy arrays, strings as a list."""
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"it has a value of unknown type {kind}")
        element, count = self.scalar("I"), self.scalar("Q")
        if element == _STRING:
            self.check_count(count, 8)
            return self._texts(count)
        if element not in _SCALARS:  # files of these architectures have no nested arrays
            raise ValueError(f"it has an array of unknown type {element}")
        form = np.dtype("<" + _SCALARS[element])
        self.check_count(count, form.itemsize)
        return np.frombuffer(self.take(count * form.itemsize), dtype=form)


def unreadable(name: str, why: str) -> CorruptModelError:
    """Return the error for a truncated or damaged file."""
    return CorruptModelError(
        f"The GGUF file {name} cannot be read ({why[:200]}). Download or copy it again."
    )
