"""Check whether OpenVINO GenAI gives the same results as Optimum Intel for an architecture.

GenAI replaces each attention of an IR by paged attention, and some architectures lose a part of
their attention in this transformation, without an error: MPT and Falcon their ALiBi biases, GPT-Neo
its local window, longrope the switch of its frequencies in the middle of a text. Therefore the
configuration of a model is scaled down to a tiny random model of two layers, window 16 and original
context length 24, and both runtimes continue the same texts with it, some of them longer than the
window and the context length, in FP32 and with exact hints. They either agree within rounding
(0.0000 in log-probability) or clearly differ (0.4 and more).

This is done once, at the end of a conversion; the result is stored in the model's manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from core.store.checkpoint import CONTEXT_LENGTHS, read_json
from core.store.library_env import LIBRARY_ERRORS
from core.store.manifest import GenAICheck, GenAIOutcome
from core.store.optimum_model import load_optimum_model
from core.store.weights import Cache, read_weights
from core.workers.child import one_line

log = logging.getLogger(__name__)

TOLERANCE = 0.02
"""Largest difference of a token's log-probability that counts as rounding. Measured with exact
hints for the architectures that Optimum exports: 0.0000 if the runtimes agree, otherwise at least
0.41."""

EXACT_HINTS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
}

KNOWN_EXACT = frozenset(
    (
        "2c3c429e391cd5ad",  # paddock-neox
        "cae1e7773170cb4c",  # paddock-llama; TinyLlama and Llama 3 in the catalogue
        "0962df3c9ab46f1d",  # SmolLM2 135M Instruct from its GGUF file
        "bb19b60ed3ea2b95",  # GPT-NeoX: Dolly 2.0
        "6d6f774be7b902e4",  # Phi
        "1245ba4e2954de7b",  # Mistral without a window
    )
)
"""Keys of scaled-down configurations and library versions for which the check has passed: those of
the models that come with Paddock and of the architectures of the catalogue. The tests verify them,
so that no user waits for a check before the first answer."""

_LIBRARIES = ("openvino", "openvino-genai", "optimum-intel", "transformers")
"""Libraries on whose versions a result depends."""

_WINDOW = 16
_ORIGINAL_LENGTH = 24
_POSITIONS = 128
_VOCABULARY = 256
_HEAD_SIZE = 32
_PROMPT_PIECE = 16
"""Prompt tokens that GenAI processes in one step here, so that a prompt takes several steps."""

_TEXTS = ((12, 40), (40, 12))
"""Prompt and new tokens: one text exceeds the window during generation, one in its prompt."""


def genai_check(folder: Path) -> GenAICheck:
    """Return whether GenAI runs the converted model in ``folder`` correctly.

    A comparison takes a few seconds, and more if the conversion libraries are not loaded yet.
    """
    report = read_weights(folder)
    if report.cache is Cache.INPUTS:
        return GenAICheck(outcome=GenAIOutcome.INPUTS)
    if states := report.other_states:
        return GenAICheck(outcome=GenAIOutcome.STATE, detail=", ".join(states[:3]))
    config = read_json(folder / "config.json")
    if architecture_key(config) in KNOWN_EXACT:
        return GenAICheck(outcome=GenAIOutcome.EXACT)
    return compare_runtimes(config)


def architecture_key(config: Mapping[str, Any]) -> str:
    """Return the key of an architecture with the installed libraries.

    Models that only differ in size have the same key.
    """
    content = [scaled_down_config(config), [metadata.version(name) for name in _LIBRARIES]]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# The scaled-down configuration

_IRRELEVANT = (
    *("_name_or_path", "architectures", "auto_map", "dtype", "id2label", "initializer_range"),
    *("label2id", "pretraining_tp", "quantization_config", "torch_dtype", "transformers_version"),
    *("use_cache", "vocab_size"),
)
"""Fields that do not affect the attention, besides token ids, epsilons and dropout rates."""

_IRRELEVANT_ENDINGS = ("_token_id", "_eps", "_epsilon", "dropout", "_pdrop")

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "kv_n_heads")
_WIDTHS = ("hidden_size", "d_model", "n_embd")
_INNER = (
    *("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "moe_intermediate_size"),
    *("shared_expert_intermediate_size", "shared_intermediate_size", "intermediate_size_mlp"),
)
_WINDOWS = ("sliding_window", "window_size", "attention_window", "attention_chunk_size")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN_EXPERTS = ("num_experts_per_tok", "moe_top_k", "num_experts_per_token")


def scaled_down_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Scale down a model's ``config.json``.

    Everything that affects the attention is kept: type, biases, windows, grouped heads, position
    encoding, kinds of layers. The head size becomes 32. The number of heads stays a power of two,
    or not a power of two, because ALiBi's slopes depend on it.
    """
    heads = _first(config, _HEADS) or 4
    longest = _first(config, CONTEXT_LENGTHS)
    original = config.get("original_max_position_embeddings")
    own_size = config.get("head_dim")
    usual_size = (_first(config, _WIDTHS) or 0) // heads
    few = 4 if heads & (heads - 1) == 0 else 6
    layers = _selected_layers(config)
    scaled: dict[str, Any] = {}
    for name, value in config.items():
        if value is None or name in _IRRELEVANT or name.endswith(_IRRELEVANT_ENDINGS):
            continue
        if name == "head_dim":
            if own_size != usual_size:
                scaled[name] = _HEAD_SIZE
        elif name in _KV_HEADS:
            if value != heads:
                scaled[name] = 1 if value == 1 else few // 2
        elif name == "attention_types":
            kinds = config.get("attention_layers") or []
            scaled[name] = [[[kinds[index] for index in layers], 1]] if kinds else value
        elif isinstance(value, list) and len(value) == _layer_count(config):
            scaled[name] = [value[index] for index in layers]
        elif name in ("rope_parameters", "rope_scaling"):
            scaled[name] = _scaled_rope(value)
        elif name == "word_embed_proj_dim":
            scaled[name] = few * _HEAD_SIZE // (1 if value == config.get("hidden_size") else 2)
        else:
            scaled[name] = _scaled(name, value, few, len(layers))
    if "max_window_layers" in scaled:
        among = 0 < scaled["max_window_layers"] < (_layer_count(config) or 0)
        scaled["max_window_layers"] = 1 if among else min(scaled["max_window_layers"], 2)
    if original is not None and original == longest:  # no switch within the context length
        scaled["original_max_position_embeddings"] = _POSITIONS
    return scaled


