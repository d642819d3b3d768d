"""The store keeps what it made, notices damage and change, and leaves nothing half-made."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from core.catalogue import Precision
from core.errors import (
    CorruptModelError,
    DiskFullError,
    ModelBusyError,
    NotEnoughMemoryError,
)
from core.settings import CHECKOUT, Settings
from core.store import ModelStore, Progress, Source, Stage, StoredModel, resolve
from core.store import store as store_module
from core.store.store import estimate_bytes
from tests.builders import tiny_checkpoint

CheckpointOf = Callable[[str], Path]
Converted = Callable[[str, Precision], StoredModel]
INT8 = Precision.INT8


@pytest.fixture
def source(checkpoint_of: CheckpointOf) -> Source:
    """A tiny GPT-NeoX checkpoint."""
    return resolve(str(checkpoint_of("gpt_neox")))


@pytest.fixture
def stored(converted: Converted, settings: Settings) -> StoredModel:
    """A stored INT8 model in this test's own home; its files may be spoilt."""
    model = converted("gpt_neox", INT8)
    folder = settings.models_dir / model.key / model.precision
    shutil.copytree(model.folder, folder)
    return StoredModel(model.key, model.precision, folder, model.manifest)


def work_folders(settings: Settings) -> list[Path]:
    """What conversions under way, or killed, have left."""
    return [path for path in (settings.models_dir / ".work").iterdir() if path.is_dir()]


# Once made, kept


def test_is_converted_once_and_reused(store: ModelStore, source: Source) -> None:
    assert store.get(source, INT8) is None
    steps: list[Progress] = []
    made = store.ensure(source, INT8, progress=steps.append)
    stages = [step.stage for step in steps]
    assert stages[-1] is Stage.DONE
    assert stages == sorted(stages, key=list(Stage).index)
    fractions = [step.fraction for step in steps if step.fraction is not None]
    assert fractions == sorted(fractions)
    assert all(step.message.endswith(".") for step in steps)

    steps.clear()
    again = store.ensure(source, INT8, progress=steps.append)
    assert [step.stage for step in steps] == [Stage.DONE]
    assert again == made == store.get(source, INT8)
    assert store.list() == [made]


def test_only_the_precision_asked_for_remains(
    store: ModelStore, settings: Settings, source: Source
) -> None:
    made = store.ensure(source, Precision.INT4)
    assert [path.name for path in made.folder.parent.iterdir()] == ["int4"]
    assert work_folders(settings) == []
    assert {path.suffix for path in made.folder.iterdir()} == {".bin", ".xml", ".json"}


def test_manifest_tells_what_was_done(store: ModelStore, source: Source) -> None:
    made = store.ensure(source, INT8)
    manifest = made.manifest
    assert json.loads((made.folder / "paddock.json").read_text())["schema_version"] == 1
    assert manifest.source.location == str(source.location)
    assert manifest.positions == 256
    assert manifest.has_chat_template is False
    assert manifest.has_openvino_tokenizer is True
    assert manifest.versions["optimum-intel"] == "2.1.0"
    assert manifest.weight_bytes == (made.folder / "openvino_model.bin").stat().st_size
    others = [path for path in made.folder.iterdir() if path.name != "paddock.json"]
    assert set(manifest.files) == {path.name for path in others}
    assert manifest.folder_bytes == sum(path.stat().st_size for path in others)
    assert manifest.duration_s > 0.1
    assert manifest.peak_memory_bytes > 200 * 2**20
    if sys.platform == "linux":
        assert 0 < (manifest.peak_private_bytes or 0) < manifest.peak_memory_bytes


def test_chat_template_is_noticed(store: ModelStore, tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "chat", with_chat_template=True)
    manifest = store.ensure(resolve(str(folder)), Precision.FP32).manifest
    assert manifest.has_chat_template is True


