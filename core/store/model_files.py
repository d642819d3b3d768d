"""The files of a model: their names, and the formats that are not supported, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from core.errors import NotAModelError

TOKENIZERS = {
    "tokenizer.json": "Hugging Face tokenizers",
    "tokenizer.model": "SentencePiece or tiktoken",
    "sentencepiece.bpe.model": "SentencePiece",
    "spiece.model": "SentencePiece",
    "vocab.json": "byte-level BPE",
    "vocab.txt": "WordPiece",
}
"""Files with a vocabulary, and their formats. The first two are enough; others only if the class of
the tokenizer reads them."""

SMALL_FILES = frozenset(
    {
        *TOKENIZERS,
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
    }
)
"""Configuration and tokenizer files, which are copied along with the weights."""

IR_TOKENIZER_FILES = frozenset(
    f"openvino_{name}.{ending}"
    for name in ("tokenizer", "detokenizer")
    for ending in ("xml", "bin")
)
"""The tokenizer and detokenizer as OpenVINO models."""

_OTHER_TOKENIZERS = (
    (r"tekken\.json", "Mistral's tekken format"),
    (r"tokenizer\.model\.v\d.*", "Mistral's own SentencePiece format"),
    (r".*\.tiktoken|tiktoken\.model", "the tiktoken format with code of its own"),
    (r"rwkv_vocab.*", "RWKV's format"),
    (r".+\.(model|spm)", "SentencePiece's format under another name than tokenizer.model"),
    (r".*tokenizer\.json", "a file of another name than tokenizer.json"),
    (r"openvino_tokenizer\.(xml|bin)", "OpenVINO's format only"),
    (r"merges\.txt|vocab\.bpe|bpe\.codes", "merges without a vocab.json"),
    (r"(.*tokenizer|.*vocab|dict)\.(?!py)\w+", "a file of another format"),
)
"""Vocabularies of other formats, as regular expressions, and the names of the formats."""

_OTHER_FORMATS = (
    (r"(.*/)?.*\.onnx(_data)?", "ONNX"),
    (r"(.*/)?.*\.nemo", "NeMo"),
    (r"tf_model.*\.h5|(.*/)?saved_model\.pb|.*\.ckpt\.(index|meta|data.*)", "TensorFlow"),
    (r"flax_model.*\.msgpack", "Flax"),
    (r".*\.(tflite|task|litertlm)", "LiteRT"),
    (r"(.*/)?.*\.(mlmodel|mlpackage)(/.*)?", "Core ML"),
    (r"(.*/)?.*\.engine", "TensorRT"),
    (r"(.*/)?consolidated.*\.(pth|safetensors)", "the developer's own format (consolidated)"),
    (r"(.*/)?.*\.?ggml.*", "GGML, the predecessor of GGUF"),
    (r"rust_model\.ot", "rust-bert's format"),
    (r"weights.*\.npz", "MLX's format"),
    (r"mlc-chat-config\.json|params_shard_\d+\.bin", "MLC"),
    (r".*\.mnn", "MNN"),
    (r".*\.pte", "ExecuTorch"),
    (r".*\.rk(nn|llm)", "RKNN"),
    (r"(.*/)?.*\.distcp", "PyTorch's format of distributed checkpoints"),
    (r"shared_vocabulary\.(json|txt)", "CTranslate2"),
    (r".*\.llamafile", "llamafile"),
    (r"(.*/)?.*\.(ckpt|pt|pth)", "a PyTorch pickle of another layout"),
)
"""Files of other formats, as regular expressions, and their names."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model in a folder or on a hub."""

    name: str
    """Path or Hugging Face id, for messages."""
    names: frozenset[str]
    """Paths relative to the folder, with ``/``; a folder may be listed by its name and ``/``."""
    read: Callable[[str], dict[str, Any] | None]
    """Returns the object in a JSON file; None if it may not be read yet, or is too large."""
    card: Callable[[], Mapping[str, Any]] = dict
    """Returns of its card ``base_model`` (a Hugging Face id or several), ``pipeline_tag`` and
    ``library_name``."""
    ir_first: bool = False
    """Use an OpenVINO IR even if there is a checkpoint, too."""

    def json(self, name: str) -> dict[str, Any] | None:
        """Return a JSON object; None if there is no such file, or it may not be read yet."""
        return self.read(name) if name in self.names else None

    def refuse(self, what: str, advice: str) -> NoReturn:
        """Raise NotAModelError with this predicate and this sentence."""
        raise NotAModelError(f"{self.name} {what}. {advice}")


def other_format(name: str) -> str | None:
    """Return the name of the format of a file that is not supported, from the file's name."""
    found = (text for pattern, text in _OTHER_FORMATS if re.fullmatch(pattern, name, re.IGNORECASE))
    return next(found, None)


def other_tokenizer(name: str) -> str | None:
    """Return the name of the format of a tokenizer that is not supported, from the file's name."""
    found = (text for pattern, text in _OTHER_TOKENIZERS if re.fullmatch(pattern, name))
    return next(found, None)
