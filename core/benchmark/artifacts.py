"""Has each model on disk in the form in which it is measured, before anything is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.benchmark.plan import Target
from core.benchmark.random_models import (
    checkpoint_folder,
    ensure_checkpoint,
    random_settings,
)
from core.benchmark.shapes import random_model
from core.catalogue import Int4Settings, Precision, device_int4
from core.db.measurement_values import Int4Weights
from core.errors import NotAModelError, NotEnoughMemoryError
from core.hardware.devices import available_memory_bytes
from core.runtimes.pool import memory_for
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
from core.store.checkpoint import context_length, inspect_checkpoint, is_ir
from core.store.files import folder_bytes
from core.store.for_device import ensure_for_device, find_for_device
from core.store.weights_source import original_folder
from core.units import bytes_text

OnProgress = Callable[[str, float | None], None]
"""Told a sentence and the share of the step that is done, 0 to 1 or None."""


@dataclass(frozen=True)
class Material:
    """What one target is measured from; targets of equal material share the files."""

    model: str
    random_weights: bool
    precision: Precision | None
    """None for the checkpoint itself, which the PyTorch baseline runs."""
    int4: Int4Settings | None = None
    """What the device wants of INT4 weights; None takes them as they are stored, or as the model
    is usually compressed."""

    @classmethod
    def of(cls, target: Target) -> Material:
        """The material of that target."""
        if target.baseline:
            return cls(target.model, target.random_weights, None)
        int4 = device_int4(target.precision, target.device)
        return cls(target.model, target.random_weights, target.precision, int4)

    @property
    def label(self) -> str:
        """For progress: "tiny-llama-1b-chat in INT4", "tiny-llama-1b-chat in INT4 for an NPU"."""
        name = f"{self.model} with random weights" if self.random_weights else self.model
        if self.precision is None:
            return f"{name} for PyTorch"
        return f"{name} {self.precision.phrase}{' for an NPU' if self.int4 else ''}"


@dataclass(frozen=True)
class Ready:
    """Material that lies on disk."""

    folder: Path
    disk_bytes: int
    weight_bytes: int
    """Size of the weight files."""
    positions: int | None
    """Longest sequence in tokens; None where there is no bound."""
    int4: Int4Weights | None = None
    """How it was compressed; None in another precision."""
    weights: str | None = None
    """See :attr:`core.store.StoredModel.special_label`."""


def make_ready(
    material: Material,
    settings: Settings,
    *,
    on_progress: OnProgress,
    cancel: threading.Event,
) -> Ready:
    """Have it on disk: fetched, converted, or made with random weights where it is not there yet.

    A stored INT4 that the device does not take stays as it is; one that it takes is made apart, see
    :mod:`core.store.for_device`. Blocks; all heavy work is done by child processes.

    Raises:
        StoppedError: ``cancel`` was set.
        PaddockError: it cannot be had; the text says why.
    """
    work = _Work(settings, on_progress, cancel)
    if material.random_weights:
        return _random_ready(material, work)
    source = ModelStore(settings).resolve(material.model)
    if material.precision is None:
        return _checkpoint(_original(source, work))
    if material.int4 is None:
        return _stored(work.convert(source, material.precision))
    return _stored(work.ensure_for_device(source, material.int4))


def check_memory(label: str, ready: Ready, settings: Settings, *, at_once: int = 1) -> None:
    """Refuse what would drive the machine out of memory, and other programs with it.

    Args:
        label: of what is loaded, for the sentence.
        ready: what it is loaded from.
        settings: tell how much memory is left free.
        at_once: processes that load it at the same time.

    Raises:
        NotEnoughMemoryError: the model does not fit the free memory.
    """
    needed = at_once * memory_for(ready.weight_bytes)
    free = available_memory_bytes() - settings.memory_reserve_mib * 2**20
    if needed > free:
        times = f", loaded {at_once} times at once," if at_once > 1 else ""
        raise NotEnoughMemoryError(
            f"{label}{times} needs about {bytes_text(needed)} of memory and "
            f"{bytes_text(max(free, 0))} are free for it; close other programs or unload "
            "models, or choose a lower precision."
        )


def is_ready(material: Material, settings: Settings) -> bool:
    """Whether nothing has to be fetched, converted or made; a guess where it cannot be told.

    Raises:
        PaddockError: there is no such model, or what is stored of it is damaged.
    """
    if material.random_weights:
        return _random_is_ready(material, settings)
    store = ModelStore(settings)
    source = store.resolve(material.model)
    if material.precision is None:
        return original_folder(source, settings) is not None
    return find_for_device(store, source, material.precision, material.int4) is not None


@dataclass(frozen=True)
class _Work:
    """With what material is made ready."""

    settings: Settings
    on_progress: OnProgress
    cancel: threading.Event

    def convert(
        self, source: Source, precision: Precision, int4: Int4Settings | None = None
    ) -> StoredModel:
        """See :func:`core.store.convert_in_process`."""
        return convert_in_process(
            source,
            precision,
            settings=self.settings,
            int4=int4,
            progress=_told(self.on_progress),
            cancel=self.cancel,
        )

    def ensure_for_device(self, source: Source, wanted: Int4Settings) -> StoredModel:
        """See :func:`core.store.for_device.ensure_for_device`."""
        return ensure_for_device(
            source,
            wanted,
            settings=self.settings,
            progress=_told(self.on_progress),
            cancel=self.cancel,
        )

    def fetch(self, source: Source) -> Path:
        """See :func:`core.store.fetch_in_process`."""
        return fetch_in_process(
            source,
            settings=self.settings,
            progress=_told(self.on_progress),
            cancel=self.cancel,
        ).folder


# Random weights


def _random_ready(material: Material, work: _Work) -> Ready:
    model = random_model(material.model)
    folder = ensure_checkpoint(
        model, work.settings, on_progress=work.on_progress, cancel=work.cancel
    )
    if material.precision is None:
        return _checkpoint(folder)
    source = resolve(str(folder))
    apart = replace(work, settings=random_settings(work.settings))
    if material.int4 is not None:
        return _stored(apart.ensure_for_device(source, material.int4))
    int4 = model.int4 if material.precision is Precision.INT4 else None
    return _stored(apart.convert(source, material.precision, int4))


def _random_is_ready(material: Material, settings: Settings) -> bool:
    folder = checkpoint_folder(settings, random_model(material.model).key)
    if not folder.is_dir() or material.precision is None:
        return folder.is_dir()
    source, store = resolve(str(folder)), ModelStore(random_settings(settings))
    return find_for_device(store, source, material.precision, material.int4) is not None


# What there is


def _original(source: Source, work: _Work) -> Path:
    """The folder of the model's checkpoint, fetched where it is not here.

    Raises:
        NotAModelError: it comes as an OpenVINO IR, or its folder is gone.
    """
    folder = original_folder(source, work.settings)
    if folder is None and source.kind is SourceKind.HUB:
        folder = work.fetch(source)
    if folder is None:
        raise NotAModelError(f"{source.location} is gone; put it back, or leave PyTorch out.")
    if source.kind is SourceKind.GGUF:
        raise NotAModelError(
            f"{source.title} comes as a GGUF file, which the PyTorch baseline does not run; give "
            "its original checkpoint, or leave PyTorch out."
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
    return Ready(folder, folder_bytes(folder), weights, context_length(info.config))


def _stored(stored: StoredModel) -> Ready:
    manifest = stored.manifest
    return Ready(
        stored.folder,
        manifest.folder_bytes,
        manifest.weight_bytes,
        manifest.positions,
        _as_recorded(stored),
        stored.special_label,
    )


def _as_recorded(stored: StoredModel) -> Int4Weights | None:
    return Int4Weights(**asdict(stored.int4)) if stored.int4 is not None else None


def _told(on_progress: OnProgress) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        on_progress(progress.message, progress.fraction)

    return tell
