"""Averaging of finished weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.embedded.training.average import average


def finished(folder: Path, value: float, size: int = 3) -> Path:
    folder.mkdir()
    save_file({"w": torch.full((size,), value).half()}, folder / "model.safetensors")
    record = {"seed": int(value), "step": 10, "tokens": 4096, "loss": value}
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "config.json").write_text(f'{{"of": {value}}}', encoding="utf-8")
    return folder


def test_the_mean_is_written_with_the_files_of_the_last_folder(tmp_path: Path) -> None:
    folders = [finished(tmp_path / "a", 1.0), finished(tmp_path / "b", 4.0)]
    average(folders, tmp_path / "mean")
    weights = load_file(tmp_path / "mean" / "model.safetensors")["w"]
    assert weights.dtype == torch.float16 and weights.tolist() == [2.5] * 3
    assert json.loads((tmp_path / "mean" / "config.json").read_text()) == {"of": 4.0}
    record = json.loads((tmp_path / "mean" / "training.json").read_text())
    assert record["loss"] == 4.0 and [each["seed"] for each in record["averaged"]] == [1, 4]


def test_the_mean_can_replace_the_last_folder(tmp_path: Path) -> None:
    folders = [finished(tmp_path / "a", 1.0), finished(tmp_path / "b", 2.0)]
    average(folders, folders[1])
    assert load_file(folders[1] / "model.safetensors")["w"].tolist() == [1.5] * 3
    assert load_file(folders[0] / "model.safetensors")["w"].tolist() == [1.0] * 3


def test_other_shapes_and_single_folders_are_rejected(tmp_path: Path) -> None:
    first, second = finished(tmp_path / "a", 1.0), finished(tmp_path / "b", 2.0, size=4)
    with pytest.raises(ValueError, match="shapes of the weights"):
        average([first, second], tmp_path / "mean")
    with pytest.raises(ValueError, match="at least two"):
        average([first], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
