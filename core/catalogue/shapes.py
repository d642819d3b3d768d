"""Parameter count and ``config.json`` of an architecture and shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.catalogue.model import Shape

LLAMA_LIKE = frozenset(
    ["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text", "smollm3", "granite", "gpt_oss"]
)
"""Architectures with RMS norms and a gated feed-forward layer."""

_TIED_BY_DEFAULT = ("gemma", "gemma2", "gemma3_text", "smollm3")
"""Their released ``config.json`` does not mention tied embeddings."""


def parameter_count(architecture: str, shape: Shape) -> int:
    """Return the number of weights of a model of this shape, embeddings included.

    Args:
        architecture: ``gpt_neox``, ``phi`` or one of :data:`LLAMA_LIKE`.

    Raises:
        ValueError: the architecture is not one of these.
    """
    hidden, inner, vocabulary = shape.hidden, shape.intermediate, shape.vocabulary
    embeddings = vocabulary * hidden * (1 if shape.tied_embeddings else 2)
    if architecture in LLAMA_LIKE:
        return embeddings + shape.layers * _llama_like_layer(architecture, shape) + hidden
    if architecture not in ("gpt_neox", "phi"):
        raise ValueError(f"unknown parameter count of architecture {architecture!r}")
    attention = 4 * hidden * hidden + 4 * hidden
    feed_forward = 2 * hidden * inner + inner + hidden
    norms, outside = (
        (4 * hidden, 2 * hidden)
        if architecture == "gpt_neox"
        else (2 * hidden, 2 * hidden + vocabulary)
    )
    return embeddings + shape.layers * (attention + feed_forward + norms) + outside


def active_share(shape: Shape | None, parameters: int) -> float:
    """Return the share of the matrices' weights that process a token: without its idle experts.

    Args:
        parameters: of the whole model; some of its layers may be dense.
    """
    if shape is None or not shape.active_experts:
        return 1.0
    embeddings = shape.vocabulary * shape.hidden
    matrices = max(parameters - (0 if shape.tied_embeddings else embeddings), embeddings)
    expert = 3 * shape.hidden * (shape.expert_intermediate or shape.intermediate)
    idle = shape.layers * (shape.experts - shape.active_experts) * expert
    most = (matrices - embeddings) * (1 - shape.active_experts / shape.experts)
    return 1 - min(idle, most) / matrices


def _llama_like_layer(architecture: str, shape: Shape) -> int:
    hidden, inner = shape.hidden, shape.intermediate
    width, kv_width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    layer = 2 * hidden * width + 2 * hidden * kv_width + 3 * hidden * inner + 2 * hidden
    match architecture:
        case "qwen2":
            layer += width + 2 * kv_width
        case "qwen3":
            layer += 2 * shape.head_width
        case "gemma3_text":
            layer += 2 * shape.head_width + 2 * hidden
        case "gpt_oss":
            expert = 3 * hidden * inner + 2 * inner + hidden
            layer += shape.experts * (expert + hidden + 1) - 3 * hidden * inner
            layer += width + 2 * kv_width + hidden + shape.heads  # biases, attention sinks
    return layer


def transformers_config(architecture: str, shape: Shape) -> dict[str, Any]:
    """Return the arguments of ``AutoConfig.for_model`` for a model of this shape."""
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    config: dict[str, Any] = {
        "model_type": architecture,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": shape.tied_embeddings,
        "rope_parameters": rope,
    }
    if architecture in ("gpt_neox", "phi", "phi3"):
        rope["partial_rotary_factor"] = shape.rotary_fraction
    if architecture != "gpt_neox":
        config["num_key_value_heads"] = shape.kv_heads
    if shape.head_dim is not None:
        config["head_dim"] = shape.head_dim
    match architecture:
        case "gpt_neox":
            config["use_parallel_residual"] = shape.parallel_residual
        case "phi":
            config["hidden_act"] = "gelu_new"
        case "mistral":
            config["sliding_window"] = None  # as in v0.2; the library's default is 4096
        case "qwen3":
            config["head_dim"] = shape.head_width  # the library's default is 128
        case "gemma3_text":
            local = {"rope_type": "default", "rope_theta": 10_000.0}
            config["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
            config["sliding_window"] = 512
        case "gpt_oss":
            config["num_local_experts"] = shape.experts
            config["num_experts_per_tok"] = shape.active_experts
        case _ if architecture not in LLAMA_LIKE:
            raise ValueError(f"no configuration for architecture {architecture!r}")
    return config


def shape_from_config(config: Mapping[str, Any]) -> Shape:
    """Return the shape described by a ``config.json``.

    Raises:
        KeyError: the configuration lacks a required size.
    """
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    # transformers 5 groups the rotary settings, by kind of layer if there are several; earlier
    # releases have them at the top level.
    grouped = config.get("rope_parameters") or {}
    rope = {
        "partial_rotary_factor": config.get("partial_rotary_factor", config.get("rotary_pct")),
        "rope_theta": config.get("rope_theta", config.get("rotary_emb_base")),
    } | grouped.get("full_attention", grouped)
    architecture = config.get("model_type")
    neox, tied = architecture == "gpt_neox", architecture in _TIED_BY_DEFAULT
    head_dim = config.get("head_dim")
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((config[name] for name in names if config.get(name)), 0)
    return Shape(
        hidden=hidden,
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        rotary_fraction=_or(rope["partial_rotary_factor"], 1.0),
        rope_theta=_or(rope["rope_theta"], 10_000.0),
        parallel_residual=bool(config.get("use_parallel_residual", neox)),
        tied_embeddings=bool(config.get("tie_word_embeddings", tied)),
        head_dim=head_dim if head_dim and head_dim * heads != hidden else None,
        experts=experts,
        active_experts=config.get("num_experts_per_tok") or 0 if experts else 0,
        expert_intermediate=config.get("moe_intermediate_size") or 0 if experts else 0,
    )


def known_shape(config: Mapping[str, Any]) -> Shape | None:
    """Return the shape described by a ``config.json``, or None if it lacks a size."""
    try:
        return shape_from_config(config)
    except (KeyError, TypeError, AttributeError):
        return None


def parameters_of_config(config: Mapping[str, Any]) -> int | None:
    """Return the parameter count of a ``config.json``; None for unknown architectures and sizes."""
    shape = known_shape(config)
    try:
        return parameter_count(str(config.get("model_type")), shape) if shape else None
    except (ValueError, TypeError):
        return None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
