"""The store of converted models: find, convert, verify and delete them.

The layout below ``settings.models_dir``::

    <key>/<precision>/          one model: IR, tokenizer, configuration, paddock.json
    .work/<key>.<precision>.lock
    .work/<key>.<precision>.<random>/   a conversion in progress

A conversion holds the lock of its model and precision, works in ``.work`` and finally renames the
folder, so a folder with a manifest is always complete.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.catalogue import (
    DEFAULT_PRECISION,
    Int4Settings,
    Int8Settings,
    Precision,
    catalogue,
)
from core.errors import (
    CorruptModelError,
    ModelBusyError,
    PaddockError,
    StoppedError,
    UnknownModelError,
    UserError,
)
from core.remotes import is_remote, split_name
from core.settings import Settings
from core.store import resolver
from core.store.files import fingerprint, folder_bytes, free_bytes, remove_folder, sha256
from core.store.folders import Folders
from core.store.manifest import MANIFEST_NAME, read_manifest, write_manifest
from core.store.pipeline import ConversionPipeline, ConversionRequest
from core.store.progress import Progress, ProgressCallback, Stage, ignore_progress
from core.store.resolver import Source, SourceKind, local_titles, recorded_name, unique_title
from core.store.stored import StoredModel

if TYPE_CHECKING:
    from core.store.hub import Download, HubAccess

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiskUsage:
    """Disk usage of the home folder in bytes."""

    models_bytes: int
    downloads_bytes: int
    """Downloads from the hub, complete and partial."""
    work_bytes: int
    """Running conversions, and files left by killed ones."""
    free_bytes: int


@dataclass(frozen=True)
class StoredDownload:
    """A download from the hub; models converted from it do not need it any more."""

    key: str
    bytes: int
    complete: bool
    """False for a partial download, which the next attempt resumes."""


class ModelStore:
    """The models in one home folder; safe to use from several threads and processes."""

    def __init__(self, settings: Settings, models: Path | None = None) -> None:
        """
        Args:
            settings: for the home folder, with downloads and stored models as conversion sources.
            models: folder of the models, by default ``settings.models_dir``; locks are shared.
        """
        self.settings = settings
        self._folders = Folders(models or settings.models_dir, settings.models_dir / ".work")

    @property
    def import_dir(self) -> Path:
        """Folder that must contain the model folders which remote users name."""
        return self.settings.import_dir

    def get(self, source: Source, precision: Precision) -> StoredModel | None:
        """Return the stored model, or None if it is not stored or its source has changed since.

        Fast: reads only the manifest and the sizes and times of the source's files.

        Raises:
            CorruptModelError: the manifest is missing or damaged.
        """
        folder = self._folders.path(source.key, precision)
        if not folder.is_dir():
            return None
        manifest = read_manifest(folder)
        now = fingerprint(source)
        # A catalogue model may come from a package now and have come from the hub before.
        if source.kind == manifest.source.kind and now not in (None, manifest.source.fingerprint):
            return None
        return StoredModel(source.key, precision, folder, manifest)

    def list(self) -> list[StoredModel]:
        """Return all stored models by key and precision; damaged ones are logged and skipped."""
        order = list(Precision)
        found = []
        for path in sorted(self._folders.models.glob(f"[!.]*/*/{MANIFEST_NAME}")):
            folder = path.parent
            if folder.name not in set(Precision):
                continue
            try:
                manifest = read_manifest(folder)
            except CorruptModelError as error:
                log.warning("%s", error)
                continue
            found.append(StoredModel(folder.parent.name, Precision(folder.name), folder, manifest))
        return sorted(found, key=lambda each: (each.key, order.index(each.precision)))

    def ensure(
        self,
        source: Source,
        precision: Precision,
        *,
        int4: Int4Settings | None = None,
        int8: Int8Settings | None = None,
        progress: ProgressCallback | None = None,
        access: HubAccess | None = None,
        cancel: threading.Event | None = None,
    ) -> StoredModel:
        """Return the stored and verified model, after downloading and converting it if needed.

        Blocks while another process converts the same model to the same precision, and then
        returns its result. A conversion needs much memory and time: see
        :func:`core.store.subprocesses.convert_in_process`.

        Args:
            source: from :func:`core.store.resolver.resolve` or :meth:`resolve`.
            precision: of the weights.
            int4: overrides the catalogue's INT4 settings; a model already stored in INT4 with
                other settings is returned as it is.
            int8: overrides the default INT8 settings, likewise.
            progress: called with each step, from the calling thread.
            access: access to the hub; by default from the environment.
            cancel: when set, a download ends within a second and keeps partial files, and a
                conversion ends before its next step and keeps nothing.

        Raises:
            CorruptModelError: the stored model or its source is damaged.
            NotAModelError, HubError, UnknownModelError: the source cannot be used or downloaded.
            UserError: the source cannot be converted to this precision.
            DiskFullError, NotEnoughMemoryError: not enough disk space or memory.
            ConversionError: export or compression failed, or the home folder is read-only.
            StoppedError: ``cancel`` was set.
        """
        report = _stoppable(progress or ignore_progress, cancel)
        stored = self.get(source, precision)
        if stored is None:
            self.settings.check_not_kiosk()
            with self._folders.lock(source.key, precision, report, cancel):
                stored = self.get(source, precision)  # another process may have converted it
                if stored is None:
                    pipeline = self._pipeline(report, access, cancel)
                    stored = pipeline.run(source, ConversionRequest(precision, int4, int8))
                    report(Progress(Stage.DONE, f"{source.title} is ready on disk.", 1.0))
                    return stored
        stored = self.verify(stored, full=False)
        report(Progress(Stage.DONE, f"{source.title} is ready on disk.", 1.0))
        return stored

    def fetch(
        self,
        source: Source,
        *,
        progress: ProgressCallback | None = None,
        access: HubAccess | None = None,
        cancel: threading.Event | None = None,
    ) -> Download:
        """Download a model from the hub without converting it; arguments as in :meth:`ensure`.

        Blocks while another process downloads the same model, and then returns its result.

        Raises:
            StoppedError: ``cancel`` was set; partial files are kept for the next attempt.
            UserError: the model does not come from the hub.
            PaddockError: see :func:`core.store.hub.fetch`.
        """
        if source.kind is not SourceKind.HUB:
            raise UserError(
                f"{source.title} is on this machine already, so there is nothing to download. "
                "Convert it to the precision you need."
            )
        self.settings.check_not_kiosk()
        report = progress or ignore_progress
        download = self._pipeline(report, access, cancel).fetch(source)
        report(Progress(Stage.DONE, f"{source.title} is downloaded.", 1.0))
        return download

    def _pipeline(
        self, report: ProgressCallback, access: HubAccess | None, cancel: threading.Event | None
    ) -> ConversionPipeline:
        return ConversionPipeline(self.settings, self._folders, report, access, cancel)

    def resolve(self, model: str) -> Source:
        """Find a model with :func:`core.store.resolver.resolve`, or else in the store.

        A stored model is found by its key and by its source, even if the source no longer exists:
        an FP16 or FP32 model in the store can be converted to other precisions.

        Raises:
            UnknownModelError, NotAModelError, CorruptModelError: see there.
        """
        try:
            return resolver.resolve(model)
        except UnknownModelError:
            name = model.strip()
            folders = (None, self.settings.npu_models_dir)
            found = [
                each for folder in folders for each in ModelStore(self.settings, folder).list()
            ]
            for stored in found:
                record = stored.manifest.source
                if name in (stored.key, record.location):
                    kind = SourceKind(record.kind)
                    location = record.location if kind is SourceKind.HUB else Path(record.location)
                    return Source(stored.key, kind, location, None, stored.title)
            raise

    def name(self, model: str) -> str:
        """Return the key for programs of a model; the given name if there is no such model."""
        try:
            return self.resolve(model).name
        except PaddockError:
            return model.strip()

    def title(self, name: str) -> str:
        """Return the model's title for users, which is unique among their models.

        Args:
            name: its key for programs, or its name in a record of an earlier version.

        Raises:
            UserError: an invalid name of a remote model.
        """
        key = recorded_name(name)
        if key in catalogue():
            return catalogue()[key].title
        if is_remote(key):
            return split_name(key).model
        titles = local_titles() | {each.name: each.title for each in self.list()}
        own = titles.get(key, key)
        alike = any(title == own for other, title in titles.items() if other != key)
        return unique_title(own, key) if alike else own

    def default_precision(self, model: str) -> Precision:
        """Return the precision of a model if none is specified; the default for unknown models."""
        try:
            return self.resolve(model).default_precision
        except PaddockError:
            return DEFAULT_PRECISION

    def verify(self, stored: StoredModel, *, full: bool) -> StoredModel:
        """Check the files of a stored model against its manifest.

        Args:
            stored: the model.
            full: read every file and compare checksums. Otherwise names and sizes are compared,
                and only files whose modification time differs from the manifest are read.

        Returns:
            The model, with new modification times in its manifest if files had to be read.

        Raises:
            CorruptModelError: a file is missing, truncated, altered or unreadable; the message
                names it.
        """
        records = dict(stored.manifest.files)
        for name, record in records.items():
            path = stored.folder / name
            try:
                state = path.stat()
            except OSError as error:
                raise _corrupt(stored, f"{name} is missing") from error
            if state.st_size != record.size:
                raise _corrupt(stored, f"{name} has {state.st_size} of {record.size} bytes")
            if full or state.st_mtime_ns != record.mtime_ns:
                try:
                    read = sha256(path)
                except OSError as error:
                    what = f"{name} cannot be read ({error.strerror or error})"
                    raise _corrupt(stored, what) from error
                if read != record.sha256:
                    raise _corrupt(stored, f"{name} has been altered")
                records[name] = record.model_copy(update={"mtime_ns": state.st_mtime_ns})
        if records == stored.manifest.files:
            return stored
        manifest = stored.manifest.model_copy(update={"files": records})
        try:
            write_manifest(stored.folder, manifest)
        except OSError as error:  # read-only, or deleted meanwhile: it is verified nevertheless
            log.warning("The manifest in %s cannot be updated: %s", stored.folder, error)
        return StoredModel(stored.key, stored.precision, stored.folder, manifest)

    def delete(self, stored: StoredModel) -> int:
        """Remove a stored model, damaged or not, and return the bytes freed.

        Raises:
            ModelBusyError: it is being converted, or (on Windows) loaded by a program.
        """
        self.settings.check_not_kiosk()
        with self._folders.try_lock(stored.key, stored.precision) as idle:
            if not idle:
                raise ModelBusyError(
                    f"{stored.title} in {stored.label} is being converted. Stop the conversion "
                    "first, or wait until it ends."
                )
            freed = folder_bytes(stored.folder)
            self._folders.discard(stored.folder, stored.key, stored.precision)
        return freed

    def clean_up(self, key: str, precision: Precision) -> None:
        """Remove files left by a killed conversion of this model, unless one is running."""
        with self._folders.try_lock(key, precision) as idle:
            if idle:
                self._folders.remove_leftovers(key, precision)
            else:
                log.debug("%s %s is being converted by another process", key, precision)

    def clean_up_all(self) -> int:
        """Remove files left by killed conversions of any model, and return the bytes freed."""
        self.settings.check_not_kiosk()
        before = folder_bytes(self._folders.work)
        for key, precision in self._folders.leftovers():
            self.clean_up(key, precision)
        return max(0, before - folder_bytes(self._folders.work))

    # The disk

    def disk_usage(self) -> DiskUsage:
        """Return the disk usage of the home folder and the free space; reads every file's size."""
        work = folder_bytes(self._folders.work)
        return DiskUsage(
            models_bytes=folder_bytes(self._folders.models) - work,
            downloads_bytes=folder_bytes(self.settings.downloads_dir),
            work_bytes=work,
            free_bytes=free_bytes(self.settings.home),
        )

    def downloads(self) -> list[StoredDownload]:
        """Return the downloads from the hub, complete and partial, by key."""
        from core.store import hub

        return [
            StoredDownload(folder.name, folder_bytes(folder), hub.completed(folder) is not None)
            for folder in sorted(self.settings.downloads_dir.glob("[!.]*"))
            if folder.is_dir()
        ]

    def delete_download(self, key: str) -> int:
        """Remove the download of a model, and return the bytes freed.

        Converted models remain usable. For another precision, a stored FP16 or FP32 model is used,
        or the model is downloaded again.

        Raises:
            ModelBusyError: it is being downloaded or converted, or cannot be removed.
        """
        self.settings.check_not_kiosk()
        if key not in {download.key for download in self.downloads()}:
            return 0  # also for paths outside the downloads, such as ".."
        folder = self.settings.downloads_dir / key
        with self._folders.lock_all(key, f"The download of {key}"):
            return remove_folder(folder, "files")


def _stoppable(report: ProgressCallback, cancel: threading.Event | None) -> ProgressCallback:
    """Return a callback that reports progress and raises once ``cancel`` is set."""
    if cancel is None:
        return report

    def step(progress: Progress) -> None:
        if cancel.is_set() and progress.stage is not Stage.DONE:
            raise StoppedError("The conversion was stopped. Nothing of it was kept.")
        report(progress)

    return step


def _corrupt(stored: StoredModel, what: str) -> CorruptModelError:
    return CorruptModelError(
        f"The stored {stored.title} in {stored.label} is damaged: {what}. "
        f"Delete it ({stored.folder}) and convert it again."
    )
