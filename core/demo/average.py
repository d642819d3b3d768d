"""Average finished weights: ``python -m core.demo.average MODEL FOLDER FOLDER [FOLDER …]``.

The mean of the weights that two or more stretches of one training ended with often answers better
than any of them (Wortsman et al. 2022, "Model soups"). Each folder holds what ``core.demo.train``
wrote; the mean is written to ``core/demo/<model>/`` with the tokenizer, the configuration and the
record of the last one, in which the others are noted.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from core.demo.models import DEMO_MODELS, read_json

WEIGHTS = "model.safetensors"
RECORD = "training.json"
AVERAGED = "averaged"
"""In the record: seed, steps and tokens of each training whose weights the mean is of."""


def average(folders: Sequence[Path], target: Path) -> None:
    """Write the mean of the weights in ``folders`` as half precision to ``target``.

    Raises:
        ValueError: there is nothing to average, or the weights are not of one architecture.
    """
    from safetensors.torch import load_file, save_file

    if len(folders) < 2:
        raise ValueError("Name at least two folders to average.")
    tensors = [load_file(folder / WEIGHTS) for folder in folders]
    first = tensors[0]
    for folder, other in zip(folders[1:], tensors[1:], strict=True):
        if {name: value.shape for name, value in other.items()} != {
            name: value.shape for name, value in first.items()
        }:
            raise ValueError(f"{folder} holds weights of another shape than {folders[0]}.")
    mean = {
        name: (sum(one[name].double() for one in tensors) / len(tensors)).half() for name in first
    }
    records = [read_json(folder / RECORD) for folder in folders]
    if folders[-1] != target:
        shutil.copytree(folders[-1], target, dirs_exist_ok=True)
    save_file(mean, target / WEIGHTS, metadata={"format": "pt"})
    kept = [{name: record[name] for name in ("seed", "step", "tokens")} for record in records]
    text = json.dumps({**records[-1], AVERAGED: kept}, indent=2)
    (target / RECORD).write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Command line of the averaging."""
    parser = argparse.ArgumentParser(prog="python -m core.demo.average", description=__doc__)
    parser.add_argument("model", choices=list(DEMO_MODELS))
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    chosen = parser.parse_args(arguments)
    try:
        average(chosen.folders, DEMO_MODELS[chosen.model].folder)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
