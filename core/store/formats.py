"""Formats of weights: their names, bits, and the precision and mix that they add up to."""

from __future__ import annotations

from collections.abc import Mapping

from core.catalogue import DEFAULT_PRECISION, Precision

FORMATS = {
    "f64": ("FP64", 64),
    "f32": ("FP32", 32),
    "f16": ("FP16", 16),
    "bf16": ("BF16", 16),
    "i16": ("INT16", 16),
    "u16": ("INT16", 16),
    "i8": ("INT8", 8),
    "u8": ("INT8", 8),
    "f8e4m3": ("FP8 E4M3", 8),
    "f8e5m2": ("FP8 E5M2", 8),
    "u6": ("INT6", 6),
    "i4": ("INT4", 4),
    "u4": ("INT4", 4),
    "nf4": ("NF4", 4),
    "f4e2m1": ("FP4", 4),
    "u3": ("INT3", 3),
    "u2": ("INT2", 2),
    "u1": ("INT1", 1),
}
"""Name and bits of the format of a weight, by its element type."""

_BITS = dict(FORMATS.values()) | {"MXFP8 E4M3": 8, "MXFP8 E5M2": 8, "MXFP4": 4, "NVFP4": 4}
"""Bits by name of the format; others are unknown."""

INDEX_TYPES = ("boolean", "i32", "i64", "u32", "u64", "string")
"""Element types of shapes, axes, indices and masks. Every other type counts as a weight, also one
that this list of formats does not know."""

_PRECISIONS = {
    "INT4": Precision.INT4,
    "NF4": Precision.INT4,
    "INT8": Precision.INT8,
    "FP16": Precision.FP16,
    "FP32": Precision.FP32,
}
"""Precisions by format; models of other formats can only be kept as stored."""

_SMALLEST_SHARE = 0.01
"""Smallest share of the parameters at which a compressed format names the model."""


def leading_format(formats: Mapping[str, int]) -> str:
    """Return the format that names a model.

    It is the compressed format with the fewest bits that holds at least one weight of a hundred, as
    a model with INT4 layers and INT8 embeddings is called INT4; for uncompressed weights it is the
    most common one. An unknown type counts as compressed.

    Args:
        formats: parameters by format.
    """
    total = max(sum(formats.values()), 1)
    compressed = [
        name
        for name, count in formats.items()
        if bits_of(name) < 16 and count / total >= _SMALLEST_SHARE
    ]
    if compressed:
        return min(compressed, key=lambda name: (bits_of(name), -formats[name]))
    return max(formats, key=formats.__getitem__, default="no weights")


def precision_of(formats: Mapping[str, int]) -> Precision | None:
    """Return the precision of weights; None for one that can only be kept as stored."""
    return _PRECISIONS.get(leading_format(formats))


def reaches(formats: Mapping[str, int], wanted: Precision) -> bool:
    """Return whether weights have this precision, or can be converted to it.

    Any weights can be kept as stored; only uncompressed ones can be compressed.
    """
    have = precision_of(formats)
    if wanted in (Precision.STORED, have):
        return True
    if bits_of(leading_format(formats)) < 16:
        return False
    if wanted.compressed:
        return True
    return wanted is Precision.FP16 and have is Precision.FP32


def usual_precision(formats: Mapping[str, int]) -> Precision:
    """Return the precision that weights are converted to if none is specified: the default, or
    their own if they cannot be converted to that."""
    if reaches(formats, DEFAULT_PRECISION):
        return DEFAULT_PRECISION
    return precision_of(formats) or Precision.STORED


def mix_text(formats: Mapping[str, int]) -> str:
    """Return the formats with their shares: ``INT4 63 %, INT8 37 %``.

    Formats of less than one weight of a hundred are left out, unless their type is unknown.
    """
    total = max(sum(formats.values()), 1)
    shown = sorted(formats.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{name if name in _BITS else f'unknown type {name}'} {100 * count / total:.0f} %"
        for name, count in shown
        if count / total >= _SMALLEST_SHARE or name not in _BITS
    )


def format_of(element_type: str, scale_type: str | None = None) -> str:
    """Return the name of the format of weights with scales of another element type."""
    name = FORMATS.get(element_type, (element_type, 0))[0]
    if name.startswith(("FP4", "FP8")) and scale_type == "f8e8m0":
        return f"MX{name}"
    if name == "FP4" and scale_type in ("f8e4m3", "f8e5m2"):
        return "NVFP4"
    return name


def bits_of(name: str) -> int:
    """Return the bits of a format; 0 for an unknown type."""
    return _BITS.get(name, 0)
