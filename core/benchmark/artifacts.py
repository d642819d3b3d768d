"""Prepares each model on disk in the form that is measured, before anything is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.benchmark.lock import BenchmarkLock
from core.benchmark.plan import Target
from core.benchmark.random_models import (
    checkpoint_folder,
    ensure_checkpoint,
    random_model,
    random_settings,
)
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
from core.store.for_device import ensure_for_device, find_for_device, remove_npu_weights
from core.store.weights_source import original_folder
from core.units import bytes_text

OnProgress = Callable[[str, float | None], None]
"""Receives a sentence and the finished share of the step, 0 to 1 or None."""


@dataclass(frozen=True)
class Artifact:
    """Files that a target is measured from; targets with equal artifacts share them."""

    model: str
    random_weights: bool
    precision: Precision | None
    """None for the original checkpoint, which the PyTorch baseline runs."""
    int4: Int4Settings | None = None
    """INT4 settings that the device requires; None for the stored or the model's usual settings."""

    @classmethod
    def of(cls, target: Target) -> Artifact:
        """Return the artifact of a target."""
        if target.baseline:
            return cls(target.model, target.random_weights, None)
        int4 = device_int4(target.precision, target.device)
        return cls(target.model, target.random_weights, target.precision, int4)

    @property
    def label(self) -> str:
        """Name for progress messages: "tiny-llama-1b-chat in INT4", "tiny-llama-1b-chat in INT4 for
        an NPU"."""
        name = f"{self.model} with random weights" if self.random_weights else self.model
        if self.precision is None:
            return f"{name} for PyTorch"
        return f"{name} {self.precision.phrase}{' for an NPU' if self.int4 else ''}"


@dataclass(frozen=True)
class PreparedArtifact:
    """Artifact that is on disk."""

    folder: Path
    disk_bytes: int
    weight_bytes: int
    """Size of the weight files."""
    positions: int | None
    """Context length in tokens; None if it is not limited."""
    int4: Int4Weights | None = None
    """INT4 settings of the stored weights; None in another precision."""
    weights: str | None = None
    """See :attr:`core.store.StoredModel.special_label`."""


def prepare_artifact(
    artifact: Artifact,
    settings: Settings,
    *,
    on_progress: OnProgress,
    cancel: threading.Event,
) -> PreparedArtifact:
    """Download or convert the model, or create random weights, unless it is on disk already.

    A stored INT4 model that the device does not support stays as it is; one that it supports is
    converted separately, see :mod:`core.store.for_device`. Blocks; all heavy work runs in child
    processes.

    Raises:
        StoppedError: ``cancel`` was set.
        PaddockError: the model is not available; the text says why.
    """
    work = _Work(settings, on_progress, cancel)
    if artifact.random_weights:
        return _random_ready(artifact, work)
    source = ModelStore(settings).resolve(artifact.model)
    if artifact.precision is None:
        return _checkpoint(_original(source, work))
    if artifact.int4 is None:
        return _stored(work.convert(source, artifact.precision))
    return _stored(work.ensure_for_device(source, artifact.int4))


def check_memory(
    label: str, ready: PreparedArtifact, settings: Settings, *, at_once: int = 1
) -> None:
    """Refuse to load what does not fit, before this machine runs out of memory.

    Args:
        label: of the configuration, for the error text.
        ready: what is loaded.
        settings: for the memory reserve.
        at_once: number of processes that load it at the same time.

    Raises:
        NotEnoughMemoryError: the model does not fit into the free memory.
    """
    needed = at_once * memory_for(ready.weight_bytes)
    free = available_memory_bytes() - settings.memory_reserve_mib * 2**20
    if needed > free:
        times = f", loaded {at_once} times," if at_once > 1 else ""
        raise NotEnoughMemoryError(
            f"{label}{times} needs about {bytes_text(needed)} of memory, but "
            f"{bytes_text(max(free, 0))} are free. Close other programs or unload models, or "
            "choose a lower precision."
        )


def is_prepared(artifact: Artifact, settings: Settings) -> bool:
    """Return whether nothing has to be downloaded, converted or created.

    Raises:
        PaddockError: there is no such model, or its stored files are damaged.
    """
    if artifact.random_weights:
        return _random_is_ready(artifact, settings)
    store = ModelStore(settings)
    source = store.resolve(artifact.model)
    if artifact.precision is None:
        return original_folder(source, settings) is not None
    return find_for_device(store, source, artifact.precision, artifact.int4) is not None


