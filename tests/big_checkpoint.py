"""Writes a checkpoint of a released model's shape with random weights, to measure conversions on.

Run as ``python -m tests.big_checkpoint FOLDER [--model dolly-v2-3b] [--layers N] [--bin]``. It is
the benchmark's :mod:`core.benchmark.random_checkpoint` with what tests and measurements want
besides: fewer layers, weight files of another size, ``pytorch_model.bin`` files.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from core.benchmark.random_checkpoint import write_checkpoint
from core.benchmark.random_models import random_model
from core.catalogue import Shape

SHARD_BYTES = 2 * 2**30


def big_checkpoint(
    folder: Path,
    architecture: str,
    shape: Shape,
    *,
    pickled: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write the checkpoint into ``folder`` and return it.

    Args:
        folder: created where it does not exist.
        architecture: one that :func:`core.catalogue.shapes.transformers_config` knows.
        shape: of the model.
        pickled: ``pytorch_model-….bin`` instead of safetensors.
        shard_bytes: largest weight file.
    """
    write_checkpoint(folder, architecture, shape, shard_bytes=shard_bytes)
    if pickled:
        _pickle(folder)
    return folder


def _pickle(folder: Path) -> None:
    """Turn the safetensors files into PyTorch's own, one after the other."""
    import torch
    from safetensors.torch import load_file

    for path in sorted(folder.glob("*.safetensors")):
        torch.save(load_file(path), folder / _pickled_name(path.name))
        path.unlink()
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        whole = json.loads(index.read_text(encoding="utf-8"))
        names = whole["weight_map"].items()
        whole["weight_map"] = {key: _pickled_name(name) for key, name in names}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(whole), encoding="utf-8")
        index.unlink()


def _pickled_name(name: str) -> str:
    return f"pytorch_{name.removesuffix('.safetensors')}.bin"


def main() -> None:
    """Entry point of ``python -m tests.big_checkpoint``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="dolly-v2-3b", help="catalogue key or benchmark shape")
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--bin", action="store_true", help="write pytorch_model.bin files")
    arguments = parser.parse_args()
    model = random_model(arguments.model)
    shape = model.shape
    if arguments.layers:
        shape = replace(shape, layers=arguments.layers)
    folder = big_checkpoint(arguments.folder, model.architecture, shape, pickled=arguments.bin)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e9:.2f} GB")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the module's text as it is written."""


if __name__ == "__main__":
    main()
