"""Folders of symbolic links, as in the Hugging Face cache, are copied by content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.store import ModelStore, StoredModel, resolve


def cached(files: Path, cache: Path, *, relative: bool) -> Path:
    """``files`` as snapshots/REVISION/NAME, each a link to blobs/HASH."""
    blobs, snapshot = cache / "blobs", cache / "snapshots" / f"{123:040}"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for at, path in enumerate(sorted(files.iterdir())):
        if path.name == "paddock.json":
            continue
        blob = Path(shutil.copyfile(path, blobs / f"{at:064x}"))
        target = Path(os.path.relpath(blob, snapshot)) if relative else blob
        (snapshot / path.name).symlink_to(target)
    return snapshot


@pytest.mark.parametrize(
    "relative",
    [
        pytest.param(
            True,
            id="relative",
        ),
        pytest.param(
            False,
            id="absolute",
        ),
    ],
)
def test_an_ir_of_links_is_copied_by_content(
    relative: bool,
    store: ModelStore,
    converted: Callable[[str, Precision], StoredModel],
    tmp_path: Path,
) -> None:
    files = converted("llama", Precision.FP16).folder
    snapshot = cached(files, tmp_path / "cache", relative=relative)
    stored = store.ensure(resolve(str(snapshot)), Precision.FP16)
    assert not any(path.is_symlink() for path in stored.folder.iterdir())
    weights = stored.folder / "openvino_model.bin"
    assert weights.read_bytes() == (files / "openvino_model.bin").read_bytes()
    shutil.rmtree(tmp_path / "cache")
    assert store.verify(stored, full=True)


def test_a_checkpoint_of_links_is_converted(
    store: ModelStore, checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    cache = tmp_path / "models--org--name"
    snapshot = cached(checkpoint_of("llama"), cache, relative=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(snapshot.name, encoding="utf-8")
    assert resolve(str(cache)) == resolve(str(snapshot))
    stored = store.ensure(resolve(str(snapshot)), Precision.FP16)
    assert not any(path.is_symlink() for path in stored.folder.iterdir())
