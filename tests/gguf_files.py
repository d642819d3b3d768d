"""Builds tiny GGUF files with random weights, and the transformers model that they stand for.

The ``gguf`` package writes the files and quantises F16, BF16, Q4_0, Q4_1 and Q8_0. It cannot
quantise Q4_K and Q6_K: their blocks are drawn at random, with scales in a sensible range. What a
tensor stands for is told by the package's own dequantisation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.builders import CHAT_TEMPLATE, tiny_tokenizer

ARCHITECTURES = ("llama", "qwen2", "qwen3")
TENSOR_TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K")

HIDDEN, LAYERS, HEADS, KV_HEADS, INNER, POSITIONS = 256, 2, 4, 2, 512, 1024
"""K-quants have blocks of 256 weights, so no row is shorter."""

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@dataclass(frozen=True)
class TinyGguf:
    """A file, and its model in transformers with the dequantised weights."""

    path: Path
    model: Any


def tiny_gguf(
    path: Path,
    architecture: str = "llama",
    tensor_type: str = "Q4_1",
    *,
    tied: bool = False,
    template: str | None = CHAT_TEMPLATE,
    pre: str = "gpt-2",
    rope_factors: bool = False,
    seed: int = 0,
    split: int = 0,
    sentencepiece: list[tuple[str, float, int]] | None = None,
) -> TinyGguf:
    """Write a file and return it with its model.

    Args:
        path: of the file; its folder is made.
        architecture: one of :data:`ARCHITECTURES`.
        tensor_type: of every matrix, one of :data:`TENSOR_TYPES`.
        tied: whether the output layer is the embeddings.
        template: the chat template.
        pre: ``tokenizer.ggml.pre``.
        rope_factors: whether each rotary frequency is divided by a factor, as since Llama 3.1.
        seed: of the weights.
        split: largest number of tensors of a part; 0 for one file.
        sentencepiece: token, score and type of each token of a SentencePiece tokenizer; by default
            the tokenizer is a byte-level BPE.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = tiny_tokenizer(path.parent, special_tokens=("<|im_start|>", "<|im_end|>"))
    tokenizer = json.loads((path.parent / "tokenizer.json").read_text(encoding="utf-8"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path.parent / name).unlink()
    if sentencepiece is not None:
        vocabulary = len(sentencepiece)
    model = _model(architecture, vocabulary, tied=tied, seed=seed)
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    _write_sizes(writer, _head_width(architecture))
    if sentencepiece is not None:
        _write_sentencepiece(writer, sentencepiece)
    else:
        _write_tokenizer(writer, tokenizer, template, pre)
    random = np.random.default_rng(seed)
    state = model.state_dict()
    for name, tensor in list(state.items()):
        if name == "lm_head.weight" and tied:
            continue
        weights, own_name = tensor.float().numpy(), _name(name)
        order = _rotary_order(own_name, weights) if architecture == "llama" else None
        weights = weights if order is None else weights[order]
        kind = gguf.GGMLQuantizationType[tensor_type if weights.ndim == 2 else "F32"]
        raw = _quantised(weights, kind, random)
        writer.add_tensor(own_name, raw, raw_dtype=kind)
        read = np.asarray(gguf.dequantize(raw, kind), dtype=np.float32).reshape(weights.shape)
        if order is not None:
            back = np.empty_like(read)
            back[order] = read
            read = back
        tensor.copy_(_torch(read))
    if rope_factors:
        rotary = model.model.rotary_emb
        factors = np.linspace(1, 8, len(rotary.inv_freq), dtype=np.float32)
        writer.add_tensor("rope_freqs.weight", factors)
        rotary.inv_freq /= _torch(factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.load_state_dict(state)
    return TinyGguf(path, model)


def _model(architecture: str, vocabulary: int, *, tied: bool, seed: int) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture,
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=_head_width(architecture),
        intermediate_size=INNER,
        max_position_embeddings=POSITIONS,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        tie_word_embeddings=tied,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():  # biases and norms that matter
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def _head_width(architecture: str) -> int:
    """Qwen3's heads together are wider than the model."""
    return 2 * HIDDEN // HEADS if architecture == "qwen3" else HIDDEN // HEADS


def _write_sizes(writer: gguf.GGUFWriter, head_width: int, layers: int = LAYERS) -> None:
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_block_count(layers)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50_000.0)
    writer.add_file_type(3)


def _write_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: dict[str, Any], template: str | None, pre: str
) -> None:
    ids = dict(tokenizer["model"]["vocab"])
    special = {added["content"]: added["id"] for added in tokenizer["added_tokens"]}
    tokens = [text for text, _ in sorted((ids | special).items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if text in special else 1 for text in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)


def _write_sentencepiece(writer: gguf.GGUFWriter, tokens: list[tuple[str, float, int]]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _name(name: str) -> str:
    outside = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outside:
        return outside[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_NAMES[module]}.{kind}"


def _rotary_order(name: str, weights: Any) -> Any:
    """llama.cpp's order of the rows of Llama's queries and keys, as its converter has it."""
    if not name.endswith(("attn_q.weight", "attn_k.weight")):
        return None
    rows = np.arange(len(weights))
    heads = HEADS if "attn_q" in name else KV_HEADS
    return rows.reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


_FURTHER = {
    "gemma2": {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 16},
    "gemma3_text": {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 16},
    "phi3": {"sliding_window": None, "original_max_position_embeddings": POSITIONS},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 256,
    },
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
        "head_dim": 64,
        "norm_topk_prob": True,
    },
    "stablelm": {"partial_rotary_factor": 0.25, "use_qkv_bias": True},
    "starcoder2": {"sliding_window": None},
}
"""Settings of the architectures that are read through transformers, by ``model_type``."""


