"""Size of the KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ELEMENT_BYTES = {"u8": 1, "i8": 1, "f16": 2, "bf16": 2, "f32": 4}
"""Bytes per element, by OpenVINO's name of the element type."""

_QUANTIZED = ("u8", "i8")

_SCALE_AND_ZERO_POINT_BYTES = 8
"""Two float32 that OpenVINO's CPU plugin stores with each head's 8-bit key and value."""


def kv_bytes_per_position(config: Mapping[str, Any], kv_precision: str | None) -> int | None:
    """Return the bytes of the KV cache per token: keys and values of all layers.

    Args:
        config: the content of ``config.json``.
        kv_precision: OpenVINO's name of the element type.

    Returns:
        None if the configuration lacks a size or the precision is unknown.
    """
    size = ELEMENT_BYTES.get(kv_precision or "")
    try:
        heads = int(config["num_attention_heads"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        width = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
        layers = int(config["num_hidden_layers"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if size is None:
        return None
    per_head = width * size + (_SCALE_AND_ZERO_POINT_BYTES if kv_precision in _QUANTIZED else 0)
    return 2 * layers * kv_heads * per_head
