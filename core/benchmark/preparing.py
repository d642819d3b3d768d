"""Has each model on disk in the form in which it is measured, before anything is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.benchmark.plan import Target
from core.benchmark.random_weights import (
    checkpoint_folder,
    ensure_checkpoint,
    random_settings,
)
from core.benchmark.shapes import RandomModel, random_model
from core.catalogue import Precision
from core.errors import NotAModelError
from core.settings import Settings
from core.store import (
    ModelStore,
    Progress,
    Source,
    SourceKind,
    StoredModel,
    convert_in_process,
    fetch_in_process,
    resolve,
)
from core.store.checkpoint import inspect_checkpoint, is_ir, positions
from core.store.files import folder_bytes
from core.store.origin import original_folder

OnProgress = Callable[[str, float | None], None]
"""Told a sentence and the share of the step that is done, 0 to 1 or None."""


@dataclass(frozen=True)
class Material:
    """What one target is measured from; targets of equal material share the files."""

    model: str
    random_weights: bool
    precision: Precision | None
    """None for the checkpoint itself, which the PyTorch baseline runs."""

    @classmethod
    def of(cls, target: Target) -> Material:
        """The material of that target."""
        precision = None if target.baseline else target.precision
        return cls(target.model, target.random_weights, precision)

    @property
    def label(self) -> str:
        """For progress: "tiny-llama-1b-chat in INT4"."""
        name = f"{self.model} with random weights" if self.random_weights else self.model
        return f"{name} in {self.precision.label}" if self.precision else f"{name} for PyTorch"


@dataclass(frozen=True)
class Ready:
    """Material that lies on disk."""

    folder: Path
    disk_bytes: int
    weight_bytes: int
    """Size of the weight files."""
    positions: int | None
    """Longest sequence in tokens; None where there is no bound."""


def make_ready(
    material: Material,
    settings: Settings,
    *,
    on_progress: OnProgress,
    cancel: threading.Event,
) -> Ready:
    """Have it on disk: fetched, converted, or made with random weights where it is not there yet.

    Blocks; all heavy work is done by child processes.

    Raises:
        StoppedError: ``cancel`` was set.
        PaddockError: it cannot be had; the text says why.
    """
    if not material.random_weights:
        source = ModelStore(settings).resolve(material.model)
        if material.precision is None:
            return _checkpoint(_original(source, settings, on_progress, cancel))
        return _stored(
            convert_in_process(
                source,
                material.precision,
                settings=settings,
                progress=_told(on_progress),
                cancel=cancel,
            )
        )
    model = random_model(material.model)
    folder = ensure_checkpoint(model, settings, on_progress=on_progress, cancel=cancel)
    if material.precision is None:
        return _checkpoint(folder)
    return _stored(
        convert_in_process(
            resolve(str(folder)),
            material.precision,
            settings=random_settings(settings),
            int4=model.int4 if material.precision is Precision.INT4 else None,
            progress=_told(on_progress),
            cancel=cancel,
        )
    )


def is_ready(material: Material, settings: Settings) -> bool:
    """Whether nothing has to be fetched, converted or made; a guess where it cannot be told.

    Raises:
        PaddockError: there is no such model, or what is stored of it is damaged.
    """
    if material.random_weights:
        return _random_is_ready(random_model(material.model), material.precision, settings)
    source = ModelStore(settings).resolve(material.model)
    if material.precision is None:
        return original_folder(source, settings) is not None
    return ModelStore(settings).get(source, material.precision) is not None


def _random_is_ready(model: RandomModel, precision: Precision | None, settings: Settings) -> bool:
    folder = checkpoint_folder(settings, model.key)
    if not folder.is_dir() or precision is None:
        return folder.is_dir()
    store = ModelStore(random_settings(settings))
    return store.get(resolve(str(folder)), precision) is not None


def _original(
    source: Source, settings: Settings, on_progress: OnProgress, cancel: threading.Event
) -> Path:
    """The folder of the model's checkpoint, fetched where it is not here.

    Raises:
        NotAModelError: it comes as an OpenVINO IR, or its folder is gone.
    """
    folder = original_folder(source, settings)
    if folder is None and source.kind is SourceKind.HUB:
        folder = fetch_in_process(
            source, settings=settings, progress=_told(on_progress), cancel=cancel
        ).folder
    if folder is None:
        raise NotAModelError(
            f"The folder {source.location} is gone; put it back, or leave PyTorch out."
        )
    if is_ir(folder):
        raise NotAModelError(
            f"{source.title} comes as an OpenVINO model, which PyTorch cannot run; give its "
            "original checkpoint, or leave PyTorch out."
        )
    return folder


def _checkpoint(folder: Path) -> Ready:
    info = inspect_checkpoint(folder)
    weights = sum(path.stat().st_size for path in info.weight_files)
    return Ready(folder, folder_bytes(folder), weights, positions(info.config))


def _stored(stored: StoredModel) -> Ready:
    manifest = stored.manifest
    return Ready(stored.folder, manifest.folder_bytes, manifest.weight_bytes, manifest.positions)


def _told(on_progress: OnProgress) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        on_progress(progress.message, progress.fraction)

    return tell
