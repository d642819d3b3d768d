"""Checkpoints with random weights: content, creation and removal."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import psutil
import pytest

from core.benchmark import random_checkpoint
from core.benchmark import random_models as random_weights
from core.benchmark.artifacts import Artifact, is_prepared, prepare_artifact
from core.benchmark.lock import BenchmarkLock
from core.benchmark.random_checkpoint import write_checkpoint
from core.benchmark.random_models import (
    checkpoint_bytes,
    checkpoint_folder,
    delete_random_weights,
    ensure_checkpoint,
    random_model,
    random_models,
    random_settings,
    random_weights_bytes,
)
from core.catalogue import Precision, Shape, benchmark_shapes, catalogue, int4_settings
from core.catalogue.recipes import without_texts
from core.errors import ConversionError, DiskFullError, ModelBusyError, StoppedError
from core.settings import Settings
from core.store import ModelStore, resolve
from core.store.checkpoint import inspect_checkpoint
from tests.builders import ARCHITECTURES
from tests.waiting import PATIENCE_S, eventually

SMALL = "paddock-neox"
"""The embedded model's shape: real, and made in a moment."""

SHAPE = Shape(
    hidden=64,
    layers=2,
    heads=4,
    kv_heads=2,
    intermediate=128,
    vocabulary=300,
    positions=128,
    rotary_fraction=0.5,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def make(settings: Settings, key: str = SMALL, cancel: threading.Event | None = None) -> Path:
    told: list[tuple[str, float | None]] = []
    folder = ensure_checkpoint(
        random_model(key),
        settings,
        on_progress=lambda message, fraction: told.append((message, fraction)),
        cancel=cancel or threading.Event(),
    )
    assert all(key in message and 0 <= fraction <= 1 for message, fraction in told)
    return folder


# What is written


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpoint_of_every_architecture_generates(architecture: str, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_checkpoint(tmp_path, architecture, SHAPE, shard_bytes=130_000)
    info = inspect_checkpoint(folder)
    assert [path.suffix for path in info.weight_files] == 2 * [".safetensors"]
    assert info.dtype == "bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    ids = tokenizer("Wörter", return_tensors="pt")
    assert ids["input_ids"].shape == (1, len("Wörter".encode()))
    assert tokenizer.decode(ids["input_ids"][0]) == "Wörter"
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    answer = model.generate(**ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert answer.shape == (1, len("Wörter".encode()) + 3)


def test_equal_arguments_give_equal_bytes(tmp_path: Path):
    one, two = (write_checkpoint(tmp_path / name, "llama", SHAPE) for name in ("a", "b"))
    assert [path.name for path in one.glob("*.safetensors")] == ["model.safetensors"]
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_every_model_and_shape_is_available():
    known = random_models()
    assert set(known) == set(catalogue()) | set(benchmark_shapes())
    for key, row in catalogue().items():
        assert known[key].parameters == row.parameters
        usual = int4_settings(Precision.INT4, row)
        assert known[key].int4(Precision.INT4) == without_texts(usual)
        assert "random weights" in known[key].title
    assert 0.39e9 < known["neox-410m"].parameters < 0.42e9


# Where it lies


def test_checkpoint_is_written_once(settings: Settings):
    folder = make(settings)
    before = (folder / "model.safetensors").stat()
    assert folder == checkpoint_folder(settings, SMALL)
    assert before.st_size == pytest.approx(checkpoint_bytes(random_model(SMALL)), rel=0.01)
    assert make(settings) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in folder.parent.iterdir()] == [SMALL]
    assert ModelStore(settings).list() == []  # apart from the person's models


@pytest.mark.long
@pytest.mark.usefixtures("convert_here")
def test_conversion_uses_the_real_models_settings(settings: Settings):
    artifact = Artifact(SMALL, True, Precision.INT4)
    assert not is_prepared(artifact, settings)
    told: list[str] = []
    ready = prepare_artifact(
        artifact,
        settings,
        on_progress=lambda message, _: told.append(message),
        cancel=threading.Event(),
    )
    assert is_prepared(artifact, settings) and told
    folder = checkpoint_folder(settings, SMALL)
    store = ModelStore(random_settings(settings))
    stored = store.get(resolve(str(folder)), Precision.INT4)
    assert stored.folder == ready.folder
    wanted = int4_settings(Precision.INT4, catalogue()[SMALL])
    assert (stored.manifest.int4.group_size, stored.manifest.int4.ratio) == (
        wanted.group_size,
        wanted.ratio,
    )
    assert ready.positions == catalogue()[SMALL].shape.positions
    baseline = prepare_artifact(
        Artifact(SMALL, True, None), settings, on_progress=print, cancel=threading.Event()
    )
    assert baseline.folder == folder and baseline.positions == ready.positions
    assert random_weights_bytes(settings) > baseline.disk_bytes + ready.disk_bytes
    freed = delete_random_weights(settings)
    assert freed > baseline.disk_bytes and random_weights_bytes(settings) == 0
    assert not random_settings(settings).home.exists()


def test_nothing_is_deleted_under_a_running_benchmark(settings: Settings):
    folder = make(settings)
    with BenchmarkLock(settings).acquire(), pytest.raises(ModelBusyError, match="already"):
        delete_random_weights(settings)
    assert folder.is_dir()


def test_there_is_nothing_to_delete(settings: Settings):
    assert delete_random_weights(settings) == 0


# What goes wrong


def test_cancel_ends_writing_and_leaves_nothing(settings: Settings):
    """Of a shape so large that it would take a while."""
    cancel = threading.Event()
    timer = threading.Timer(1.0, cancel.set)
    timer.start()
    with pytest.raises(StoppedError):
        make(settings, "neox-410m", cancel)
    assert cancel.is_set()
    assert not [child for child in psutil.Process().children() if _writes(child)]
    assert random_weights_bytes(settings) == 0


def _writes(child: psutil.Process) -> bool:
    try:
        return any("random_checkpoint" in part for part in child.cmdline())
    except psutil.Error:
        return False


def test_killed_writer_is_an_error_and_leaves_nothing(settings: Settings):
    failure: list[Exception] = []

    def run() -> None:
        try:
            make(settings, "neox-410m")
        except ConversionError as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    found = eventually(lambda: [c for c in psutil.Process().children() if _writes(c)])
    found[0].kill()
    thread.join(PATIENCE_S)
    assert "signal 9" in str(failure[0]) and str(failure[0]).endswith(".")
    assert random_weights_bytes(settings) == 0


def test_too_small_disk_is_an_error_before_writing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(random_weights, "free_bytes", lambda folder: 10**9)
    with pytest.raises(DiskFullError, match=r"5\.5 GB|5\.6 GB"):
        make(settings, "dolly-v2-3b")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError, "became full"),
        (
            RuntimeError("Error while serializing:\nNo space left on device (os error 28)"),
            DiskFullError,
            "became full",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), ConversionError, "Permission denied"),
        (RuntimeError("not\nimplemented"), ConversionError, "RuntimeError: not implemented"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_disk_errors_of_the_writer_are_recognised(error: Exception, kind: type, text: str):
    found = random_checkpoint._describe(error, {"key": SMALL})
    assert type(found) is kind and text in str(found) and "\n" not in str(found)


def test_full_disk_of_the_writer_is_an_error_and_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(random_weights, "_WORKER", "tests.workers.full_disk")
    with pytest.raises(DiskFullError, match="became full"):
        make(settings)
    assert random_weights_bytes(settings) == 0


def test_leftovers_of_a_killed_process_are_removed(settings: Settings):
    left = checkpoint_folder(settings, SMALL).parent / ".work" / "old" / "model.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    folder = make(settings)
    assert not left.exists()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt_neox"