def test_looking_into_the_store_needs_no_heavy_library(stored: StoredModel) -> None:
    script = (
        "import sys\n"
        "from core.settings import load_settings\n"
        "from core.store import ModelStore\n"
        "assert len(ModelStore(load_settings()).list()) == 1\n"
        "heavy = {'torch', 'transformers', 'optimum', 'nncf', 'openvino'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    home = {"PADDOCK_HOME": str(stored.folder.parents[2])}
    subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, env=os.environ | home, check=True)


# Change and damage


def test_model_is_made_anew_when_its_source_has_changed(store: ModelStore, tmp_path: Path) -> None:
    folder = tiny_checkpoint("gpt_neox", tmp_path / "trained", seed=1)
    source = resolve(str(folder))
    first = store.ensure(source, INT8)
    tiny_checkpoint("gpt_neox", folder, seed=2)
    assert store.get(source, INT8) is None
    second = store.ensure(source, INT8)
    weights = "openvino_model.bin"
    assert second.folder == first.folder
    assert second.manifest.files[weights].sha256 != first.manifest.files[weights].sha256
    store.verify(second, full=True)


def test_model_outlives_its_source(store: ModelStore, tmp_path: Path) -> None:
    folder = tiny_checkpoint("gpt_neox", tmp_path / "trained")
    source = resolve(str(folder))
    made = store.ensure(source, INT8)
    shutil.rmtree(folder)
    assert store.ensure(source, INT8) == made


def test_undamaged_model_is_verified(store: ModelStore, stored: StoredModel) -> None:
    assert store.verify(stored, full=False) == stored
    assert store.verify(stored, full=True) == stored


@pytest.mark.parametrize("full", [False, True])
def test_truncated_weights_are_named(store: ModelStore, stored: StoredModel, full: bool) -> None:
    weights = stored.folder / "openvino_model.bin"
    with weights.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CorruptModelError, match=r"openvino_model\.bin has 1000 of \d+ bytes"):
        store.verify(stored, full=full)


@pytest.mark.parametrize("name", ["openvino_model.xml", "tokenizer.json", "config.json"])
def test_missing_file_is_named(store: ModelStore, stored: StoredModel, name: str) -> None:
    (stored.folder / name).unlink()
    with pytest.raises(CorruptModelError, match=f"{name} is missing; delete it"):
        store.verify(stored, full=False)


def test_altered_byte_is_found_by_the_changed_time(store: ModelStore, stored: StoredModel) -> None:
    path = stored.folder / "openvino_model.bin"
    _flip_byte(path)
    with pytest.raises(CorruptModelError, match=r"openvino_model\.bin has been altered"):
        store.verify(stored, full=False)


def test_rot_under_an_unchanged_time_is_found_by_the_full_check(
    store: ModelStore, stored: StoredModel
) -> None:
    path = stored.folder / "openvino_model.bin"
    before = path.stat().st_mtime_ns
    _flip_byte(path)
    os.utime(path, ns=(before, before))
    store.verify(stored, full=False)
    with pytest.raises(CorruptModelError, match="has been altered"):
        store.verify(stored, full=True)


def test_copied_home_is_read_once_and_then_trusted(
    store: ModelStore, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in stored.folder.iterdir():
        path.touch()
    again = store.verify(stored, full=False)
    monkeypatch.setattr(store_module, "_sha256", lambda _path: pytest.fail("read again"))
    assert store.verify(again, full=False) == again == store.list()[0]


def test_damaged_model_is_refused_by_ensure(
    store: ModelStore, stored: StoredModel, source: Source
) -> None:
    _flip_byte(stored.folder / "openvino_model.bin")
    with pytest.raises(CorruptModelError, match="delete it"):
        store.ensure(source, INT8)
    store.delete(stored)
    assert store.ensure(source, INT8).manifest.precision is INT8


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 99}'])
def test_damaged_manifest_is_named_and_hides_nothing_else(
    store: ModelStore, stored: StoredModel, source: Source, content: str
) -> None:
    (stored.folder / "paddock.json").write_text(content)
    with pytest.raises(CorruptModelError, match=r"paddock\.json .* delete this folder"):
        store.get(source, INT8)
    assert store.list() == []


def _flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# Deleting