def delete_npu_weights(settings: Settings, before: Callable[[], None] = lambda: None) -> int:
    """Remove the INT4 models converted for an NPU, and return the bytes freed.

    Those with random weights stay; see :func:`core.benchmark.random_models.delete_random_weights`.

    Args:
        settings: for the home folder.
        before: called when it is certain that no benchmark is running; its exceptions propagate.

    Raises:
        ModelBusyError: a benchmark or a conversion is running, or a program has a file open.
    """
    settings.check_not_kiosk()
    with BenchmarkLock(settings).held():
        before()
        return remove_npu_weights(settings)


@dataclass(frozen=True)
class _Work:
    """Arguments common to all steps of the preparation."""

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
            progress=_progress_of(self.on_progress),
            cancel=self.cancel,
        )

    def ensure_for_device(self, source: Source, wanted: Int4Settings) -> StoredModel:
        """See :func:`core.store.for_device.ensure_for_device`."""
        return ensure_for_device(
            source,
            wanted,
            settings=self.settings,
            progress=_progress_of(self.on_progress),
            cancel=self.cancel,
        )

    def fetch(self, source: Source) -> Path:
        """See :func:`core.store.fetch_in_process`."""
        return fetch_in_process(
            source,
            settings=self.settings,
            progress=_progress_of(self.on_progress),
            cancel=self.cancel,
        ).folder


# Random weights


def _random_ready(artifact: Artifact, work: _Work) -> PreparedArtifact:
    model = random_model(artifact.model)
    folder = ensure_checkpoint(
        model, work.settings, on_progress=work.on_progress, cancel=work.cancel
    )
    if artifact.precision is None:
        return _checkpoint(folder)
    source = resolve(str(folder))
    work_for_random = replace(work, settings=random_settings(work.settings))
    if artifact.int4 is not None:
        return _stored(work_for_random.ensure_for_device(source, artifact.int4))
    int4 = model.int4 if artifact.precision is Precision.INT4 else None
    return _stored(work_for_random.convert(source, artifact.precision, int4))


def _random_is_ready(artifact: Artifact, settings: Settings) -> bool:
    folder = checkpoint_folder(settings, random_model(artifact.model).key)
    if not folder.is_dir() or artifact.precision is None:
        return folder.is_dir()
    source, store = resolve(str(folder)), ModelStore(random_settings(settings))
    return find_for_device(store, source, artifact.precision, artifact.int4) is not None


# Files on disk


def _original(source: Source, work: _Work) -> Path:
    """Return the folder of the model's checkpoint; download it if it is missing.

    Raises:
        NotAModelError: the model is an OpenVINO IR or a GGUF file, or its folder does not exist.
    """
    folder = original_folder(source, work.settings)
    if folder is None and source.kind is SourceKind.HUB:
        folder = work.fetch(source)
    if folder is None:
        raise NotAModelError(
            f"{source.location} does not exist. Restore it, or remove PyTorch from the runtimes."
        )
    if source.kind is SourceKind.GGUF:
        raise NotAModelError(
            f"{source.title} is a GGUF file, which the PyTorch baseline cannot run. Enter its "
            "original checkpoint, or remove PyTorch from the runtimes."
        )
    if is_ir(folder):
        raise NotAModelError(
            f"{source.title} is an OpenVINO model, which PyTorch cannot run. Enter its original "
            "checkpoint, or remove PyTorch from the runtimes."
        )
    return folder


def _checkpoint(folder: Path) -> PreparedArtifact:
    info = inspect_checkpoint(folder)
    weights = sum(path.stat().st_size for path in info.weight_files)
    return PreparedArtifact(folder, folder_bytes(folder), weights, context_length(info.config))


def _stored(stored: StoredModel) -> PreparedArtifact:
    manifest = stored.manifest
    return PreparedArtifact(
        stored.folder,
        manifest.folder_bytes,
        manifest.weight_bytes,
        manifest.positions,
        _as_recorded(stored),
        stored.special_label,
    )


def _as_recorded(stored: StoredModel) -> Int4Weights | None:
    return Int4Weights(**asdict(stored.int4)) if stored.int4 is not None else None


def _progress_of(on_progress: OnProgress) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        on_progress(progress.message, progress.fraction)

    return report
