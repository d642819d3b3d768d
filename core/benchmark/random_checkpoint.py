"""Writes a checkpoint of a given architecture and shape with random weights.

Run as ``python -m core.benchmark.random_checkpoint FOLDER KEY`` in a process of its own, as
:mod:`core.benchmark.random_models` does: it can be killed at any time, and its memory comes back.
The shards are written one at a time, so that a checkpoint takes about as much memory as its largest
shard. Standard input is a pipe from the parent: when that closes, the process ends at once.

The tokenizer knows single bytes alone: the model converts, loads and generates, though nothing
sensible, and any text has a known number of tokens.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.benchmark.shapes import random_model
from core.catalogue import Shape
from core.catalogue.shapes import transformers_config
from core.store.library_env import quieten_libraries, skip_optional_imports
from core.workers.child import exit_with_parent

DTYPE = "bfloat16"
"""As the catalogue's models are released."""

SHARD_BYTES = 2**30
"""Size at which a further weight file is begun."""

END_OF_TEXT = "<|endoftext|>"
"""Id 0, and the only special token."""

_SPREAD = 0.02
"""Standard deviation of the weights, as transformers initialises them."""

_PIECE = 2**24
"""Random numbers drawn at once; torch draws them in FP32."""


def write_checkpoint(
    folder: Path,
    architecture: str,
    shape: Shape,
    *,
    shards: int | None = None,
    dtype: str = DTYPE,
    seed: int = 0,
) -> Path:
    """Write the checkpoint into ``folder`` and return it; equal arguments give equal bytes.

    Args:
        folder: created where it does not exist.
        architecture: one that :func:`core.catalogue.shapes.transformers_config` knows.
        shape: of the model.
        shards: number of weight files; None makes as many as :data:`SHARD_BYTES` asks for.
        dtype: of the weights, as ``torch`` names it.
        seed: of the random weights.

    Raises:
        OSError: the disk is full or may not be written to.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shapes = _write_config(folder, architecture, shape, dtype)
    write_tokenizer(folder)
    width = torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    total = width * sum(math.prod(one) for one in shapes.values())
    parts = split_evenly(shapes, shards or math.ceil(total / SHARD_BYTES))
    count = len(parts)
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{count:05d}.safetensors" if count > 1 else _SINGLE
        tensors = {key: _random(shapes[key], dtype, generator) for key in names}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, name)
        del tensors
    if count > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / f"{_SINGLE}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


_SINGLE = "model.safetensors"


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of 257 ids into ``folder``: the end of text, and every byte."""
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


def split_evenly(shapes: Mapping[str, Sequence[int]], parts: int) -> list[list[str]]:
    """Names in order, in lists of about the same number of weights, none of them empty.

    Args:
        shapes: of the tensors by name.
        parts: lists that are wanted; where a tensor is larger than its share there are fewer.
    """
    total = sum(math.prod(shape) for shape in shapes.values())
    lists: list[list[str]] = [[] for _ in range(parts)]
    before = 0
    for name, shape in shapes.items():
        lists[min(parts - 1, before * parts // total)].append(name)
        before += math.prod(shape)
    return [names for names in lists if names]


def _write_config(
    folder: Path, architecture: str, shape: Shape, dtype: str
) -> dict[str, tuple[int, ...]]:
    """Write the configuration, and return the shapes of the model's weights by name."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.for_model(**transformers_config(architecture, shape))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    config.dtype = dtype
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0).save_pretrained(folder)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _random(shape: Sequence[int], dtype: str, generator: Any) -> Any:
    """Weights of that shape: matrices around 0, vectors (norms, biases) around their usual 1."""
    import torch

    tensor = torch.empty(shape, dtype=getattr(torch, dtype))
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), _PIECE):
        piece = flat[start : start + _PIECE]
        piece.copy_(torch.randn(piece.numel(), generator=generator).mul_(_SPREAD))
    return tensor.add_(1) if len(shape) == 1 else tensor


def main(folder: str, key: str) -> int:
    """Write the checkpoint of a model of :func:`core.benchmark.shapes.random_models`.

    Returns:
        0 done, 1 the disk refused; the last line on stderr then says why.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills us
    exit_with_parent()
    skip_optional_imports()
    quieten_libraries()
    model = random_model(key)
    try:
        write_checkpoint(Path(folder), model.architecture, model.shape)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # nothing is left to tear down, and torch takes a second for it