def test_delete_frees_the_bytes_it_tells(store: ModelStore, stored: StoredModel) -> None:
    size = sum(path.stat().st_size for path in stored.folder.iterdir())
    assert store.delete(stored) == size
    assert store.list() == []
    assert not stored.folder.parent.exists()
    assert store.delete(stored) == 0


def test_delete_keeps_the_other_precisions(
    store: ModelStore, stored: StoredModel, source: Source
) -> None:
    other = store.ensure(source, Precision.FP32)
    store.delete(stored)
    assert store.list() == [other]


def test_model_under_conversion_is_not_deleted(
    store: ModelStore, stored: StoredModel, settings: Settings
) -> None:
    lock = settings.models_dir / ".work" / f"{stored.key}.int8.lock"
    lock.parent.mkdir()
    with FileLock(lock), pytest.raises(ModelBusyError, match="being converted"):
        store.delete(stored)
    assert stored.folder.is_dir()


# Nothing half-made


def test_disk_too_small_is_told_beforehand(
    store: ModelStore, settings: Settings, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DiskFullError, match=r"needs 17\.\d MB on disk and 1\.0 MB are free"):
        store.ensure(source, INT8)
    assert work_folders(settings) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError(f"Check failed at serialize: {os.strerror(errno.ENOSPC)}"),
    ],
    ids=["OSError", "OpenVINO's own words"],
)
def test_disk_full_while_saving_leaves_nothing(
    store: ModelStore,
    settings: Settings,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    import openvino

    def save_half(model: object, path: Path, **_options: object) -> None:
        Path(path).write_bytes(b"<net")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(openvino, "save_model", save_half)
        with pytest.raises(DiskFullError, match="disk became full"):
            store.ensure(source, INT8)
    assert work_folders(settings) == []
    assert store.list() == []
    assert store.ensure(source, INT8).manifest.precision is INT8


def test_memory_that_runs_out_leaves_nothing(
    store: ModelStore, settings: Settings, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.store import convert

    def too_large(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(convert, "_compress_once", too_large)
    with pytest.raises(NotEnoughMemoryError, match="memory ran out"):
        store.ensure(source, INT8)
    assert work_folders(settings) == []


def test_leftovers_of_a_killed_conversion_go_and_those_of_a_live_one_stay(
    store: ModelStore, settings: Settings, source: Source
) -> None:
    work = settings.models_dir / ".work"
    dead = work / f"{source.key}.int8.0badcafe" / "model"
    alive = work / f"{source.key}.int4.0badcafe" / "model"
    dead.mkdir(parents=True)
    alive.mkdir(parents=True)
    with FileLock(work / f"{source.key}.int4.lock"):
        store.ensure(source, INT8)
        store.sweep(source.key, Precision.INT4)
        assert work_folders(settings) == [alive.parent]
    store.sweep(source.key, Precision.INT4)
    assert work_folders(settings) == []


def test_estimate_covers_what_is_written(checkpoint_of: CheckpointOf) -> None:
    folder = checkpoint_of("gpt_neox")
    weights = (folder / "model.safetensors").stat().st_size
    spare = estimate_bytes(folder, Precision.FP32) - weights
    assert spare >= 15 * 2**20
    assert estimate_bytes(folder, INT8) > estimate_bytes(folder, Precision.FP32)
    assert estimate_bytes(folder, Precision.FP16) < estimate_bytes(folder, Precision.FP32)


# The embedded models


@pytest.mark.parametrize(
    ("key", "marker"), [("paddock-neox", "### End"), ("paddock-llama", "<|end|>")]
)
def test_embedded_model_converts_without_a_network(
    store: ModelStore, key: str, marker: str
) -> None:
    made = store.ensure(resolve(key), INT8)
    row = resolve(key).model
    assert row is not None
    assert made.manifest.architecture == row.architecture
    assert made.manifest.has_chat_template == (row.prompt_format == "chat")
    tokenizer = json.loads((made.folder / "tokenizer.json").read_text())
    special = {token["content"] for token in tokenizer["added_tokens"]}
    assert marker in special
