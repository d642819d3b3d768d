"""GGML's tensor types: the layout of their blocks, and dequantisation.

A block contains a fixed number of consecutive weights of one row. Every quantised type here
consists of groups of integers with a scale and an optional minimum:
``weight = integer * scale + minimum``. The layouts are those of llama.cpp's ``ggml-quants.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Groups:
    """Quantised weights of a matrix, or of some of its rows."""

    integers: NDArray[np.int8] | NDArray[np.uint8]
    """(rows, groups, weights of a group); signed if there is no minimum."""
    scale: Floats
    """(rows, groups, 1)."""
    minimum: Floats | None
    """(rows, groups, 1); None if the groups are symmetric."""
    bits: int
    """Bits of an integer: 4 or 8."""

    def dequantised(self) -> Floats:
        """Return the weights: (rows, columns)."""
        weights = self.integers * self.scale
        if self.minimum is not None:
            weights += self.minimum
        return weights.reshape(len(weights), -1)

    def reordered(self, order: NDArray[np.int64]) -> Groups:
        """Return the groups with the rows in another order."""
        minimum = None if self.minimum is None else self.minimum[order]
        return Groups(self.integers[order], self.scale[order], minimum, self.bits)


@dataclass(frozen=True)
class TensorType:
    """One of GGML's tensor types."""

    name: str
    block_weights: int
    """Weights of a block."""
    block_bytes: int
    unpack: Callable[[Bytes], Groups] | None = None
    """Unpacks an array of (rows, blocks, ``block_bytes``); None for floats."""
    dtype: str | None = None
    """NumPy dtype of a float type; bfloat16 is read as ``uint16``."""

    def floats(self, raw: Bytes) -> Floats:
        """Return the weights of a tensor's bytes as a flat array of float32."""
        if self.unpack is not None:
            return self.unpack(raw.reshape(1, -1, self.block_bytes)).dequantised().reshape(-1)
        values = raw.view(self.dtype)
        if self.name == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


def _half(raw: Bytes) -> Floats:
    """Return the float16 in the two bytes of each block's slice, as float32: (..., 1)."""
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _nibbles(raw: Bytes) -> Bytes:
    """Return the low four bits of all bytes, then the high four bits; doubles the last axis."""
    return np.concatenate((raw & 15, raw >> 4), axis=-1)


def _q4_0(blocks: Bytes) -> Groups:
    integers = _nibbles(blocks[..., 2:]).view(np.int8) - np.int8(8)
    return Groups(integers, _half(blocks[..., :2]), None, bits=4)


def _q4_1(blocks: Bytes) -> Groups:
    integers = _nibbles(blocks[..., 4:])
    return Groups(integers, _half(blocks[..., :2]), _half(blocks[..., 2:4]), bits=4)


def _q8_0(blocks: Bytes) -> Groups:
    integers = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return Groups(integers, _half(blocks[..., :2]), None, bits=8)


def _q4_k(blocks: Bytes) -> Groups:
    rows, count, _ = blocks.shape
    # Eight 6-bit scales and eight 6-bit minima in twelve bytes.
    packed = blocks[..., 4:16]
    low, middle, high = packed[..., 0:4], packed[..., 4:8], packed[..., 8:12]
    scales = np.concatenate((low & 63, (high & 15) | ((low >> 6) << 4)), axis=-1)
    minima = np.concatenate((middle & 63, (high >> 4) | ((middle >> 6) << 4)), axis=-1)
    integers = _nibbles(blocks[..., 16:].reshape(rows, count, 4, 32))
    return Groups(
        integers.reshape(rows, count * 8, 32),
        (_half(blocks[..., :2]) * scales).reshape(rows, -1, 1),
        (-_half(blocks[..., 2:4]) * minima).reshape(rows, -1, 1),
        bits=4,
    )


def _q6_k(blocks: Bytes) -> Groups:
    rows, count, _ = blocks.shape
    low = blocks[..., :128].reshape(rows, count, 2, 2, 32)
    high = blocks[..., 128:192].reshape(rows, count, 2, 1, 32)
    four = np.concatenate((low & 15, low >> 4), axis=3)  # (rows, count, 2, 4, 32)
    two = (high >> np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)) & 3
    integers = (four | (two << 4)).view(np.int8) - np.int8(32)
    scales = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8)
    return Groups(
        integers.reshape(rows, count * 16, 16),
        (_half(blocks[..., 208:]) * scales).reshape(rows, -1, 1),
        None,
        bits=8,
    )


TENSOR_TYPES = {
    0: TensorType("F32", 1, 4, dtype="<f4"),
    1: TensorType("F16", 1, 2, dtype="<f2"),
    2: TensorType("Q4_0", 32, 18, _q4_0),
    3: TensorType("Q4_1", 32, 20, _q4_1),
    8: TensorType("Q8_0", 32, 34, _q8_0),
    12: TensorType("Q4_K", 256, 144, _q4_k),
    14: TensorType("Q6_K", 256, 210, _q6_k),
    30: TensorType("BF16", 1, 2, dtype="<u2"),
}
"""Supported types by their number in the file."""

OTHER_TYPES = {
    6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K",
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""Names of unsupported types, for the error message."""
