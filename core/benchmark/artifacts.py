"""Prepares each model on disk in the form that is measured, before anything is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from core.benchmark.plan import Target
from core.benchmark.random_models import (
    checkpoint_folder,
    ensure_checkpoint,
    random_model,
    random_settings,
)
from core.catalogue import Precision
from core.db.measurement_values import Int4Weights
from core.errors import NotAModelError, NotEnoughMemoryError, PaddockError
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
from core.store.checkpoint import context_length, inspect_checkpoint, is_ir, read_json
from core.store.files import folder_bytes
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

    @classmethod
    def of(cls, target: Target) -> Artifact:
        """Return the artifact of a target."""
        precision = None if target.baseline else target.precision.on(target.device)
        return cls(target.model, target.random_weights, precision)

    @property
    def label(self) -> str:
        """Name for progress messages: "tiny-llama-1b-chat in INT4"."""
        name = f"{self.model} with random weights" if self.random_weights else self.model
        return (
            f"{name} for PyTorch" if self.precision is None else f"{name} {self.precision.phrase}"
        )


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
    artifact: Artifact, settings: Settings, *, on_progress: OnProgress, cancel: threading.Event
) -> PreparedArtifact:
    """Download or convert the model, or create random weights, unless it is on disk already.

    Blocks; all heavy work runs in child processes.

    Raises:
        StoppedError: ``cancel`` was set.
        PaddockError: the model is not available; the text says why.
    """

    def report(progress: Progress) -> None:
        on_progress(progress.message, progress.fraction)

    precision = artifact.precision
    if artifact.random_weights:
        model = random_model(artifact.model)
        folder = ensure_checkpoint(model, settings, on_progress=on_progress, cancel=cancel)
        if precision is None:
            return _checkpoint(folder)
        stored = convert_in_process(
            resolve(str(folder)),
            precision,
            settings=random_settings(settings),
            compression=model.int4(precision) if precision.int4 else None,
            progress=report,
            cancel=cancel,
        )
        return _stored(stored)
    source = ModelStore(settings).resolve(artifact.model)
    if precision is not None:
        stored = convert_in_process(
            source, precision, settings=settings, progress=report, cancel=cancel
        )
        return _stored(stored)
    original = original_folder(source, settings)
    if original is None and source.kind is SourceKind.HUB:
        original = fetch_in_process(source, settings=settings, progress=report, cancel=cancel)
    return _checkpoint(_for_pytorch(source, original))


def check_memory(
    label: str, ready: PreparedArtifact, settings: Settings, *, at_once: int = 1
) -> None:
    """Refuse to load what does not fit, before this machine runs out of memory.

    Args:
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
    """Return whether nothing has to be downloaded, converted or created; False if there is no such
    model, or its stored files are damaged."""
    try:
        if artifact.random_weights:
            folder = checkpoint_folder(settings, random_model(artifact.model).key)
            if not folder.is_dir() or artifact.precision is None:
                return folder.is_dir()
            source, settings = resolve(str(folder)), random_settings(settings)
        else:
            source = ModelStore(settings).resolve(artifact.model)
        if artifact.precision is None:
            return original_folder(source, settings) is not None
        return ModelStore(settings).find(source, artifact.precision) is not None
    except PaddockError:
        return False


# Files on disk


def _for_pytorch(source: Source, folder: Path | None) -> Path:
    """
    Raises:
        NotAModelError: the model is an OpenVINO IR or a GGUF file, or its folder does not exist.
    """
    if folder is None:
        raise NotAModelError(
            f"{source.location} does not exist. Restore it, or remove PyTorch from the runtimes."
        )
    if source.is_gguf:
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
    weights = inspect_checkpoint(folder).weight_bytes
    positions = context_length(read_json(folder / "config.json"))
    return PreparedArtifact(folder, folder_bytes(folder), weights, positions)


def _stored(stored: StoredModel) -> PreparedArtifact:
    manifest = stored.manifest
    return PreparedArtifact(
        stored.folder,
        manifest.folder_bytes,
        manifest.weight_bytes,
        manifest.positions,
        Int4Weights(**asdict(stored.int4)) if stored.int4 is not None else None,
        stored.special_label,
    )
