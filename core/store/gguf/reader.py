"""Read GGUF files (versions 2 and 3): metadata, and memory-mapped tensors.

All values are checked against the file's size before use: an impossible count is refused before
memory for it is allocated.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core.catalogue import Precision, Shape
from core.errors import CorruptModelError, NotAModelError
from core.store.gguf.blocks import OTHER_TYPES, TENSOR_TYPES, Bytes, Floats, Groups, TensorType

ARCHITECTURES = ("llama", "qwen2", "qwen3")

_VERSIONS = (2, 3)
_LONGEST_NAME = 2**16
"""Longest key or tensor name in bytes; the format's limit for keys, far above any tensor name."""
_MOST_DIMENSIONS = 4

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Tensor:
    """A tensor, memory-mapped from the file."""

    name: str
    shape: tuple[int, ...]
    """In NumPy's order: rows before columns."""
    type: TensorType
    raw: Bytes

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
        return self.type.floats(self.raw).reshape(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """Content of a GGUF file."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

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
                f"{self.path.name} {state} {name}, so it cannot be read. Download or copy it again."
            )
        return found

    @property
    def architecture(self) -> str:
        """``general.architecture``."""
        return str(self.metadata.get("general.architecture"))


@dataclass(frozen=True)
class GgufSummary:
    """Description of a file for pages; small enough to cache."""

    shape: Shape
    parameters: int
    types: dict[str, int]
    """Parameters by tensor type, most first."""
    recipe: str
    """Tensor type of most weights of the layers, such as Q4_1."""
    bytes: int

    @property
    def weights(self) -> Precision | None:
        """Precision that corresponds to the weights; None for BF16."""
        if any(name.startswith("Q4") for name in self.types):
            return Precision.INT4
        by_type = {"F32": Precision.FP32, "F16": Precision.FP16, "BF16": None}
        return by_type.get(self.recipe, Precision.INT8)


def summary(path: Path) -> GgufSummary:
    """Describe a file; cached until the file changes.

    Raises:
        NotAModelError, CorruptModelError: see :func:`read_gguf` and :func:`shape_of`.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    return _summary(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _summary(path: Path, size: int, _mtime_ns: int) -> GgufSummary:
    file = read_gguf(path)
    types: dict[str, int] = {}
    of_layers: dict[str, int] = {}
    for tensor in file.tensors.values():
        types[tensor.type.name] = types.get(tensor.type.name, 0) + tensor.count
        if tensor.name.startswith("blk."):
            of_layers[tensor.type.name] = of_layers.get(tensor.type.name, 0) + tensor.count
    return GgufSummary(
        shape=shape_of(file),
        parameters=sum(types.values()),
        types=dict(sorted(types.items(), key=lambda item: -item[1])),
        recipe=max(of_layers, key=of_layers.__getitem__),
        bytes=size,
    )


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
        raise _unreadable(file.path, "it has no token embeddings of the model's width")
    kv_heads = file.value("{arch}.attention.head_count_kv", int, heads)
    if min(layers, hidden, heads, kv_heads) < 1 or heads % kv_heads or layers > len(file.tensors):
        raise _unreadable(file.path, "its number of layers or heads is impossible")
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
    )


def read_gguf(path: Path) -> GgufFile:
    """Read the metadata of a file and memory-map its tensors.

    Raises:
        CorruptModelError: it is truncated or damaged.
        NotAModelError: it is not a GGUF file, or its version, architecture or a tensor type is not
            supported.
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise _unreadable(path, str(error)) from error
    cursor = _Cursor(data)
    try:
        tensor_count, pair_count = _header(path, cursor)
        metadata = {}
        for _ in range(pair_count):
            key = cursor.text(_LONGEST_NAME)
            if key in metadata:
                raise ValueError(f"it has {key[:80]!r} twice")
            metadata[key] = cursor.value(cursor.scalar("I"))
        architecture = metadata.get("general.architecture")
        if architecture not in ARCHITECTURES:
            raise NotAModelError(
                f"{path.name} has the architecture {str(architecture)[:40]!r}; only GGUF files of "
                f"{', '.join(ARCHITECTURES)} are supported. Use the model's safetensors instead."
            )
        tensors = _tensors(path, cursor, tensor_count, metadata)
    except (ValueError, IndexError, struct.error) as error:
        raise _unreadable(path, str(error)) from error
    return GgufFile(path, metadata, tensors)


def _header(path: Path, cursor: _Cursor) -> tuple[int, int]:
    if bytes(cursor.take(4)) != b"GGUF":
        raise NotAModelError(f"{path.name} does not start like a GGUF file. Choose another file.")
    version = cursor.scalar("I")
    if version not in _VERSIONS:
        raise NotAModelError(
            f"{path.name} has GGUF version {version}; only versions 2 and 3 in little-endian order "
            "are supported. Convert it again with llama.cpp."
        )
    tensor_count, pair_count = cursor.scalar("Q"), cursor.scalar("Q")
    cursor.check_count(tensor_count, 24)  # a name's length, a dimension, a type and an offset
    cursor.check_count(pair_count, 13)  # a key's length, a type and a byte
    if not tensor_count:
        raise ValueError("it has no tensors")
    return tensor_count, pair_count


def _tensors(
    path: Path, cursor: _Cursor, count: int, metadata: dict[str, Any]
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
            raise NotAModelError(
                f"{path.name} has tensors of type {OTHER_TYPES.get(number, number)} "
                f"({name[:80]}); only {', '.join(item.name for item in TENSOR_TYPES.values())} are "
                "supported. Choose another quantisation of the model."
            )
        found.append((name, shape, TENSOR_TYPES[number], offset))
    begin = -(-cursor.at // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for name, shape, kind, offset in found:
        weights = math.prod(shape)
        if name in tensors or not weights or shape[0] % kind.block_weights:
            raise ValueError(f"{name[:80]!r} has an impossible shape, or occurs twice")
        size = weights // kind.block_weights * kind.block_bytes
        if begin + offset + size > len(cursor.data):
            raise ValueError(f"it is truncated before the end of {name[:80]!r}")
        raw = cursor.data[begin + offset : begin + offset + size]
        tensors[name] = Tensor(name, shape[::-1], kind, raw)
    return tensors


class _Cursor:
    """Position in the header of the file.

    Its methods raise ValueError if the file ends too early.
    """

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.at = 0
        self._buffer = memoryview(data)

    def take(self, size: int) -> memoryview:
        end = self.at + size
        if end > len(self._buffer):
            raise ValueError(f"it is truncated at {len(self._buffer)} bytes")
        taken = self._buffer[self.at : end]
        self.at = end
        return taken

    def check_count(self, count: int, least_bytes: int) -> None:
        """Check that the rest of the file can contain ``count`` entries."""
        if count * least_bytes > len(self._buffer) - self.at:
            raise ValueError(f"it is too short for the {count} entries that it announces")

    def scalar(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self, longest: int | None = None) -> str:
        size = self.scalar("Q")
        if longest is not None and size > longest:
            raise ValueError(f"a name in it has {size} bytes")
        return str(self.take(size), "utf-8")

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
            return [self.text() for _ in range(count)]
        if element not in _SCALARS:  # files of these architectures have no nested arrays
            raise ValueError(f"it has an array of unknown type {element}")
        form = np.dtype("<" + _SCALARS[element])
        self.check_count(count, form.itemsize)
        return np.frombuffer(self.take(count * form.itemsize), dtype=form)


def _unreadable(path: Path, why: str) -> CorruptModelError:
    return CorruptModelError(
        f"The GGUF file {path.name} cannot be read ({why[:200]}). Download or copy it again."
    )
