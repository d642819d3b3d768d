"""GGML's tensor types: the layout of their blocks, and dequantisation.

A block contains a fixed number of consecutive weights of one row. Most quantised types consist of
groups of integers with a scale and an optional minimum: ``weight = integer * scale + minimum``. The
others are only dequantised, by the ``gguf`` package. The layouts are those of llama.cpp's
``ggml-quants.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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

    def reordered(self, order: NDArray[np.int64]) -> Groups:
        """Return the groups with the rows in another order."""
        minimum = None if self.minimum is None else self.minimum[order]
        return Groups(self.integers[order], self.scale[order], minimum)


@dataclass(frozen=True)
class TensorType:
    """One of GGML's tensor types."""

    name: str
    block_weights: int
    """Weights of a block."""
    block_bytes: int
    unpack: Callable[[Bytes], Groups] | None = None
    """Unpacks an array of (rows, blocks, ``block_bytes``); None if it has no such groups."""
    bits: int = 16
    """Bits of an integer of :attr:`unpack`, 4 or 8; 16 for other types."""

    @property
    def kept(self) -> bool:
        """Whether an OpenVINO model can have these weights as stored; else only dequantised."""
        return self.unpack is not None or self.name in ("F32", "F16", "BF16")

    def floats(self, raw: Bytes) -> Floats:
        """Return the weights of a tensor's bytes as a flat array of float32."""
        import gguf

        return gguf.dequantize(raw, gguf.GGMLQuantizationType[self.name]).reshape(-1)


def _half(raw: Bytes) -> Floats:
    """Return the float16 in the two bytes of each block's slice, as float32: (..., 1)."""
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _nibbles(raw: Bytes) -> Bytes:
    """Return the low four bits of all bytes, then the high four bits; doubles the last axis."""
    return np.concatenate((raw & 15, raw >> 4), axis=-1)


def _groups(integers: NDArray[Any], scale: Floats, minimum: Floats | None = None) -> Groups:
    """Return groups from arrays with any shape of a row; there is one scale for each group."""
    rows = len(integers)
    scale = scale.reshape(rows, -1, 1)
    minimum = None if minimum is None else minimum.reshape(rows, -1, 1)
    return Groups(integers.reshape(rows, scale.shape[1], -1), scale, minimum)


def _q4_0(blocks: Bytes) -> Groups:
    integers = _nibbles(blocks[..., 2:]).view(np.int8) - np.int8(8)
    return _groups(integers, _half(blocks[..., :2]))


def _q4_1(blocks: Bytes) -> Groups:
    integers = _nibbles(blocks[..., 4:])
    return Groups(integers, _half(blocks[..., :2]), _half(blocks[..., 2:4]))


def _q8_0(blocks: Bytes) -> Groups:
    integers = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return _groups(integers, _half(blocks[..., :2]))


def _q4_k(blocks: Bytes) -> Groups:
    rows, count, _ = blocks.shape
    # Eight 6-bit scales and eight 6-bit minima in twelve bytes.
    packed = blocks[..., 4:16]
    low, middle, high = packed[..., 0:4], packed[..., 4:8], packed[..., 8:12]
    scales = np.concatenate((low & 63, (high & 15) | ((low >> 6) << 4)), axis=-1)
    minima = np.concatenate((middle & 63, (high >> 4) | ((middle >> 6) << 4)), axis=-1)
    integers = _nibbles(blocks[..., 16:].reshape(rows, count, 4, 32))
    return _groups(integers, _half(blocks[..., :2]) * scales, -_half(blocks[..., 2:4]) * minima)


def _q6_k(blocks: Bytes) -> Groups:
    rows, count, _ = blocks.shape
    low = blocks[..., :128].reshape(rows, count, 2, 2, 32)
    high = blocks[..., 128:192].reshape(rows, count, 2, 1, 32)
    four = np.concatenate((low & 15, low >> 4), axis=3)  # (rows, count, 2, 4, 32)
    two = (high >> np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)) & 3
    integers = (four | (two << 4)).view(np.int8) - np.int8(32)
    scales = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8)
    return _groups(integers, _half(blocks[..., 208:]) * scales)


