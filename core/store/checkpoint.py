"""Inspect a local model folder without loading the model: its kind, size and usability.

Reads only JSON and file headers, so it is fast enough for a page.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.catalogue.shapes import parameter_count, shape_from_config
from core.errors import CorruptModelError, NotAModelError
from core.store.weights import IR_XML

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""Each of these files contains a vocabulary; one of them is enough."""

SMALL_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
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

TORCH_DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_SAFETENSORS_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
_LARGEST_SAFETENSORS_HEADER = 100 * 2**20
"""Bytes; the limit set by the format."""


@dataclass(frozen=True)
class CheckpointInfo:
    """Description of a PyTorch checkpoint."""

    folder: Path
    config: dict[str, Any]
    weight_files: tuple[Path, ...]
    safetensors: bool
    """False for ``pytorch_model.bin``, which is a pickle file."""
    dtype: str
    """Name of the ``torch`` dtype of most weights."""
    parameters: int
    """Exact for safetensors; estimated from the file size otherwise."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model folder.

    Raises:
        CorruptModelError: the file is not readable, not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptModelError(
            f"{path.name} in {path.parent} cannot be read ({error}). Download or copy it again."
        ) from error
    if not isinstance(content, dict):
        raise CorruptModelError(
            f"{path.name} in {path.parent} is not a JSON object. Download or copy it again."
        )
    return content


def is_ir(folder: Path) -> bool:
    """Return whether the folder contains an OpenVINO IR."""
    return (folder / IR_XML).is_file()


def context_length(config: dict[str, Any]) -> int | None:
    """Return the context length in tokens from a ``config.json``, or None if not specified."""
    for name in ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length"):
        if isinstance(config.get(name), int):
            return int(config[name])
    return None


def has_chat_template(folder: Path) -> bool:
    """Return whether the tokenizer in the folder has a chat template."""
    if (folder / "chat_template.jinja").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and bool(read_json(settings).get("chat_template"))


def check_folder(folder: Path) -> dict[str, Any]:
    """Return the ``config.json`` of a folder, after checking that it is a causal language model.

    Raises:
        NotAModelError: no configuration, no tokenizer, another kind of model, or a model that
            requires its own code.
        CorruptModelError: a JSON file in the folder cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise NotAModelError(
            f"{folder} contains no config.json, so it is not a model folder. Specify the folder "
            "that contains the model's config.json and weights."
        )
    config = read_json(folder / "config.json")
    check_config(config, str(folder))
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise NotAModelError(
            f"{folder} contains no tokenizer. Copy the model's tokenizer.json (or "
            "tokenizer.model) and tokenizer_config.json into it."
        )
    return config


def check_config(config: dict[str, Any], name: str) -> None:
    """Check that a configuration is a causal language model that requires no custom code.

    Raises:
        NotAModelError: it is not; the message says why.
    """
    architectures = config.get("architectures") or []
    causal = any(str(item).endswith(_CAUSAL_ENDINGS) for item in architectures)
    if architectures and not causal:
        raise NotAModelError(
            f"{name} is a {architectures[0]}, not a causal language model. Choose a model whose "
            "architecture ends in ForCausalLM."
        )
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise NotAModelError(
            f"The config.json of {name} has no model_type, so it is not a supported language "
            "model. Choose a model that transformers supports."
        )
    if config.get("is_encoder_decoder"):
        raise NotAModelError(
            f"{name} is an encoder-decoder model. Choose a decoder-only (causal) language model."
        )
    if config.get("auto_map") and not _known_to_transformers(model_type):
        raise NotAModelError(
            f"{name} requires its own Python code (trust_remote_code), which Paddock never runs. "
            "Choose a model whose architecture is part of transformers."
        )


def inspect_checkpoint(folder: Path) -> CheckpointInfo:
    """Describe the PyTorch checkpoint in ``folder``.

    Raises:
        NotAModelError: see :func:`check_folder`, or there are no weights.
        CorruptModelError: a weight file is missing or truncated.
    """
    config = check_folder(folder)
    safetensors = _weight_files(folder, "model", ".safetensors")
    if safetensors:
        types: Counter[str] = Counter()
        for path in safetensors:
            types.update(_safetensors_types(path))
        common = types.most_common(1)[0][0] if types else "F32"
        dtype = _SAFETENSORS_DTYPES.get(common, "float32")
        return CheckpointInfo(folder, config, safetensors, True, dtype, sum(types.values()))
    pickles = _weight_files(folder, "pytorch_model", ".bin")
    if not pickles:
        raise NotAModelError(
            f"{folder} contains no weights (model.safetensors, pytorch_model.bin or {IR_XML}). "
            "Copy them into it."
        )
    size = sum(path.stat().st_size for path in pickles)
    dtype = dtype_of(config, size)
    return CheckpointInfo(folder, config, pickles, False, dtype, size // TORCH_DTYPE_BYTES[dtype])


def dtype_of(config: dict[str, Any], weight_bytes: int) -> str:
    """Return the name of the ``torch`` dtype of a checkpoint's weights without reading them.

    Derived from the file size if the parameter count of the architecture is known; otherwise the
    dtype in the configuration, which is sometimes the dtype used in training.
    """
    declared = config.get("dtype") or config.get("torch_dtype")
    declared = declared if declared in TORCH_DTYPE_BYTES else None
    try:
        count = parameter_count(str(config.get("model_type")), shape_from_config(config))
    except (KeyError, TypeError, ValueError):
        return declared or "float32"
    wide = weight_bytes > 3 * count
    if declared is not None and (TORCH_DTYPE_BYTES[declared] > 2) is wide:
        return declared
    return "float32" if wide else "float16"


def _weight_files(folder: Path, stem: str, suffix: str) -> tuple[Path, ...]:
    whole = folder / f"{stem}{suffix}"
    if whole.is_file():
        return (whole,)
    index = folder / f"{stem}{suffix}.index.json"
    if not index.is_file():
        return ()
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptModelError(f"{index.name} in {folder} lists no weights. Download it again.")
    names = sorted({str(name) for name in weight_map.values()})
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise CorruptModelError(
            f"{missing[0]}, which {index.name} lists, is missing in {folder}. Download or copy it "
            "again."
        )
    return tuple(folder / name for name in names)


def _safetensors_types(path: Path) -> Counter[str]:
    """Count parameters by dtype from the header: 8 bytes of length, then JSON with the shapes and
    offsets of the tensors."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, _LARGEST_SAFETENSORS_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        types: Counter[str] = Counter()
        end = 0
        for tensor in header.values():
            types[tensor["dtype"]] += math.prod(tensor["shape"])
            end = max(end, tensor["data_offsets"][1])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptModelError(
            f"{path.name} in {path.parent} is not a readable safetensors file ({error}). "
            "Download or copy it again."
        ) from error
    if size < 8 + length + end:
        raise CorruptModelError(
            f"{path.name} in {path.parent} is truncated: it has {size} of {8 + length + end} "
            "bytes. Download or copy it again."
        )
    return types


def _known_to_transformers(model_type: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES
