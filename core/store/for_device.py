"""INT4 models with the settings that an NPU requires, kept apart from the user's INT4 models.

The store has one INT4 version of a model, with the settings the user chose. An NPU requires other
settings: symmetric, one scale per channel, all layers. If the stored version has other settings, it
is kept, and a version for the NPU is converted here::

    <home>/npu-weights/models/<key>/int4/

Answers and benchmarks use the same version; it is only removed on request. Its source is found as
for every conversion, and both versions of a model share a lock.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

from core.catalogue import Int4Settings, Precision
from core.errors import ModelBusyError, NotAModelError
from core.settings import Settings
from core.store.checkpoint import is_ir
from core.store.files import folder_bytes, remove_folder
from core.store.folders import Folders
from core.store.hub import HubAccess
from core.store.progress import ProgressCallback
from core.store.resolver import Source, SourceKind
from core.store.store import ModelStore
from core.store.stored import StoredModel
from core.store.subprocesses import convert_in_process, fetch_in_process
from core.store.weights_source import of_folder, original_folder, stored_ir


def npu_store(settings: Settings) -> ModelStore:
    """Return the store of the INT4 models for an NPU."""
    return ModelStore(settings, settings.npu_models_dir)


def find_for_device(
    store: ModelStore, source: Source, precision: Precision, wanted: Int4Settings | None
) -> StoredModel | None:
    """Return the stored model for a device, or None if it must be downloaded or converted first.

    Args:
        store: of the home folder.
        source: of the model.
        precision: of its weights.
        wanted: INT4 settings that the device requires; None accepts any stored model.

    Raises:
        CorruptModelError: the stored model is damaged.
    """
    stored = store.get(source, precision)
    if wanted is None or (stored is not None and stored.suits(wanted)):
        return stored
    for_npu = npu_store(store.settings).get(source, precision)
    return for_npu if for_npu is not None and for_npu.suits(wanted) else None


def ensure_for_device(
    source: Source,
    wanted: Int4Settings,
    *,
    settings: Settings,
    access: HubAccess | None = None,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> StoredModel:
    """Return the model in INT4 for a device, after converting it if needed.

    The user's stored models are not changed. Blocks; all heavy work is done in child processes.

    Args:
        source: of the model.
        wanted: INT4 settings that the device requires.
        settings: for the home folder.
        access: access to the hub for a download; by default from the environment.
        progress: called with each step, from the calling thread.
        cancel: when set, the work ends and leaves no incomplete model.

    Raises:
        NotAModelError: the source is INT4 with other settings, or its folder is missing.
        PaddockError: see :func:`core.store.subprocesses.convert_in_process`.
    """
    store = ModelStore(settings)
    found = find_for_device(store, source, Precision.INT4, wanted)
    if found is not None:
        return store.verify(found, full=False)
    stored = store.get(source, Precision.INT4)
    if stored is not None and stored.kept_unchanged:
        raise _unsuitable(source, stored)
    folder = _local_weights(source, settings)
    if folder is None and source.kind is not SourceKind.HUB:
        raise NotAModelError(
            f"The folder {source.location} is missing. Restore it, or choose another precision "
            "for the NPU."
        )
    if folder is None and source.model is None:  # models of the catalogue are all checkpoints
        done = fetch_in_process(
            source, settings=settings, access=access, progress=progress, cancel=cancel
        )
        folder = done.folder
    if folder is None or not _is_int4_ir(folder):
        return convert_in_process(
            source,
            Precision.INT4,
            settings=settings,
            models=settings.npu_models_dir,
            int4=wanted,
            access=access,
            progress=progress,
            cancel=cancel,
        )
    stored = convert_in_process(
        source,
        Precision.INT4,
        settings=settings,
        access=access,
        progress=progress,
        cancel=cancel,
    )
    if not stored.suits(wanted):
        raise _unsuitable(source, stored)
    return stored


def npu_weights_bytes(settings: Settings) -> int:
    """Return the disk space in bytes of all INT4 models for an NPU."""
    return folder_bytes(settings.npu_models_dir.parent)


def remove_npu_weights(settings: Settings) -> int:
    """Remove all INT4 models for an NPU, and return the bytes freed.

    Raises:
        ModelBusyError: one is being converted, or a file cannot be removed.
    """
    models = settings.npu_models_dir
    folders = Folders(models, settings.models_dir / ".work")
    there = {(path.parent.name, Precision.INT4) for path in models.glob(f"[!.]*/{Precision.INT4}")}
    with ExitStack() as held:
        for key, precision in sorted(there | folders.leftovers()):
            if not held.enter_context(folders.try_lock(key, precision)):
                raise ModelBusyError(
                    f"{key} in {precision.label} is being converted. Stop the conversion first, "
                    "or wait until it ends."
                )
        return remove_folder(models.parent, "INT4 models for an NPU")


def _local_weights(source: Source, settings: Settings) -> Path | None:
    """Return weights on this machine that can be converted to INT4."""
    folder = original_folder(source, settings)
    if folder is not None:
        return folder
    stored = stored_ir(source, Precision.INT4, settings)
    return stored.folder if stored is not None else None


def _is_int4_ir(folder: Path) -> bool:
    return is_ir(folder) and of_folder(folder).precision is Precision.INT4


def _unsuitable(source: Source, stored: StoredModel) -> NotAModelError:
    how = stored.int4.text if stored.int4 is not None else "settings unknown"
    return NotAModelError(
        f"The INT4 weights of {source.title} do not run on an NPU ({how}). Use its original "
        "checkpoint, or a version for NPUs."
    )
