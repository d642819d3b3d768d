"""Weights in several files are found by their index, whatever the names of the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from core.errors import CorruptModelError, NotAModelError
from core.store.checkpoint import inspect_checkpoint
from core.store.hub import HubAccess, fetch
from core.store.progress import ignore_progress
from tests.builders import tiny_checkpoint
from tests.store.hub_server import Hub

pytestmark = pytest.mark.usefixtures("online")

SAFETENSORS, PICKLES = "model.safetensors.index.json", "pytorch_model.bin.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint whose weights are in these files, listed in its index."""

    def make(names: Sequence[str], index: str = SAFETENSORS) -> Path:
        import torch
        from safetensors.torch import load_file, save_file

        folder = tiny_checkpoint("llama", tmp_path / "checkpoint")
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        weight_map = {key: names[at % len(names)] for at, key in enumerate(sorted(weights))}
        for name in names:
            part = {key: weights[key] for key in weights if weight_map[key] == name}
            (folder / name).parent.mkdir(exist_ok=True)
            if name.endswith(".bin"):
                torch.save(part, folder / name)
            else:
                save_file(part, folder / name, metadata={"format": "pt"})
        content = {"metadata": {}, "weight_map": weight_map}
        (folder / index).write_text(json.dumps(content), encoding="utf-8")
        return folder

    return make


def fetched_weights(hub: Hub, folder: Path, target: Path) -> set[str]:
    """Names of the weight files that are downloaded."""
    hub.add("some-org/sharded", folder)
    fetch("some-org/sharded", target, ignore_progress, access=HubAccess(endpoint=hub.url))
    return {
        path.relative_to(target).as_posix()
        for path in target.rglob("*")
        if path.suffix in (".safetensors", ".bin")
    }


@pytest.mark.parametrize(
    ("names", "index"),
    [
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], SAFETENSORS),
        (["model-00001-of-00001.safetensors"], SAFETENSORS),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"], PICKLES),
        pytest.param(
            [
                "model.safetensors-00001-of-00002.safetensors",
                "model.safetensors-00002-of-00002.safetensors",
            ],
            SAFETENSORS,
        ),
        pytest.param(
            [
                "pytorch_model-00001-of-00002.safetensors",
                "pytorch_model-00002-of-00002.safetensors",
            ],
            SAFETENSORS,
        ),
        pytest.param(["layers_0.safetensors", "layers_1.safetensors"], SAFETENSORS),
        pytest.param(
            ["model-001-of-002.safetensors", "model-002-of-002.safetensors"],
            SAFETENSORS,
        ),
        pytest.param(["parts/a.safetensors", "parts/b.safetensors"], SAFETENSORS),
        pytest.param(
            ["pytorch_model_00001-of-00002.bin", "pytorch_model_00002-of-00002.bin"],
            PICKLES,
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value.split(".")[0],
)
def test_the_shards_in_the_index_are_downloaded(
    names: list[str], index: str, hub: Hub, sharded: Callable[..., Path], tmp_path: Path
) -> None:
    assert fetched_weights(hub, sharded(names, index), tmp_path / "fetched") == set(names)


def test_a_shard_outside_the_index_is_not_downloaded(
    hub: Hub, sharded: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    folder = sharded(names)
    (folder / "model-00003-of-00003.safetensors").write_bytes(b"an earlier upload")
    assert fetched_weights(hub, folder, tmp_path / "fetched") == set(names)


@pytest.mark.parametrize(
    "names",
    [
        ["layers_0.safetensors", "layers_1.safetensors"],
        ["model-001-of-002.safetensors", "model-002-of-002.safetensors"],
        pytest.param(
            ["parts/a.safetensors", "parts/b.safetensors"],
        ),
    ],
    ids=lambda names: names[0],
)
def test_the_shards_of_a_folder_are_those_in_the_index(
    names: list[str], sharded: Callable[..., Path]
) -> None:
    folder = sharded(names)
    found = {
        path.relative_to(folder).as_posix() for path in inspect_checkpoint(folder).weight_files
    }
    assert found == set(names)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors"])
def test_an_index_with_paths_outside_its_folder_is_refused(
    name: str, hub: Hub, sharded: Callable[..., Path], tmp_path: Path
) -> None:
    folder = sharded(["layers_0.safetensors"])
    (tmp_path / "outside.safetensors").write_bytes(b"somebody else's")
    content = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
    (folder / SAFETENSORS).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CorruptModelError):
        inspect_checkpoint(folder)
    with pytest.raises((NotAModelError, CorruptModelError)):
        fetched_weights(hub, folder, tmp_path / "fetched")
