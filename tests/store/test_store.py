"""The store keeps models, detects damage and changes, and leaves nothing incomplete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors.torch import load_file, save_file

from core.catalogue import Precision
from core.errors import (
    ConversionError,
    CorruptModelError,
    DiskFullError,
    ModelBusyError,
    NotEnoughMemoryError,
)
from core.settings import CHECKOUT, Settings
from core.store import Estimate, ModelStore, Progress, Source, Stage, StoredModel, files, resolve
from core.store import store as store_module
from core.store.files import fingerprint, has_changed
from core.store.manifest import write_manifest
from core.store.weights_source import of_folder
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
    """A stored INT8 model in this test's own home; its files may be changed."""
    model = converted("gpt_neox", INT8)
    folder = settings.models_dir / model.key / model.precision
    shutil.copytree(model.folder, folder)
    return StoredModel(model.key, model.precision, folder, model.manifest)


def work_folders(settings: Settings) -> list[Path]:
    """Work folders of running or killed conversions."""
    return [path for path in (settings.models_dir / ".work").iterdir() if path.is_dir()]


# Conversion and reuse


def test_model_is_converted_once_and_reused(store: ModelStore, source: Source) -> None:
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


def test_only_the_requested_precision_is_kept(
    store: ModelStore, settings: Settings, source: Source
) -> None:
    made = store.ensure(source, Precision.INT4)
    assert [path.name for path in made.folder.parent.iterdir()] == ["int4"]
    assert work_folders(settings) == []
    assert {path.suffix for path in made.folder.iterdir()} == {".bin", ".xml", ".json"}


def test_manifest_records_the_conversion(store: ModelStore, source: Source) -> None:
    made = store.ensure(source, INT8)
    manifest = made.manifest
    assert json.loads((made.folder / "paddock.json").read_text())["schema_version"] == 1
    assert manifest.source.location == str(source.location)
    assert manifest.positions == 256
    assert manifest.has_chat_template is False
    assert "openvino_tokenizer.xml" in manifest.files
    assert manifest.versions["optimum-intel"] == "2.1.0"
    assert manifest.weight_bytes == (made.folder / "openvino_model.bin").stat().st_size
    others = [path for path in made.folder.iterdir() if path.name != "paddock.json"]
    assert set(manifest.files) == {path.name for path in others}
    assert manifest.folder_bytes == sum(path.stat().st_size for path in others)
    assert manifest.duration_s > 0.1
    assert manifest.peak_memory_bytes > 200 * 2**20


def test_manifest_of_an_earlier_version_is_read(store: ModelStore, stored: StoredModel) -> None:
    path = stored.folder / "paddock.json"
    content = json.loads(path.read_text())
    for name in ("int8", "source_of_weights", "source_bytes"):
        del content[name]
    path.write_text(json.dumps(content))
    (found,) = store.list()
    assert found.manifest.int8 is None
    assert found.manifest.source_of_weights is None
    assert found.manifest.source_bytes is None
    assert store.verify(found, full=True) == found


def test_chat_template_is_recorded(store: ModelStore, tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "chat", with_chat_template=True)
    manifest = store.ensure(resolve(str(folder)), Precision.FP32).manifest
    assert manifest.has_chat_template is True


def test_reading_the_store_imports_no_heavy_library(stored: StoredModel) -> None:
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


# Changes and damage


def test_model_is_converted_again_when_its_source_has_changed(
    store: ModelStore, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "generation_config.json", "added_tokens.json", "vocab.json"]
)
def test_every_copied_file_is_watched(
    name: str, store: ModelStore, stored: StoredModel, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "watched")
    source = resolve(str(folder))
    record = stored.manifest.source.model_copy(
        update={"location": str(folder), "fingerprint": fingerprint(source)}
    )
    target = store.settings.models_dir / source.key / "int8"
    shutil.copytree(stored.folder, target)
    write_manifest(target, stored.manifest.model_copy(update={"key": source.key, "source": record}))
    kept = store.get(source, Precision.INT8)
    assert kept is not None and not store.is_outdated(kept)
    (folder / name).write_text("{}", encoding="utf-8")
    assert store.get(source, Precision.INT8) is None
    assert store.is_outdated(kept)