def torch_gguf(path: Path, architecture: str, model_type: str) -> TinyGguf:
    """Write a file of another architecture in F16, as llama.cpp's converter would, and return it
    with its model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = tiny_tokenizer(path.parent, special_tokens=())
    tokenizer = json.loads((path.parent / "tokenizer.json").read_text(encoding="utf-8"))
    rope = {"rope_type": "default", "rope_theta": 50_000.0}
    if model_type == "stablelm":
        rope["partial_rotary_factor"] = 0.25
    if model_type == "gemma3_text":
        rope = {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        }
    layers = 6 if model_type == "gemma3_text" else LAYERS  # with a layer of each kind
    config = AutoConfig.for_model(
        model_type,
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        intermediate_size=INNER,
        max_position_embeddings=POSITIONS,
        rope_parameters=rope,
        tie_word_embeddings=model_type.startswith("gemma"),
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **_FURTHER[model_type],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    writer = gguf.GGUFWriter(path, architecture)
    width = _FURTHER[model_type].get("head_dim", HIDDEN // HEADS)
    _write_sizes(writer, width, layers)
    writer.add_layer_norm_eps(1e-5)
    writer.add_rope_dimension_count(width // 4 if model_type == "stablelm" else width)
    if model_type.endswith("moe"):
        writer.add_expert_count(4)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(256)
    if model_type == "qwen2_moe":
        writer.add_expert_shared_feed_forward_length(256)
    if _FURTHER[model_type].get("sliding_window"):
        writer.add_sliding_window(16)
    if model_type == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    _write_tokenizer(writer, tokenizer, None, "gpt-2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path.parent / name).unlink()
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names = gguf.get_tensor_name_map(number, layers)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            if tensor.ndim > 1:
                tensor.copy_(tensor.half().float())
            for own_name, part in _tensors_of(name, tensor, names):
                if model_type.startswith("gemma") and own_name.endswith("norm.weight"):
                    part = part + 1  # llama.cpp multiplies by the weight itself
                dtype = np.float16 if part.ndim > 1 and "gate_inp" not in own_name else np.float32
                writer.add_tensor(own_name, np.ascontiguousarray(part.numpy().astype(dtype)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return TinyGguf(path, model)


def _tensors_of(name: str, tensor: Any, names: Any) -> list[tuple[str, Any]]:
    """Return the names and values in the file of a parameter: two of one for gate and up."""
    stem, _, ending = name.rpartition(".")
    if name.endswith("experts.gate_up_proj"):
        gate, up = tensor.chunk(2, dim=1)
        block = f"blk.{name.split('.')[2]}"
        return [
            (f"{block}.ffn_gate_exps.weight", gate.contiguous()),
            (f"{block}.ffn_up_exps.weight", up.contiguous()),
        ]
    if name.endswith("experts.down_proj"):
        return [(f"blk.{name.split('.')[2]}.ffn_down_exps.weight", tensor)]
    if name.endswith("shared_expert_gate.weight"):
        tensor = tensor.squeeze(0)
    return [(f"{names.get_name(stem)}.{ending}", tensor)]


def _quantised(weights: Any, kind: gguf.GGMLQuantizationType, random: np.random.Generator) -> Any:
    if kind.name == "F32":
        return np.ascontiguousarray(weights)
    if kind.name not in ("Q4_K", "Q6_K"):
        return gguf.quantize(np.ascontiguousarray(weights), kind)
    rows, columns = weights.shape
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = random.integers(0, 256, (rows, columns // 256, size), dtype=np.uint8)
    if kind.name == "Q4_K":
        # Weights of about ±0.25: a scale of at most 63 steps, and a minimum of half the range.
        blocks[..., :4] = np.array([5e-4, 3.7e-3], dtype=np.float16).view(np.uint8)
    else:
        blocks[..., 208:] = np.array([7e-5], dtype=np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def _torch(weights: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(weights))
