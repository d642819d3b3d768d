"""Download and convert in a child process, which keeps the app responsive and frees its memory.

The child is :mod:`core.store.worker`; its docstring describes the protocol.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from core.catalogue import Compression, Precision
from core.errors import ConversionError, HubError, NotAModelError, StoppedError, UserError
from core.settings import Settings
from core.store.files import folder_bytes
from core.store.progress import Progress, ProgressCallback, ignore_progress
from core.store.resolver import Source, SourceKind
from core.store.store import ModelStore
from core.store.stored import StoredModel
from core.units import bytes_text
from core.workers.process import Event, WorkerDied, WorkerProcess

if TYPE_CHECKING:
    from core.store.hub import HubAccess

_WORKER = "core.store.worker"

_MEMORY_INTERVAL_S = 0.5
"""Interval at which the child's memory is measured."""

_HUB_VARIABLES = {
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    "PADDOCK_DATABASE_URL",
}
"""Environment variables that a child with a network does not get: its request has the access to the
hub."""

_PROGRESS = TypeAdapter(Progress)


def convert_in_process(
    model: Source | str,
    precision: Precision,
    *,
    settings: Settings,
    compression: Compression | None = None,
    access: HubAccess | None = None,
    progress: ProgressCallback = ignore_progress,
    cancel: threading.Event | None = None,
    on_memory: Callable[[int], None] = lambda resident_bytes: None,
    on_line: Callable[[str], None] = lambda text: None,
) -> StoredModel:
    """Do what :meth:`ModelStore.ensure` does, in a child process if the model is not stored.

    A stored model, see :meth:`ModelStore.find`, is verified and returned without a child process.
    A model published in INT4 is taken over as it is also for an NPU. Blocks; call it from a worker
    thread.

    Args:
        model: a source, or a name for :meth:`ModelStore.resolve`.
        access: to the hub for a download; None takes it from the environment.
        cancel: when set, the child is killed and its files are removed.
        on_memory: receives the child's resident set size in bytes, twice a second.
        on_line: receives what the child writes to standard error, from another thread.

    Raises:
        StoppedError: ``cancel`` was set.
        UserError: the model is stored with other settings than ``compression``.
        NotAModelError: it was published in INT4 that an NPU, for which it is wanted, does not run.
        PaddockError: what :meth:`ModelStore.ensure` raises; ConversionError if the child died.
    """
    store = ModelStore(settings)
    source = store.resolve(model) if isinstance(model, str) else model
    wanted, present = precision, store.find(source, precision)
    if present is None and wanted is Precision.INT4_NPU:
        stored = store.get(source, Precision.INT4)
        kept = stored is not None and stored.kept_unchanged
        own = store.default_precision(source.name, ask_hub=not kept, access=access)
        if kept or own is Precision.INT4:  # it cannot be compressed again
            precision, present = Precision.INT4, stored
    if present is not None:
        made = present.compression
        if compression is not None and made not in (None, compression):
            raise UserError(
                f"{present.title} in {present.label} is on disk with other settings ({made.text}). "
                "Delete it first to compress it again."
            )
        return _serving(store.ensure(source, present.precision, progress=progress), wanted)
    settings.check_not_kiosk()
    request = {
        "kind": "convert",
        "precision": precision.value,
        "compression": asdict(compression) if compression else None,
    }
    try:
        _run_child(source, request, settings, access, progress, cancel, on_memory, on_line)
    finally:
        store.clean_up(source.key, precision)
    stored = store.get(source, precision)
    if stored is None:
        raise ConversionError(f"{source.title} changed during the conversion. Try again.")
    return _serving(stored, wanted)


def _serving(stored: StoredModel, precision: Precision) -> StoredModel:
    """Return the model if it is used for a precision.

    Raises:
        NotAModelError: it was published in INT4 that does not run on an NPU.
    """
    if stored.precision is not precision and not stored.serves(precision):
        how = stored.int4.text if stored.int4 is not None else "settings unknown"
        raise NotAModelError(
            f"The INT4 weights of {stored.title} do not run on an NPU ({how}). Use its original "
            "checkpoint, or a version for NPUs."
        )
    return stored