def _scaled(name: str, value: Any, heads: int, layers: int) -> Any:
    if isinstance(value, dict):
        return {each: _scaled(each, inner, heads, layers) for each, inner in value.items()}
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    for names, small in (
        (_LAYERS, layers),
        (_HEADS, heads),
        (_KV_HEADS, heads // 2),
        (_WIDTHS, heads * _HEAD_SIZE),
        (_INNER, 2 * _HEAD_SIZE),
        (CONTEXT_LENGTHS, _POSITIONS),
        (_WINDOWS, _WINDOW),
        (("original_max_position_embeddings",), _ORIGINAL_LENGTH),
        (("partial_rotary_factor", "rotary_pct"), value if value == 1 else 0.5),
        (("rope_theta", "rotary_emb_base"), 10_000.0),
        (("rotary_dim",), _HEAD_SIZE // 2),
        (_EXPERTS, min(value, 4)),
        (_CHOSEN_EXPERTS, min(value, 2)),
        (("sliding_window_pattern",), min(value, 2)),
    ):
        if name in names:
            return small
    return value


def _scaled_rope(rope: Any) -> Any:
    """Scale down the rotary embedding's settings to a head size of 32."""
    if not isinstance(rope, dict):
        return rope
    scaled = _scaled("", rope, 4, 2)
    part = scaled.get("partial_rotary_factor", 1.0)
    for name in ("short_factor", "long_factor"):
        if isinstance(factors := rope.get(name), list) and factors:
            count = max(1, int(_HEAD_SIZE * part) // 2)
            scaled[name] = [factors[at * len(factors) // count] for at in range(count)]
    return scaled


def _selected_layers(config: Mapping[str, Any]) -> list[int]:
    """Return the indices of the first layer of each kind, at least two."""
    count = _layer_count(config) or 2
    lists = [value for value in config.values() if isinstance(value, list) and len(value) == count]
    kinds: dict[str, int] = {}
    for index in range(count):
        kinds.setdefault(json.dumps([each[index] for each in lists], default=str), index)
    selected = list(kinds.values())[:4] if lists else [0]
    return selected if len(selected) > 1 else [0, min(1, count - 1)]


def _layer_count(config: Mapping[str, Any]) -> int | None:
    return _first(config, _LAYERS)


def _first(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


# The check


def compare_runtimes(config: Mapping[str, Any]) -> GenAICheck:
    """Create a tiny model from a configuration and compare the runtimes' continuations of texts."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            _write_tiny_model(scaled_down_config(config), folder)
            expected = [_by_optimum(folder, *text) for text in _TEXTS]
        except LIBRARY_ERRORS as error:
            model_type = config.get("model_type")
            log.info("No tiny model of %s can be created: %s", model_type, one_line(error))
            return GenAICheck(outcome=GenAIOutcome.UNCHECKED, detail=one_line(error))
        try:
            found = [_by_genai(folder, *text) for text in _TEXTS]
        except RuntimeError as error:
            return GenAICheck(outcome=GenAIOutcome.REFUSED, detail=one_line(error))
    largest = max(map(_difference, expected, found))
    return GenAICheck(outcome=GenAIOutcome.EXACT if largest <= TOLERANCE else GenAIOutcome.DIFFERS)


_Continuation = list[tuple[int, float]]
"""New token ids with their log-probabilities (natural logarithm)."""


def _difference(expected: _Continuation, found: _Continuation) -> float:
    """Return the largest difference of log-probabilities, up to the first token that differs.

    After it the runtimes continue different texts.
    """
    largest = 0.0
    for (token, value), (other_token, other) in zip(expected, found, strict=True):
        largest = max(largest, abs(value - other))
        if token != other_token:
            break
    return largest


def _write_tiny_model(config: Mapping[str, Any], folder: Path) -> None:
    """Write the tiny model's IR, and a tokenizer, which GenAI's pipeline requires."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from core.store.convert import export, write_openvino_tokenizer

    known = {name: value for name, value in config.items() if name != "model_type"}
    known |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "initializer_range": 0.2}
    made = AutoConfig.for_model(config["model_type"], vocab_size=_VOCABULARY, **known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:  # norms of one and biases of zero would hide an error
                    parameter.add_(0.05 * torch.randn_like(parameter))
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    tokenizer = _tiny_tokenizer()
    export(model, tokenizer, folder)
    write_openvino_tokenizer(tokenizer, folder)


def _tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"<{number}>": number for number in range(_VOCABULARY)}
    own = Tokenizer(models.WordLevel(words, unk_token="<0>"))
    return PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<0>", pad_token="<0>")


def _prompt(length: int) -> list[int]:
    return [3 + (31 * at * at + 7 * at) % (_VOCABULARY - 6) for at in range(length)]


def _by_optimum(folder: Path, prompt: int, new: int) -> _Continuation:
    """Return Optimum's greedy continuation of a text."""
    import torch
    from transformers import GenerationConfig

    model = load_optimum_model(folder, "CPU", EXACT_HINTS)
    model.generation_config = GenerationConfig()  # without an end token, which would end the text
    ids = torch.tensor([_prompt(prompt)])
    answer = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        ),
    )
    scores = torch.log_softmax(torch.stack(answer.scores, 1)[0].float(), -1)
    chosen = answer.sequences[0, prompt:]
    found = scores.gather(1, chosen[:, None])[:, 0]
    return list(zip(chosen.tolist(), found.tolist(), strict=True))


def _by_genai(folder: Path, prompt: int, new: int) -> _Continuation:
    """Return GenAI's greedy continuation of the same text."""
    import numpy as np
    import openvino
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = _PROMPT_PIECE
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        str(folder), openvino_genai.Tokenizer(str(folder)), scheduler, "CPU", **EXACT_HINTS
    )
    config = openvino_genai.GenerationConfig(
        max_new_tokens=new, logprobs=1, ignore_eos=True, apply_chat_template=False
    )
    ids = openvino.Tensor(np.asarray([_prompt(prompt)], dtype=np.int64))
    handle = pipeline.add_request(0, ids, config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    answer = handle.read_all()[0]
    return list(zip(answer.generated_ids, answer.generated_log_probs, strict=True))
