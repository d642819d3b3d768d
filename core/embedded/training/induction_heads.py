"""Initialise attention heads as induction heads, so that the model can copy before training.

Nearly every question about a passage requires copying from it, which transformers do with
induction heads (Olsson et al. 2022, "In-context Learning and Induction Heads"): a
previous-token head in the first layer stores at each position which token came before it, and an
induction head in the second layer attends to the position that stores the current token and copies
the token there. A small model on two cores learns these only after millions of tokens. Here the
weights of some heads are initialised so that they do this from the first step; training then
changes them freely.

All vectors are random: orthonormal directions of the hidden space are divided between the token
embeddings and the stored previous tokens, and the output layer starts as a copy of the input
embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

EMBEDDING_STD = 0.05
PREVIOUS_TOKEN_HEADS = 2
"""Heads of the first layer that store the previous token."""
INDUCTION_HEADS = 4
"""Heads of the second layer that find the stored token and copy."""
POSITION_SHARPNESS = 6.6
"""Length of the constant query and key in each rotary pair of a previous-token head; the score of
the previous token then exceeds that of its neighbours by about 4."""
MATCH_SHARPNESS = 1.8
"""Scale of an induction head's query and key; a match then scores about 10."""
OTHER_SCALE = 0.1
"""Initial factor on the outputs of all other heads and layers, so that copying dominates."""
COPY_SCALE = 0.2
"""Scale of a copied token in the residual stream."""


@dataclass(frozen=True)
class _Head:
    """Views of one attention head's weights: (head size, hidden), output (hidden, head size)."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    query_bias: Tensor | None
    key_bias: Tensor | None


def add_induction_heads(network: PreTrainedModel) -> None:
    """Set the embeddings and the heads' weights of an untrained network in place."""
    import torch

    hidden = network.config.hidden_size
    basis = torch.linalg.qr(torch.randn(hidden, hidden))[0]
    size = hidden // network.config.num_attention_heads
    stored = basis[:, : PREVIOUS_TOKEN_HEADS * size]
    constant = basis[:, PREVIOUS_TOKEN_HEADS * size]
    words = basis[:, PREVIOUS_TOKEN_HEADS * size + 1 :]
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(
                ("dense.weight", "o_proj.weight", "4h_to_h.weight", "down_proj.weight")
            ):
                weight.mul_(OTHER_SCALE)
        _embed(network, words, constant)
        for index in range(PREVIOUS_TOKEN_HEADS):
            _set_previous_token_head(network, index, stored, words, constant)
        for index in range(INDUCTION_HEADS):
            _set_induction_head(network, index, stored, words)


def _embed(network: PreTrainedModel, words: Tensor, constant: Tensor) -> None:
    import torch

    table = network.get_input_embeddings().weight
    drawn = torch.nn.functional.normalize(torch.randn(table.shape[0], words.shape[1]))
    drawn *= EMBEDDING_STD * table.shape[1] ** 0.5
    network.get_output_embeddings().weight.copy_(drawn @ words.T)
    table.copy_(drawn @ words.T)
    if network.config.model_type == "llama":  # no biases: a constant component replaces them
        table.add_(constant * EMBEDDING_STD * table.shape[1] ** 0.5)


def _rotary_pairs(network: PreTrainedModel, size: int) -> tuple[int, Tensor]:
    """Return a head's number of rotary dimensions, and the angle per position of each pair."""
    import torch

    config = network.config
    share = config.rope_parameters.get("partial_rotary_factor", 1.0)
    rotary = int(size * share)
    theta = config.rope_parameters["rope_theta"]
    return rotary, theta ** -(torch.arange(0, rotary, 2).float() / rotary)


def _set_previous_token_head(
    network: PreTrainedModel, index: int, stored: Tensor, words: Tensor, constant: Tensor
) -> None:
    import torch

    head = _head(network, 0, index)
    size = head.query.shape[0]
    rotary, angles = _rotary_pairs(network, size)
    half = rotary // 2
    fast = (angles > 0.05).float() * POSITION_SHARPNESS
    key = torch.zeros(size)
    key[:half] = fast
    query = torch.zeros(size)
    query[:half] = fast * torch.cos(angles)
    query[half:rotary] = -fast * torch.sin(angles)
    head.query.zero_()
    head.key.zero_()
    if head.query_bias is not None and head.key_bias is not None:
        head.query_bias.copy_(query)
        head.key_bias.copy_(key)
    else:
        # Half of the normalised embedding's squared length (the hidden size) is constant.
        read = constant / (words.shape[0] / 2) ** 0.5
        head.query.copy_(torch.outer(query, read))
        head.key.copy_(torch.outer(key, read))
    own = slice(index * size, (index + 1) * size)
    head.value.copy_(_coder(words, index, size))
    head.output.copy_(stored[:, own] * 1.4 * EMBEDDING_STD)


def _coder(words: Tensor, index: int, size: int) -> Tensor:
    """Return the (size, hidden) projection in which a previous-token head stores tokens."""
    return words[:, index * size : (index + 1) * size].T


def _set_induction_head(
    network: PreTrainedModel, index: int, stored: Tensor, words: Tensor
) -> None:
    import torch

    head = _head(network, 1, index)
    size = head.query.shape[0]
    rotary, angles = _rotary_pairs(network, size)
    half = rotary // 2
    # Only dimensions that rotate little within a passage, or not at all, can carry the match.
    slow = [pair for pair in range(half) if angles[pair] < 0.01] if rotary == size else []
    free = [*range(rotary, size), *slow, *(pair + half for pair in slow)]
    note = index % PREVIOUS_TOKEN_HEADS
    start = (index // PREVIOUS_TOKEN_HEADS) * (size // 2)
    code = torch.tensor([(start + offset) % size for offset in range(len(free))])
    head.query.zero_()
    head.key.zero_()
    head.query[free] = MATCH_SHARPNESS * _coder(words, note, size)[code]
    head.key[free] = MATCH_SHARPNESS * stored[:, note * size : (note + 1) * size].T[code]
    copied = words[:, [(index * size + offset) % words.shape[1] for offset in range(size)]]
    head.value.copy_(copied.T)
    head.output.copy_(copied * COPY_SCALE)


def _head(network: PreTrainedModel, layer: int, index: int) -> _Head:
    """Return a head's weights; with grouped-query attention, the first query head of a group."""
    config = network.config
    block = network.base_model.layers[layer]
    size = config.hidden_size // config.num_attention_heads
    if config.model_type == "gpt_neox":
        fused = block.attention.query_key_value
        rows = [
            slice((3 * index + part) * size, (3 * index + part + 1) * size) for part in range(3)
        ]
        return _Head(
            *(fused.weight[row] for row in rows),
            block.attention.dense.weight[:, index * size : (index + 1) * size],
            fused.bias[rows[0]],
            fused.bias[rows[1]],
        )
    attention = block.self_attn
    group = config.num_attention_heads // config.num_key_value_heads
    own = slice(index * size, (index + 1) * size)
    query = slice(index * group * size, (index * group + 1) * size)
    return _Head(
        attention.q_proj.weight[query],
        attention.k_proj.weight[own],
        attention.v_proj.weight[own],
        attention.o_proj.weight[:, query],
        None,
        None,
    )
