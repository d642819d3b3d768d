"""Models with random weights: those there are (the catalogue's and the benchmark shapes), and their
files, which are created on demand and removed.

They are kept apart from the user's models, in ``<home>/random-weights``::

    checkpoints/<key>/          PyTorch checkpoint, written by core.benchmark.random_checkpoint
    checkpoints/.work           unfinished checkpoint
    models/                     converted by the store, as in any home folder
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from core.benchmark.lock import BenchmarkLock
from core.catalogue import (
    CatalogueModel,
    Int4Settings,
    Precision,
    Shape,
    benchmark_shapes,
    catalogue,
    int4_settings,
)
from core.catalogue.recipes import without_texts
from core.catalogue.shapes import parameter_count
from core.errors import ConversionError, DiskFullError, UnknownModelError
from core.settings import Settings
from core.store import ModelStore
from core.store.checkpoint import TORCH_DTYPE_BYTES
from core.store.files import folder_bytes, free_bytes, has_no_space, remove_folder
from core.units import bytes_text
from core.workers.process import WorkerDied, WorkerProcess

BYTES_PER_PARAMETER = TORCH_DTYPE_BYTES["bfloat16"]

_SPARE_BYTES = 64 * 2**20
"""Disk space that must stay free."""

_WORKER = "core.benchmark.random_checkpoint"

RANDOM_SOURCE = "random weights"
"""Source of their measurements, and the end of their titles."""


@dataclass(frozen=True)
class RandomModel:
    """Architecture and shape of a model, with random weights: as fast and as large as the real
    one."""

    key: str
    """Of the catalogue's row or of the benchmark shape."""
    title: str
    """Includes that the weights are random."""
    architecture: str
    shape: Shape
    row: CatalogueModel | None = None
    """Row of the real model."""

    def int4(self, precision: Precision) -> Int4Settings:
        """Return the INT4 settings of the real model in a recipe, without AWQ and scale
        estimation."""
        return without_texts(int4_settings(precision, self.row, self.key, self.parameters))

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return parameter_count(self.architecture, self.shape)


def random_models() -> dict[str, RandomModel]:
    """Return all of them by key: the benchmark shapes, then the catalogue's rows."""
    found = {
        key: RandomModel(key, f"{key} · {RANDOM_SOURCE}", architecture, shape)
        for key, (architecture, shape) in benchmark_shapes().items()
    }
    for key, row in catalogue().items():
        title = f"{row.title} · {RANDOM_SOURCE}"
        found[key] = RandomModel(key, title, row.architecture, row.shape, row)
    return found


def random_model(key: str) -> RandomModel:
    """Return the model of a key.

    Raises:
        UnknownModelError: there is none; the text lists the keys.
    """
    known = random_models()
    if key not in known:
        raise UnknownModelError(
            f"There is no shape {key[:80]!r} for random weights. Choose one of {', '.join(known)}."
        )
    return known[key]


def random_settings(settings: Settings) -> Settings:
    """Return the settings of the home folder for random weights."""
    return settings.model_copy(update={"home": settings.home / "random-weights"})


def checkpoint_folder(settings: Settings, key: str) -> Path:
    """Return the folder of a checkpoint, which need not exist."""
    return random_settings(settings).home / "checkpoints" / key


def checkpoint_bytes(model: RandomModel) -> int:
    """Return the size of its weights on disk."""
    return model.parameters * BYTES_PER_PARAMETER


def random_weights_bytes(settings: Settings) -> int:
    """Return the size of all random weights on disk, checkpoints and converted models."""
    return folder_bytes(random_settings(settings).home)


def delete_random_weights(settings: Settings) -> int:
    """Remove all random weights, and return the bytes freed.

    Raises:
        ModelBusyError: a benchmark is running, or a program has a file open.
    """
    settings.check_not_kiosk()
    with BenchmarkLock(settings).acquire():
        return remove_folder(random_settings(settings).home, "random weights")


def remove_random_weights(settings: Settings, keys: Iterable[str]) -> None:
    """Remove the random weights of these models; the caller holds the benchmark lock.

    Raises:
        ModelBusyError: a file cannot be removed.
    """
    store = ModelStore(random_settings(settings))
    stored = store.list()
    for folder in (checkpoint_folder(settings, key) for key in keys):
        for each in stored:
            if Path(each.manifest.source.location) == folder:
                store.delete(each)
        remove_folder(folder, "random weights")


def ensure_checkpoint(
    model: RandomModel,
    settings: Settings,
    *,
    on_progress: Callable[[str, float | None], None],
    cancel: threading.Event,
) -> Path:
    """Write the checkpoint unless it exists; the caller holds the benchmark lock.

    Args:
        cancel: when set, the work ends within a second and leaves nothing behind.

    Raises:
        StoppedError: ``cancel`` was set.
        DiskFullError: not enough free disk space.
        ConversionError: the checkpoint could not be written.
    """
    folder = checkpoint_folder(settings, model.key)
    if folder.is_dir():
        return folder
    work = folder.parent / ".work"
    shutil.rmtree(work, ignore_errors=True)  # left by a killed process
    size = checkpoint_bytes(model)
    free = free_bytes(folder)
    if size + _SPARE_BYTES > free:
        raise DiskFullError(
            f"The random weights of {model.key} need {bytes_text(size)} of disk space, but "
            f"{bytes_text(free)} are free. Free some space, or set PADDOCK_HOME to a folder on a "
            "larger disk."
        )
    message = f"Writing random weights of {model.key} ({bytes_text(size)})."
    on_progress(message, 0.0)
    try:
        work.mkdir(parents=True)
        with WorkerProcess(_WORKER, {"folder": str(work), "key": model.key}) as worker:
            worker.follow(
                lambda event: on_progress(message, event["fraction"]),
                cancel=cancel,
                stopped="Stopped. The unfinished random weights were removed.",
            )
        work.rename(folder)
    except (OSError, WorkerDied) as error:
        raise write_error(model, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def write_error(model: RandomModel, error: Exception) -> DiskFullError | ConversionError:
    """Return what an error during the writing of a checkpoint means."""
    if has_no_space(error):
        return DiskFullError(
            f"The disk became full while writing the random weights of {model.key}; nothing was "
            "kept. Free some space and try again."
        )
    return ConversionError(
        f"The random weights of {model.key} could not be written ({error}). Check the home folder "
        "and try again."
    )