def fetch_in_process(
    model: Source | str,
    *,
    settings: Settings,
    access: HubAccess | None = None,
    progress: ProgressCallback = ignore_progress,
    cancel: threading.Event | None = None,
    on_memory: Callable[[int], None] = lambda resident_bytes: None,
    on_line: Callable[[str], None] = lambda text: None,
) -> Path:
    """Download a model from the hub, in a child process; convert nothing. Return its folder.

    A complete download is returned without a child process. Blocks and takes the same arguments as
    :func:`convert_in_process`.

    Raises:
        StoppedError: ``cancel`` was set; partial files are kept for the next attempt.
        UserError: the model does not come from the hub, so there is nothing to download.
        PaddockError: what :func:`core.store.hub.fetch` raises; HubError if the child died.
    """
    from core.store import hub

    source = ModelStore(settings).resolve(model) if isinstance(model, str) else model
    if source.kind is not SourceKind.HUB:
        raise UserError(
            f"{source.title} is on this machine already, so there is nothing to download. Convert "
            "it to the precision you need."
        )
    folder = settings.downloads_dir / source.key
    if hub.completed(folder) is None:
        settings.check_not_kiosk()
        _run_child(source, {"kind": "get"}, settings, access, progress, cancel, on_memory, on_line)
        if hub.completed(folder) is None:
            raise HubError(f"{source.title} was removed during the download. Try again.")
    return folder


def stopped_message(source: Source, settings: Settings) -> str:
    """Return the message after a stopped download or conversion of ``source``: what is kept."""
    from core.store import hub

    folder = settings.downloads_dir / source.key
    size = folder_bytes(folder) if source.kind is SourceKind.HUB else 0
    if not size:
        return f"Stopped. Nothing of {source.title} was kept."
    if hub.completed(folder):
        return (
            f"Stopped. The download of {source.title} ({bytes_text(size)}) is kept, the "
            "conversion is not."
        )
    return (
        f"Stopped. The downloaded {bytes_text(size)} of {source.title} are kept, and the next "
        "attempt resumes there."
    )


def _run_child(
    source: Source,
    request: dict[str, Any],
    settings: Settings,
    access: HubAccess | None,
    progress: ProgressCallback,
    cancel: threading.Event | None,
    on_memory: Callable[[int], None],
    on_line: Callable[[str], None],
) -> None:
    from core.store.hub import HubAccess

    access = access or HubAccess.from_environment()

    def on_event(event: Event) -> None:
        match event["event"]:
            case "progress":
                progress(_PROGRESS.validate_python(event))
            case "memory":
                on_memory(event["memory"].rss_bytes)

    request |= {
        "model": source.key if source.model else str(source.location),
        # Without the database's password.
        "settings": settings.model_dump(mode="json", exclude={"database_url"}),
        "access": asdict(access),
    }
    try:
        with WorkerProcess(
            _WORKER,
            request,
            environment=None
            if access.offline
            else {name: os.environ[name] for name in os.environ.keys() - _HUB_VARIABLES},
            secret=access.token,
            on_line=on_line,
            memory_interval_s=_MEMORY_INTERVAL_S,
        ) as child:
            child.follow(on_event, cancel=cancel or threading.Event())
    except StoppedError:
        raise StoppedError(stopped_message(source, settings)) from None
    except WorkerDied as death:
        if request["kind"] == "get":
            raise HubError(
                f"The download of {source.title} ended unexpectedly ({death}). Try again; the "
                "download resumes where it stopped."
            ) from None
        raise ConversionError(
            f"The conversion of {source.title} ended unexpectedly ({death}) and nothing was kept. "
            "Try again."
        ) from None
