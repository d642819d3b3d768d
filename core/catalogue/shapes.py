"""Parameter count and ``config.json`` of an architecture and shape."""

from __future__ import annotations

from typing import Any

from core.catalogue.model import Shape


def parameter_count(architecture: str, shape: Shape) -> int:
    """Return the number of weights of a model of this shape, embeddings included.

    Args:
        architecture: ``gpt_neox``, ``llama``, ``mistral`` or ``phi``.

    Raises:
        ValueError: the architecture is not one of these.
    """
    hidden, inner, vocabulary = shape.hidden, shape.intermediate, shape.vocabulary
    embeddings = vocabulary * hidden * (1 if shape.tied_embeddings else 2)
    match architecture:
        case "gpt_neox":
            attention = 4 * hidden * hidden + 4 * hidden
            feed_forward = 2 * hidden * inner + inner + hidden
            layer, outside = attention + feed_forward + 4 * hidden, 2 * hidden
        case "llama" | "mistral":
            kv_width = hidden // shape.heads * shape.kv_heads
            attention = 2 * hidden * hidden + 2 * hidden * kv_width
            layer, outside = attention + 3 * hidden * inner + 2 * hidden, hidden
        case "phi":
            attention = 4 * hidden * hidden + 4 * hidden
            feed_forward = 2 * hidden * inner + inner + hidden
            layer, outside = attention + feed_forward + 2 * hidden, 2 * hidden + vocabulary
        case _:
            raise ValueError(f"unknown parameter count of architecture {architecture!r}")
    return embeddings + shape.layers * layer + outside


def transformers_config(architecture: str, shape: Shape) -> dict[str, Any]:
    """Return the arguments of ``AutoConfig.for_model`` for a model of this shape."""
    config: dict[str, Any] = {
        "model_type": architecture,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": shape.tied_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
    }
    match architecture:
        case "gpt_neox":
            config["use_parallel_residual"] = shape.parallel_residual
            config["rope_parameters"]["partial_rotary_factor"] = shape.rotary_fraction
        case "phi":
            config["num_key_value_heads"] = shape.kv_heads
            config["hidden_act"] = "gelu_new"
            config["rope_parameters"]["partial_rotary_factor"] = shape.rotary_fraction
        case "llama":
            config["num_key_value_heads"] = shape.kv_heads
        case "mistral":
            config["num_key_value_heads"] = shape.kv_heads
            config["sliding_window"] = None  # as in v0.2; the library's default is 4096
        case _:
            raise ValueError(f"no configuration for architecture {architecture!r}")
    return config


def shape_from_config(config: dict[str, Any]) -> Shape:
    """Return the shape described by a ``config.json`` of any of the four architectures.

    Raises:
        KeyError: the configuration lacks a required size.
    """
    heads = config["num_attention_heads"]
    # transformers 5 groups the rotary settings; earlier releases have them at the top level.
    rope = {
        "partial_rotary_factor": config.get("partial_rotary_factor", config.get("rotary_pct")),
        "rope_theta": config.get("rope_theta", config.get("rotary_emb_base")),
    } | (config.get("rope_parameters") or {})
    neox = config.get("model_type") == "gpt_neox"
    return Shape(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        rotary_fraction=_or(rope["partial_rotary_factor"], 1.0),
        rope_theta=_or(rope["rope_theta"], 10_000.0),
        parallel_residual=bool(config.get("use_parallel_residual", neox)),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
