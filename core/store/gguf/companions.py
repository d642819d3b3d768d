"""Write the tokenizer and the generation configuration of a GGUF file as Hugging Face files.

They are created from the metadata of the file. The conversion in ``transformers`` mistakes
SmolLM2's tokenizer for CodeLlama's, with another end token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import CorruptModelError, NotAModelError
from core.store.gguf.reader import GgufFile

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
    **dict.fromkeys(("gpt2", "mpt", "olmo", "jais"), "gpt-2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell"), "smollm"),
    **dict.fromkeys(("llama3", "llama-v3", "dbrx", "smaug-bpe"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "hunyuan"), "qwen2"),
}
"""Names that llama.cpp splits with the same pattern."""

_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
"""Values of ``tokenizer.ggml.token_type``: control tokens are never shown, the others are."""

_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_turn|>", "<|endoftext|>", "<|end_of_text|>")
"""Control tokens that end an answer even if the file specifies only one end token."""


def write_companions(
    file: GgufFile, folder: Path, sampling: RecommendedSampling | None = None
) -> None:
    """Write tokenizer and generation configuration into ``folder``.

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
    _write(folder / "generation_config.json", _generation_config(file, tokens, sampling))


def check_tokenizer(file: GgufFile) -> None:
    """Raise NotAModelError if the tokenizer of a file is not supported."""
    kind, pre = _kind(file)
    if kind != "llama" and (kind != "gpt2" or pre not in _SPLIT):
        raise NotAModelError(
            f"{file.name} has a tokenizer of model {kind[:40]!r} with pre-tokenizer "
            f"{pre[:40]!r}; only SentencePiece (llama) and byte-level BPE with the pre-tokenizers "
            f"{', '.join(_SPLIT)} are supported. Use the model's safetensors instead."
        )


def _kind(file: GgufFile) -> tuple[str, str]:
    pre = file.value("tokenizer.ggml.pre", str, "none")
    return file.value("tokenizer.ggml.model", str), _ALIASES.get(pre, pre)


def _backend(file: GgufFile, tokens: list[str], special: dict[str, str]) -> Any:
    from tokenizers import AddedToken

    check_tokenizer(file)
    kind, pre = _kind(file)
    types = file.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, np.ndarray) or len(types) != len(tokens):
        raise _invalid(file, "the token types are missing")
    vocabulary = dict(zip(reversed(tokens), range(len(tokens) - 1, -1, -1), strict=True))
    try:
        if kind == "llama":
            backend = _sentencepiece(file, tokens, vocabulary, types)
        else:
            backend = _byte_level(file, vocabulary, pre)
    except CorruptModelError:
        raise
    except Exception as error:  # tokenizers raises Exception itself
        raise _invalid(file, f"the merges do not match the tokens: {error}") from error
    added = [
        AddedToken(tokens[number], special=bool(types[number] == _CONTROL), normalized=False)
        for number in np.flatnonzero((types == _CONTROL) | (types == _USER_DEFINED))
    ]
    backend.add_tokens(added)
    usual = kind == "llama" or pre == "llama-bpe"
    if "bos" in special and file.value("tokenizer.ggml.add_bos_token", bool, usual):
        _prepend_token(backend, special["bos"], byte_level=kind == "gpt2")
    return backend


def _byte_level(file: GgufFile, vocabulary: dict[str, int], pre: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    merges = [tuple(merge.split(" ", 1)) for merge in _texts(file, "tokenizer.ggml.merges")]
    # Llama 3 has tokens that no merge produces.
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre == "llama-bpe"))
    split = pre_tokenizers.Split(Regex(_SPLIT[pre]), "isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(
    file: GgufFile, tokens: list[str], vocabulary: dict[str, int], types: Any
) -> Any:
    """Return SentencePiece's BPE, whose merges follow from the scores of the tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers.convert_slow_tokenizer import generate_merges

    scores = file.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(tokens):
        raise _invalid(file, "the scores of the tokens are missing")
    ordinary = ~np.isin(types, (_UNKNOWN, _CONTROL, _BYTE))
    by_token = {tokens[number]: float(scores[number]) for number in np.flatnonzero(ordinary)}
    unknown = next((tokens[number] for number in np.flatnonzero(types == _UNKNOWN)), None)
    merges = generate_merges(vocabulary, by_token)
    model = models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    prefix = file.value("tokenizer.ggml.add_space_prefix", bool, True)
    spaces = normalizers.Replace(" ", "▁")
    first = [normalizers.Prepend("▁")] if prefix else []
    backend.normalizer = normalizers.Sequence([*first, spaces])
    stripped = [decoders.Strip(content=" ", left=1)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    return backend


def _prepend_token(backend: Any, token: str, *, byte_level: bool) -> None:
    from tokenizers import processors

    template = processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token}:1 $B:1",
        special_tokens=[(token, backend.token_to_id(token))],
    )
    before = [processors.ByteLevel(trim_offsets=False)] if byte_level else []
    backend.post_processor = processors.Sequence([*before, template])


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
        f"The tokenizer of {file.name} cannot be read ({why[:160]}). Download or copy the "
        "file again."
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