@pytest.fixture
def sharded(tmp_path: Path) -> Source:
    """A model whose only shard is in a subfolder."""
    folder = tiny_checkpoint("llama", tmp_path / "sharded")
    (folder / "weights").mkdir()
    shard = (folder / "model.safetensors").rename(folder / "weights" / "part-1.safetensors")
    index = {"weight_map": dict.fromkeys(load_file(shard), "weights/part-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return resolve(str(folder))


def test_a_changed_shard_in_a_subfolder_is_noticed(sharded: Source) -> None:
    before, folder = fingerprint(sharded), Path(sharded.location)
    assert of_folder(folder).dtype == "float32"
    shard = folder / "weights" / "part-1.safetensors"
    halves = {name: tensor.half() for name, tensor in load_file(shard).items()}
    save_file(halves, shard, metadata={"format": "pt"})
    assert has_changed(sharded, before)
    assert of_folder(folder).dtype == "float16"


def test_a_changed_file_of_the_same_size_and_time_is_noticed(sharded: Source) -> None:
    template = Path(sharded.location) / "chat_template.jinja"
    template.write_text("one", encoding="utf-8")
    before, state = fingerprint(sharded), template.stat()
    template.write_text("two", encoding="utf-8")
    os.utime(template, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert has_changed(sharded, before)


def test_a_model_of_an_earlier_version_has_not_changed(sharded: Source) -> None:
    assert fingerprint(sharded).startswith("3:")
    assert not has_changed(sharded, "2:0123")
    assert has_changed(sharded, "3:0123")


@pytest.mark.parametrize("name", ["training_args.bin", "adapter.safetensors", "config.json"])
def test_other_files_and_new_times_change_nothing(name: str, sharded: Source) -> None:
    before = fingerprint(sharded)
    path = Path(sharded.location) / name
    path.touch()
    os.utime(path, (1, 1))
    assert not has_changed(sharded, before)


def test_model_remains_without_its_source(store: ModelStore, tmp_path: Path) -> None:
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
    with pytest.raises(CorruptModelError, match=f"{name} is missing. Delete it"):
        store.verify(stored, full=False)


def test_altered_byte_is_found_by_the_modification_time(
    store: ModelStore, stored: StoredModel
) -> None:
    path = stored.folder / "openvino_model.bin"
    _flip_byte(path)
    with pytest.raises(CorruptModelError, match=r"openvino_model\.bin has been altered"):
        store.verify(stored, full=False)


def test_altered_byte_with_an_unchanged_time_is_found_by_the_full_check(
    store: ModelStore, stored: StoredModel
) -> None:
    path = stored.folder / "openvino_model.bin"
    before = path.stat().st_mtime_ns
    _flip_byte(path)
    os.utime(path, ns=(before, before))
    store.verify(stored, full=False)
    with pytest.raises(CorruptModelError, match="has been altered"):
        store.verify(stored, full=True)


def test_copied_home_is_read_only_once(
    store: ModelStore, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in stored.folder.iterdir():
        path.touch()
    again = store.verify(stored, full=False)
    monkeypatch.setattr(store_module, "sha256", lambda _path: pytest.fail("read again"))
    assert store.verify(again, full=False) == again == store.list()[0]


def test_damaged_model_is_refused_by_ensure(
    store: ModelStore, stored: StoredModel, source: Source
) -> None:
    _flip_byte(stored.folder / "openvino_model.bin")
    with pytest.raises(CorruptModelError, match="Delete it"):
        store.ensure(source, INT8)
    store.delete(stored)
    assert store.ensure(source, INT8).manifest.precision is INT8


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 99}'])
def test_damaged_manifest_is_named_and_other_models_are_listed(
    store: ModelStore, stored: StoredModel, source: Source, content: str
) -> None:
    (stored.folder / "paddock.json").write_text(content)
    with pytest.raises(CorruptModelError, match=r"paddock\.json .* Delete this folder"):
        store.get(source, INT8)
    assert store.list() == []


def _flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# Deleting


def test_delete_returns_the_bytes_freed(store: ModelStore, stored: StoredModel) -> None:
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


def test_model_being_converted_is_not_deleted(
    store: ModelStore, stored: StoredModel, settings: Settings
) -> None:
    lock = settings.models_dir / ".work" / f"{stored.key}.int8.lock"
    lock.parent.mkdir()
    with FileLock(lock), pytest.raises(ModelBusyError, match="being converted"):
        store.delete(stored)
    assert stored.folder.is_dir()


# Nothing incomplete


def test_too_small_disk_is_reported_beforehand(
    store: ModelStore, settings: Settings, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DiskFullError, match=r"needs 1\d MB on disk and 1\.0 MB are free"):
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

    monkeypatch.setattr(convert, "compress_to_fit", too_large)
    with pytest.raises(NotEnoughMemoryError, match="memory ran out"):
        store.ensure(source, INT8)
    assert work_folders(settings) == []


def test_files_of_a_killed_conversion_are_removed_and_those_of_a_running_one_kept(
    store: ModelStore, settings: Settings, source: Source
) -> None:
    work = settings.models_dir / ".work"
    dead = work / f"{source.key}.int8.0badcafe" / "model"
    alive = work / f"{source.key}.int4.0badcafe" / "model"
    dead.mkdir(parents=True)
    alive.mkdir(parents=True)
    with FileLock(work / f"{source.key}.int4.lock"):
        store.ensure(source, INT8)
        store.clean_up(source.key, Precision.INT4)
        assert work_folders(settings) == [alive.parent]
    store.clean_up(source.key, Precision.INT4)
    assert work_folders(settings) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate disk of 1 MB."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "paddock-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_really_full_disk_leaves_nothing(
    small_disk: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = small_disk / "home"
    store = ModelStore(Settings(home=home))
    with pytest.raises(DiskFullError, match=r"needs 1\d MB on disk and 1\.0 MB are free"):
        store.ensure(source, Precision.FP32)
    with monkeypatch.context() as patch:  # another program fills the disk after the check
        patch.setattr(Estimate, "check", lambda _self: None)
        (small_disk / "other").write_bytes(b"x" * 900_000)
        with pytest.raises(DiskFullError, match="disk became full"):
            store.ensure(source, Precision.FP32)
    assert store.list() == []
    assert store.disk_usage().work_bytes == 0
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert store.ensure(source, Precision.FP32).manifest.precision is Precision.FP32


@pytest.fixture
def read_only_home(settings: Settings) -> Iterator[Path]:
    """A home folder that is read-only for this process, even if it runs as root."""
    if not hasattr(os, "seteuid"):
        pytest.skip("no effective user here")
    settings.home.mkdir()
    shown = [settings.home, *settings.home.parents]
    modes = {folder: folder.stat().st_mode for folder in shown if folder.owner() != "nobody"}
    user = os.geteuid()
    settings.home.chmod(0o555)
    if user == 0:
        for folder in shown[1:]:
            with contextlib.suppress(OSError):
                folder.chmod(modes[folder] | 0o055)
        os.seteuid(65534)
    yield settings.home
    if user == 0:
        os.seteuid(0)
    for folder, mode in modes.items():
        with contextlib.suppress(OSError):
            folder.chmod(stat.S_IMODE(mode))


def test_read_only_home_is_reported(
    store: ModelStore, source: Source, read_only_home: Path
) -> None:
    with pytest.raises(ConversionError, match=r"is not writable .* PADDOCK_HOME"):
        store.ensure(source, INT8)
    assert store.list() == []
    assert list(read_only_home.iterdir()) == []


def test_file_instead_of_the_home_folder_is_reported(source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ModelStore(Settings(home=tmp_path / "file" / "home"))
    with pytest.raises(ConversionError, match="is not writable"):
        store.ensure(source, INT8)


# The disk


def test_disk_usage_counts_all_files(
    store: ModelStore, stored: StoredModel, settings: Settings
) -> None:
    before = store.disk_usage()
    size = sum(path.stat().st_size for path in stored.folder.iterdir())
    assert before.models_bytes == size
    assert (before.downloads_bytes, before.work_bytes) == (0, 0)
    assert before.free_bytes > 0
    left = settings.models_dir / ".work" / "mine.v1.int4.0badcafe" / "export"
    left.mkdir(parents=True)
    (left / "openvino_model.bin").write_bytes(b"x" * 5000)
    (settings.downloads_dir / "org--name").mkdir(parents=True)
    (settings.downloads_dir / "org--name" / "model.safetensors").write_bytes(b"x" * 700)
    now = store.disk_usage()
    assert (now.models_bytes, now.downloads_bytes, now.work_bytes) == (size, 700, 5000)
    assert store.clean_up_all() == 5000
    assert store.disk_usage().work_bytes == 0


def test_disk_usage_of_a_home_that_does_not_exist_yet(tmp_path: Path) -> None:
    usage = ModelStore(Settings(home=tmp_path / "never" / "made")).disk_usage()
    assert (usage.models_bytes, usage.downloads_bytes, usage.work_bytes) == (0, 0, 0)
    assert usage.free_bytes > 0
    assert not (tmp_path / "never").exists()


def test_download_is_listed_and_deleted(store: ModelStore, settings: Settings) -> None:
    folder = settings.downloads_dir / "org--name"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(b"x" * 1234)
    (download,) = store.downloads()
    assert (download.key, download.bytes, download.complete) == ("org--name", 1234, False)
    assert store.delete_download("org--name") == 1234
    assert store.downloads() == []
    assert store.delete_download("org--name") == 0


@pytest.mark.parametrize("key", ["", ".", "..", "../models", "/", "a/../../models"])
def test_only_downloads_are_deleted(
    store: ModelStore, stored: StoredModel, settings: Settings, key: str
) -> None:
    (settings.downloads_dir / "a").mkdir(parents=True)
    assert store.delete_download(key) == 0
    assert stored.folder.is_dir()
    assert (settings.downloads_dir / "a").is_dir()


@pytest.mark.parametrize("held", ["source", "int8"])
def test_download_in_use_is_not_deleted(store: ModelStore, settings: Settings, held: str) -> None:
    folder = settings.downloads_dir / "org--name"
    folder.mkdir(parents=True)
    lock = settings.models_dir / ".work" / f"org--name.{held}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(ModelBusyError, match="in use by a download"):
        store.delete_download("org--name")
    assert folder.is_dir()


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
