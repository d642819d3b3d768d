"""Computes the bytes that a model reads for one token, which bound its decode rate by memory
bandwidth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.catalogue.shapes import known_shape, parameters_of_config
from core.runtimes.kv_cache import ELEMENT_BYTES
from core.store.weights import IR_XML, read_graph


def weight_bytes(folder: Path) -> int:
    """Return the bytes of weights that an IR reads for a token.

    Raises:
        CorruptModelError: the IR is not readable.
    """
    return read_graph(folder / IR_XML).multiplied_bytes


def checkpoint_weight_bytes(config: Mapping[str, Any], precision: str | None) -> int | None:
    """Return the same for a PyTorch checkpoint loaded in this precision, from its configuration.

    Norms and biases, less than a thousandth, are included.

    Returns:
        None if the architecture's parameter count or the precision is unknown.
    """
    size, shape, count = (
        ELEMENT_BYTES.get(precision or ""),
        known_shape(config),
        parameters_of_config(config),
    )
    if size is None or shape is None or count is None:
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
