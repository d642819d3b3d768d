"""INT4 models as a device wants them, beside the INT4 that a person has stored.

The store holds one INT4 of a model, as a person has it compressed, and an NPU wants its own:
symmetric, one scale per channel, all layers. Where the stored one is another, it stays as it is,
and the NPU's is made here::

    <home>/npu-weights/models/<key>/int4/

Answers and benchmarks use the same one; it goes only when somebody removes it. What it is made from
is looked for where every conversion looks, and the two of a model share a lock.
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
    """Where INT4 models lie as an NPU takes them."""
    return ModelStore(settings, settings.npu_models_dir)


def find_for_device(
    store: ModelStore, source: Source, precision: Precision, wanted: Int4Settings | None
) -> StoredModel | None:
    """What answers as it is; None where it would have to be fetched or converted first.

    Args:
        store: of the home folder.
        source: of the model.
        precision: of its weights.
        wanted: what the device wants of INT4 weights; None takes what is stored.

    Raises:
        CorruptModelError: what is stored is damaged.
    """
    stored = store.get(source, precision)
    if wanted is None or (stored is not None and stored.suits(wanted)):
        return stored
    apart = npu_store(store.settings).get(source, precision)
    return apart if apart is not None and apart.suits(wanted) else None


def have_for_device(
    source: Source,
    wanted: Int4Settings,
    *,
    settings: Settings,
    access: HubAccess | None = None,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> StoredModel:
    """The model in INT4 as a device takes it, made where it is not there; nothing stored changes.

    Blocks; all heavy work is done by child processes.

    Args:
        source: of the model.
        wanted: what the device wants.
        settings: tell the home folder.
        access: to the hub, if the model is downloaded; by default that of the environment.
        progress: told of each step, from the calling thread.
        cancel: when set, the work ends and leaves nothing that looks finished.

    Raises:
        NotAModelError: it comes in INT4 of another kind, or its folder is gone.
        PaddockError: see :func:`core.store.subprocesses.convert_in_process`.
    """
    store = ModelStore(settings)
    found = find_for_device(store, source, Precision.INT4, wanted)
    if found is not None:
        return store.verify(found, full=False)
    stored = store.get(source, Precision.INT4)
    if stored is not None and stored.came_so:
        raise _another_kind(source, stored)
    folder = _here(source, settings)
    if folder is None and source.kind is not SourceKind.HUB:
        raise NotAModelError(
            f"The folder {source.location} is gone; put it back, or choose another precision for "
            "the NPU."
        )
    if folder is None and source.model is None:  # the catalogue's all come as checkpoints
        done = fetch_in_process(
            source, settings=settings, access=access, progress=progress, cancel=cancel
        )
        folder = done.folder
    if folder is None or not _came_in_int4(folder):
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
        raise _another_kind(source, stored)
    return stored


def npu_weights_bytes(settings: Settings) -> int:
    """What the NPU's own take on disk."""
    return folder_bytes(settings.npu_models_dir.parent)


def remove_npu_weights(settings: Settings) -> int:
    """Remove them all, and return the bytes freed.

    Raises:
        ModelBusyError: one is being made, or a file cannot be removed.
    """
    models = settings.npu_models_dir
    folders = Folders(models, settings.models_dir / ".work")
    there = {(path.parent.name, Precision.INT4) for path in models.glob(f"[!.]*/{Precision.INT4}")}
    with ExitStack() as held:
        for key, precision in sorted(there | folders.leftovers()):
            if not held.enter_context(folders.if_idle(key, precision)):
                raise ModelBusyError(
                    f"{key} in {precision.label} is being made; stop that first, or wait for it."
                )
        return remove_folder(models.parent, "INT4 models for an NPU")


def _here(source: Source, settings: Settings) -> Path | None:
    """What of the model is on this machine that INT4 can be made from."""
    folder = original_folder(source, settings)
    if folder is not None:
        return folder
    stored = stored_ir(source, Precision.INT4, settings)
    return stored.folder if stored is not None else None


def _came_in_int4(folder: Path) -> bool:
    return is_ir(folder) and of_folder(folder).precision is Precision.INT4


def _another_kind(source: Source, stored: StoredModel) -> NotAModelError:
    how = stored.int4.text if stored.int4 is not None else "settings unknown"
    return NotAModelError(
        f"{source.title} comes in INT4 that an NPU does not take ({how}); give its "
        "original checkpoint, or a version that was made for NPUs."
    )
