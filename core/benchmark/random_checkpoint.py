"""Writes a checkpoint of a given architecture and shape with random weights.

Run by :mod:`core.benchmark.random_models` in its own process, so that it can be killed at any time
and its memory is returned. Its request (see :mod:`core.workers.child`) has ``folder`` and ``key``.
Shards are written one at a time: a checkpoint takes about as much memory as its largest shard.

The tokenizer has only single bytes: the model converts, loads and generates, though nothing
meaningful, and any text has a known number of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.benchmark.random_models import random_model, write_error
from core.catalogue import Shape
from core.catalogue.shapes import transformers_config
from core.errors import PaddockError
from core.store.library_env import quieten_libraries, skip_optional_imports
from core.workers.child import Channel, one_line, run_request

DTYPE = "bfloat16"
"""Of the catalogue's models as released."""

SHARD_BYTES = 2**30
"""Largest weight file, if no tensor is larger."""

END_OF_TEXT = "<|endoftext|>"
"""Id 0, and the only special token."""

_SPREAD = 0.02
"""Standard deviation of the weights, as in the initialisation by transformers."""

_PIECE = 2**24
"""Random numbers generated at once; torch generates them in FP32."""


def write_checkpoint(
    folder: Path,
    architecture: str,
    shape: Shape,
    *,
    shard_bytes: int = SHARD_BYTES,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Path:
    """Write the checkpoint into ``folder`` and return it; equal arguments give equal bytes.

    Args:
        architecture: known to :func:`core.catalogue.shapes.transformers_config`.
        shard_bytes: largest weight file, if no tensor is larger.

    Raises:
        OSError: the disk is full or not writable.
    """
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = _write_config(folder, architecture, shape)
    write_tokenizer(folder)
    split = split_torch_state_dict_into_shards(weights, max_shard_size=shard_bytes)
    total, done = split.metadata["total_size"], 0
    generator = torch.Generator().manual_seed(0)
    for name, keys in split.filename_to_tensors.items():
        tensors = {}
        for key in keys:
            tensors[key] = _random(weights[key].shape, generator)
            done += tensors[key].nbytes
            on_progress(done / total)
        save_file(tensors, folder / name, metadata={"format": "pt"})
        del tensors
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer with 257 ids into ``folder``: the end of text, and every byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {END_OF_TEXT: 0} | {byte: number for number, byte in enumerate(alphabet, 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = ("bos_token", "eos_token", "pad_token", "unk_token")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict.fromkeys(roles, END_OF_TEXT),
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, indent=2)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _write_config(folder: Path, architecture: str, shape: Shape) -> dict[str, Any]:
    """Write the configuration, and return the model's weights by name, without their values."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.for_model(**transformers_config(architecture, shape))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, DTYPE))
    config.architectures = [type(model).__name__]
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    config.dtype = DTYPE
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0).save_pretrained(folder)
    return dict(model.named_parameters())


def _random(shape: Sequence[int], generator: Any) -> Any:
    """Return weights of a shape: matrices around 0, vectors (norms, biases) around their usual
    1."""
    import torch

    tensor = torch.empty(shape, dtype=getattr(torch, DTYPE))
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), _PIECE):
        piece = flat[start : start + _PIECE]
        piece.copy_(torch.randn(piece.numel(), generator=generator).mul_(_SPREAD))
    return tensor.add_(1) if len(shape) == 1 else tensor


def _work(request: dict[str, Any], channel: Channel) -> None:
    skip_optional_imports()
    quieten_libraries()
    model = random_model(request["key"])

    def report(fraction: float) -> None:
        channel.say(event="progress", fraction=fraction)

    write_checkpoint(Path(request["folder"]), model.architecture, model.shape, on_progress=report)


def _describe(error: Exception, request: dict[str, Any]) -> PaddockError:
    if not isinstance(error, OSError):
        error = OSError(one_line(error))
    return write_error(random_model(request["key"]), error)


if __name__ == "__main__":
    run_request(_work, _describe)