def _q2_k(blocks: Bytes) -> Groups:
    scales = blocks[..., :16]
    scale = _half(blocks[..., 80:82]) * (scales & 15)
    minimum = -_half(blocks[..., 82:84]) * (scales >> 4)
    return _groups(_two_bits(blocks[..., 16:80]), scale, minimum)


def _q3_k(blocks: Bytes) -> Groups:
    rows, count, _ = blocks.shape
    shifts = np.arange(8, dtype=np.uint8).reshape(2, 4, 1)
    high = (blocks[..., :32].reshape(rows, count, 1, 1, 32) >> shifts) & 1
    integers = (_two_bits(blocks[..., 32:96]) | (high << 2)).view(np.int8) - np.int8(4)
    packed = blocks[..., 96:108]
    upper = packed[..., None, 8:] >> np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)
    upper = (upper & 3).reshape(rows, count, 16) << 4
    scales = (_nibbles(packed[..., :8]) | upper).view(np.int8) - np.int8(32)
    return _groups(integers, _half(blocks[..., 108:]) * scales)


def _two_bits(raw: Bytes) -> Bytes:
    """Return the two-bit integers of K-quants: (rows, blocks, halves, shifts, 32)."""
    halves = raw.reshape(*raw.shape[:2], 2, 1, 32)
    return (halves >> np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)) & 3


def _q5(blocks: Bytes, at: int) -> Bytes:
    """Return the five-bit integers of a block whose upper bits start at byte ``at``."""
    upper = np.unpackbits(blocks[..., at : at + 4], axis=-1, bitorder="little")
    return _nibbles(blocks[..., at + 4 :]) | (upper << 4)


def _q5_0(blocks: Bytes) -> Groups:
    integers = _q5(blocks, 2).view(np.int8) - np.int8(16)
    return _groups(integers, _half(blocks[..., :2]))


def _q5_1(blocks: Bytes) -> Groups:
    return Groups(_q5(blocks, 4), _half(blocks[..., :2]), _half(blocks[..., 2:4]))


def _q5_k(blocks: Bytes) -> Groups:
    rows, count, _ = blocks.shape
    lower = _q4_k(np.concatenate((blocks[..., :16], blocks[..., 48:]), axis=-1))
    shifts = np.arange(8, dtype=np.uint8).reshape(8, 1)
    upper = (blocks[..., None, 16:48] >> shifts) & 1
    integers = lower.integers | (upper.reshape(rows, count * 8, 32) << 4)
    return Groups(integers, lower.scale, lower.minimum)


_IQ4 = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.int8
)
"""The sixteen values of IQ4_NL and IQ4_XS."""


def _iq4_nl(blocks: Bytes) -> Groups:
    return _groups(_IQ4[_nibbles(blocks[..., 2:])], _half(blocks[..., :2]))


def _iq4_xs(blocks: Bytes) -> Groups:
    rows, count, _ = blocks.shape
    upper = np.ascontiguousarray(blocks[..., 2:4]).view("<u2")
    upper = (upper >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    lower = np.stack((blocks[..., 4:8] & 15, blocks[..., 4:8] >> 4), axis=-1)
    scales = (lower.reshape(rows, count, 8) | (upper << 4)).astype(np.int8) - np.int8(32)
    integers = _IQ4[_nibbles(blocks[..., 8:].reshape(rows, count, 8, 16))]
    return _groups(integers, _half(blocks[..., :2]) * scales)


TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18, _q4_0, bits=4),
    3: TensorType("Q4_1", 32, 20, _q4_1, bits=4),
    6: TensorType("Q5_0", 32, 22, _q5_0, bits=8),
    7: TensorType("Q5_1", 32, 24, _q5_1, bits=8),
    8: TensorType("Q8_0", 32, 34, _q8_0, bits=8),
    10: TensorType("Q2_K", 256, 84, _q2_k, bits=4),
    11: TensorType("Q3_K", 256, 110, _q3_k, bits=4),
    12: TensorType("Q4_K", 256, 144, _q4_k, bits=4),
    13: TensorType("Q5_K", 256, 176, _q5_k, bits=8),
    14: TensorType("Q6_K", 256, 210, _q6_k, bits=8),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18, _iq4_nl, bits=8),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136, _iq4_xs, bits=8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
}
"""Supported types by their number in the file."""
