"""Write the tokenizer and the configuration of a GGUF file as Hugging Face files.

They are created from the metadata of the file. The conversion in ``transformers`` mistakes
SmolLM2's tokenizer for CodeLlama's, with another end token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import CorruptModelError, NotAModelError
from core.store.gguf.reader import GgufFile, shape_of

if TYPE_CHECKING:
    from core.catalogue import RecommendedSampling

_WORDS_AND_DIGITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # llama.cpp first separates all digits and then splits the text between them like GPT-2.
    "smollm": (r"'s|'t|'re|'ve|'m|'ll|'d|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"),
    "llama-bpe": _WORDS_AND_DIGITS % r"\p{N}{1,3}",
    "qwen2": _WORDS_AND_DIGITS % r"\p{N}",
}
"""Pre-tokenizer patterns by ``tokenizer.ggml.pre``, derived from llama.cpp's patterns. One pattern
each: OpenVINO Tokenizers joins several patterns into one that splits differently."""
_ALIASES = {
    "gpt2": "gpt-2",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
}

_CONTROL, _USER_DEFINED = 3, 4
"""Values of ``tokenizer.ggml.token_type``: control tokens are never shown, the others are."""

_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_turn|>", "<|endoftext|>", "<|end_of_text|>")
"""Control tokens that end an answer even if the file specifies only one end token."""


def write_companions(
    file: GgufFile, folder: Path, sampling: RecommendedSampling | None = None
) -> None:
    """Write configuration, generation configuration and tokenizer into ``folder``.

    Args:
        sampling: recommended by the model card, for the generation configuration.

    Raises:
        NotAModelError: the kind of tokenizer is not supported.
        CorruptModelError: the fields are missing or inconsistent.
    """
    tokens = _texts(file, "tokenizer.ggml.tokens")
    special = {
        name: tokens[number]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if (number := _token_id(file, key, len(tokens))) is not None
    }
    backend = _backend(file, tokens, special)
    backend.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": text for name, text in special.items()},
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    template = file.value("tokenizer.chat_template", str, "")
    if template:
        settings["chat_template"] = template
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "config.json", _config(file))
    _write(folder / "generation_config.json", _generation_config(file, tokens, sampling))


def _backend(file: GgufFile, tokens: list[str], special: dict[str, str]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    kind = file.value("tokenizer.ggml.model", str)
    pre = file.value("tokenizer.ggml.pre", str, "none")
    pre = _ALIASES.get(pre, pre)
    if kind != "gpt2" or pre not in _SPLIT:
        raise NotAModelError(
            f"{file.path.name} has a tokenizer of model {kind[:40]!r} with pre-tokenizer "
            f"{pre[:40]!r}; only byte-level BPE with the pre-tokenizers {', '.join(_SPLIT)} is "
            "supported. Use the model's safetensors instead."
        )
    merges = [tuple(merge.split(" ", 1)) for merge in _texts(file, "tokenizer.ggml.merges")]
    types = file.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, np.ndarray) or len(types) != len(tokens):
        raise _invalid(file, "the token types are missing")
    vocabulary = dict(zip(reversed(tokens), range(len(tokens) - 1, -1, -1), strict=True))
    try:
        model = models.BPE(
            vocabulary,
            merges,
            # Llama 3 has tokens that no merge produces.
            ignore_merges=pre == "llama-bpe",
        )
    except Exception as error:  # tokenizers raises Exception itself
        raise _invalid(file, f"the merges do not match the tokens: {error}") from error
    backend = Tokenizer(model)
    split = pre_tokenizers.Split(Regex(_SPLIT[pre]), "isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    backend.decoder = decoders.ByteLevel()
    added = [
        AddedToken(tokens[number], special=bool(types[number] == _CONTROL), normalized=False)
        for number in np.flatnonzero((types == _CONTROL) | (types == _USER_DEFINED))
    ]
    backend.add_tokens(added)
    if "bos" in special and file.value("tokenizer.ggml.add_bos_token", bool, pre == "llama-bpe"):
        _prepend_token(backend, special["bos"])
    return backend


def _prepend_token(backend: Any, token: str) -> None:
    from tokenizers import processors

    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{token} $A",
                pair=f"{token} $A {token}:1 $B:1",
                special_tokens=[(token, backend.token_to_id(token))],
            ),
        ]
    )


def load_companion_tokenizer(folder: Path) -> Any:
    """Load the tokenizer that was written into ``folder``.

    Its class is known; ``AutoTokenizer`` would take a second longer to find it.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def check_chat_template(tokenizer: Any, name: str) -> None:
    """Render one instruction in transformers' sandbox, and refuse a template that is not safe.

    Any other failure is reported when a prompt is rendered: the user can choose another prompt
    format then.

    Raises:
        NotAModelError: the template tries to escape the sandbox.
    """
    import jinja2
    from jinja2.sandbox import SecurityError

    if not tokenizer.chat_template:
        return
    try:
        turns = [{"role": "user", "content": "Hello"}]
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (SecurityError, OverflowError) as error:
        raise NotAModelError(
            f"The chat template of {name} is not safe ({str(error)[:120]}). Use the model from a "
            "source that you trust."
        ) from error
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError):
        return


def _config(file: GgufFile) -> dict[str, Any]:
    """Return ``config.json``, which the graph does not need, but transformers and Optimum do."""
    shape = shape_of(file)
    names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    width = file.value("{arch}.attention.key_length", int, shape.hidden // shape.heads)
    return {
        "architectures": [names[file.architecture]],
        "model_type": file.architecture,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": width,
        "hidden_act": "silu",
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": file.value("{arch}.attention.layer_norm_rms_epsilon", float),
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "tie_word_embeddings": shape.tied_embeddings,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _generation_config(
    file: GgufFile, tokens: list[str], sampling: RecommendedSampling | None
) -> dict[str, Any]:
    types = file.metadata["tokenizer.ggml.token_type"]
    ends = {_token_id(file, key, len(tokens)) for key in ("eos", "eot", "eom")} - {None}
    ends |= {
        int(number) for number in np.flatnonzero(types == _CONTROL) if tokens[number] in _TURN_ENDS
    }
    chosen = (
        {} if sampling is None else {"temperature": sampling.temperature, "top_p": sampling.top_p}
    )
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return {
        "bos_token_id": _token_id(file, "bos", len(tokens)),
        "eos_token_id": sorted(ends),
        "pad_token_id": _token_id(file, "padding", len(tokens)),
        **({"do_sample": True, **chosen} if chosen else {}),
    }


def _token_id(file: GgufFile, name: str, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in file.metadata:
        return None
    number = file.value(key, int)
    if not 0 <= number < count:
        raise _invalid(file, f"{key} is {number}, with {count} tokens")
    return number


def _texts(file: GgufFile, key: str) -> list[str]:
    found = file.value(key, list)
    if not found or not isinstance(found[0], str):
        raise _invalid(file, f"{key} is not a list of strings")
    return found


def _invalid(file: GgufFile, why: str) -> CorruptModelError:
    return CorruptModelError(
        f"The tokenizer of {file.path.name} cannot be read ({why[:160]}). Download or copy the "
        "file again."
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
