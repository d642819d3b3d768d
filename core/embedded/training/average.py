"""Average finished weights: ``python -m core.embedded.training.average MODEL FOLDER FOLDER …``.

The mean of the weights at several points of one training run often answers better than any of them
(Wortsman et al. 2022, "Model soups"). Each folder holds files written by
``core.embedded.training.train``. The mean is written to ``core/embedded/<model>/`` with the
tokenizer, the configuration and the record of the last folder; the record lists all of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from core.embedded.training.build import read_json
from core.embedded.training.models import EMBEDDED_MODELS

WEIGHTS = "model.safetensors"
RECORD = "training.json"
AVERAGED = "averaged"
"""Field of the record: seed, steps and tokens of each set of averaged weights."""


def average(folders: Sequence[Path], target: Path) -> None:
    """Write the mean of the weights in ``folders`` to ``target``, in half precision.

    Raises:
        ValueError: fewer than two folders, or the shapes of the weights differ.
    """
    from safetensors.torch import load_file, save_file

    if len(folders) < 2:
        raise ValueError("There is nothing to average. Give at least two folders.")
    tensors = [load_file(folder / WEIGHTS) for folder in folders]
    first = tensors[0]
    for folder, other in zip(folders[1:], tensors[1:], strict=True):
        if {name: value.shape for name, value in other.items()} != {
            name: value.shape for name, value in first.items()
        }:
            raise ValueError(
                f"The shapes of the weights in {folder} and {folders[0]} differ. "
                "Give folders of the same model."
            )
    mean = {
        name: (sum(each[name].double() for each in tensors) / len(tensors)).half() for name in first
    }
    records = [read_json(folder / RECORD) for folder in folders]
    if folders[-1] != target:
        shutil.copytree(folders[-1], target, dirs_exist_ok=True)
    save_file(mean, target / WEIGHTS, metadata={"format": "pt"})
    kept = [{name: record[name] for name in ("seed", "step", "tokens")} for record in records]
    text = json.dumps({**records[-1], AVERAGED: kept}, indent=2)
    (target / RECORD).write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m core.embedded.training.average", description=__doc__
    )
    parser.add_argument("model", choices=list(EMBEDDED_MODELS))
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        average(options.folders, EMBEDDED_MODELS[options.model].folder)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
