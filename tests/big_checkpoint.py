"""Writes a checkpoint of a released model's shape with random weights, to measure conversions on.

Run as ``python -m tests.big_checkpoint FOLDER [--model dolly-v2-3b] [--layers N] [--bin]``. The
shards are written one at a time, so a 5.5 GB checkpoint needs about as much memory as one shard.
The tokenizer is a tiny one: the model converts and generates, though nothing sensible.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.catalogue import Shape, benchmark_shapes, catalogue
from core.catalogue.shapes import transformers_config
from tests.builders import tiny_tokenizer

SHARDS = 3
DTYPE = "bfloat16"
_SPREAD = 0.02
"""Standard deviation of the weights, as transformers initialises them."""

_PIECE = 2**24
"""Random numbers drawn at once; torch draws them in FP32."""


def shape_of(model: str) -> tuple[str, Shape]:
    """Architecture and shape of a catalogue row or a benchmark shape.

    Raises:
        KeyError: there is neither.
    """
    row = catalogue().get(model)
    return (row.architecture, row.shape) if row else benchmark_shapes()[model]


def big_checkpoint(
    folder: Path,
    architecture: str,
    shape: Shape,
    *,
    pickled: bool = False,
    shards: int = SHARDS,
    dtype: str = DTYPE,
    seed: int = 0,
) -> Path:
    """Write the checkpoint into ``folder`` and return it.

    Args:
        folder: created where it does not exist.
        architecture: one that :func:`core.catalogue.shapes.transformers_config` knows.
        shape: of the model.
        pickled: ``pytorch_model-….bin`` instead of safetensors.
        shards: number of weight files.
        dtype: of the weights, as ``torch`` names it.
        seed: of the random weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model(**transformers_config(architecture, shape))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    config.dtype = dtype
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0).save_pretrained(folder)
    tiny_tokenizer(folder)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    stem, suffix = ("pytorch_model", ".bin") if pickled else ("model", ".safetensors")
    weight_map: dict[str, str] = {}
    for number, names in enumerate(_split(shapes, shards), 1):
        name = f"{stem}-{number:05d}-of-{shards:05d}{suffix}" if shards > 1 else f"{stem}{suffix}"
        tensors = {key: _random(shapes[key], dtype, generator) for key in names}
        _save(tensors, folder / name, pickled=pickled)
        weight_map |= dict.fromkeys(names, name)
        del tensors
    if shards > 1:
        width = torch.tensor([], dtype=getattr(torch, dtype)).element_size()
        total = width * sum(parameter.numel() for parameter in model.parameters())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def _split(shapes: Mapping[str, Sequence[int]], shards: int) -> Iterator[list[str]]:
    """Names in order, in as many parts of about the same number of weights."""
    total = sum(math.prod(shape) for shape in shapes.values())
    parts: list[list[str]] = [[] for _ in range(shards)]
    before = 0
    for name, shape in shapes.items():
        parts[min(shards - 1, before * shards // total)].append(name)
        before += math.prod(shape)
    yield from parts


def _random(shape: Sequence[int], dtype: str, generator: Any) -> Any:
    """Weights of that shape: matrices around 0, vectors (norms, biases) around their usual 1."""
    import torch

    tensor = torch.empty(shape, dtype=getattr(torch, dtype))
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), _PIECE):
        piece = flat[start : start + _PIECE]
        piece.copy_(torch.randn(piece.numel(), generator=generator).mul_(_SPREAD))
    return tensor.add_(1) if len(shape) == 1 else tensor


def _save(tensors: dict[str, Any], path: Path, *, pickled: bool) -> None:
    if pickled:
        import torch

        torch.save(tensors, path)
    else:
        from safetensors.torch import save_file

        save_file(tensors, path, metadata={"format": "pt"})


def main() -> None:
    """Entry point of ``python -m tests.big_checkpoint``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="dolly-v2-3b", help="catalogue key or benchmark shape")
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--bin", action="store_true", help="write pytorch_model.bin files")
    parser.add_argument("--shards", type=int, default=SHARDS)
    arguments = parser.parse_args()
    architecture, shape = shape_of(arguments.model)
    if arguments.layers:
        shape = replace(shape, layers=arguments.layers)
    folder = big_checkpoint(
        arguments.folder, architecture, shape, pickled=arguments.bin, shards=arguments.shards
    )
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e9:.2f} GB in {arguments.shards} shards")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the module's text as it is written."""


if __name__ == "__main__":
    main()
