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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.catalogue import DEFAULT_PRECISION, INT4_RECIPES, Compression, Precision, catalogue
from core.errors import CorruptModelError, ModelBusyError, PaddockError, UnknownModelError
from core.remotes import is_remote, split_name
from core.settings import Settings
from core.store import resolver
from core.store.files import folder_bytes, free_bytes, remove_folder, sha256
from core.store.folders import Folders
from core.store.formats import usual_precision
from core.store.manifest import MANIFEST_NAME, read_manifest
from core.store.pipeline import Conversion, download
from core.store.progress import Progress, ProgressCallback, Stage, ignore_progress
from core.store.resolver import Source, SourceKind, local_titles, recorded_name, unique_title
from core.store.stored import StoredModel, find_stored
from core.store.weights_source import of_folder, original_folder

if TYPE_CHECKING:
    from core.store.hub import HubAccess

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

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._folders = Folders(settings.models_dir)

    def get(self, source: Source, precision: Precision) -> StoredModel | None:
        """Return the stored model, or None if it is not stored or its source has changed since.

        Fast: reads the manifest, the source's small files, and its weights' sizes and times.

        Raises:
            CorruptModelError: the manifest is missing or damaged.
        """
        return find_stored(source, precision, self._folders.models)

    def find(self, source: Source, precision: Precision) -> StoredModel | None:
        """Return the stored model that is used for a precision, or None: for an NPU's INT4 also a
        model of another recipe, or one published in INT4, that has the settings of an NPU.

        Raises:
            CorruptModelError: a manifest is missing or damaged.
        """
        if precision is Precision.INT4_NPU:
            for recipe in INT4_RECIPES:
                stored = self.get(source, recipe)
                if stored is not None and stored.serves(precision):
                    return stored
        return self.get(source, precision)

    def is_outdated(self, stored: StoredModel) -> bool:
        """Return whether the source has changed, so that the next use converts it again."""
        try:
            return stored.differs_from(self.resolve(stored.name))
        except PaddockError:  # the source is gone, or is no model any more
            return False

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
        compression: Compression | None = None,
        progress: ProgressCallback = ignore_progress,
        access: HubAccess | None = None,
    ) -> StoredModel:
        """Return the stored and verified model, after downloading and converting it if needed.

        Blocks while another process converts the same model to the same precision, and then
        returns its result. A conversion needs much memory and time, and only the end of its process
        stops it: see :func:`core.store.subprocesses.convert_in_process`.

        Args:
            compression: of this precision: overrides the recipe or the default INT8 settings; a
                model already stored with other settings is returned as it is.

        Raises:
            CorruptModelError: the stored model or its source is damaged.
            NotAModelError, HubError, UnknownModelError: the source cannot be used or downloaded.
            UserError: the source cannot be converted to this precision.
            DiskFullError, NotEnoughMemoryError: not enough disk space or memory.
            ConversionError: export or compression failed, or the home folder is read-only.
        """
        stored = self.get(source, precision)
        if stored is not None:
            stored = self.verify(stored, full=False)
        else:
            self.settings.check_not_kiosk()
            with self._folders.lock(source.key, precision, progress):
                stored = self.get(source, precision)  # another process may have converted it
                if stored is None:
                    stored = Conversion(
                        source,
                        precision,
                        compression,
                        self.settings,
                        self._folders,
                        progress,
                        access,
                    ).run()
        progress(Progress(Stage.DONE, f"{source.title} is ready on disk.", 1.0))
        return stored

    def fetch(
        self, source: Source, progress: ProgressCallback, access: HubAccess | None = None
    ) -> None:
        """Download a model without converting it; see :func:`core.store.hub.fetch`."""
        self.settings.check_not_kiosk()
        download(source, self.settings, self._folders, progress, access)
        progress(Progress(Stage.DONE, f"{source.title} is downloaded.", 1.0))

    def resolve(self, model: str) -> Source:
        """Find a model with :func:`core.store.resolver.resolve`, or else in the store.

        A stored model is found by its key and by its source, even if the source no longer exists:
        an FP16 or FP32 model in the store can be converted to other precisions.
        """
        try:
            return resolver.resolve(model)
        except UnknownModelError:
            name = model.strip()
            for stored in self.list():
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

    def default_precision(
        self, model: str, *, ask_hub: bool = False, access: HubAccess | None = None
    ) -> Precision:
        """Return the precision of a model if none is specified; the default for unknown models.

        An OpenVINO model that cannot be converted to the default has its own.

        Args:
            ask_hub: whether to look up a model of the hub that is not on this machine.
        """
        try:
            source, formats = self.resolve(model), {}
            if source.kind is not SourceKind.HUB or source.is_gguf:
                return source.default_precision
            if (folder := original_folder(source, self.settings)) is not None:
                formats = of_folder(folder).formats
            elif stored := [each for each in self.list() if each.key == source.key]:
                formats = next((each.formats for each in stored if each.kept_unchanged), {})
            elif ask_hub and source.model is None:
                from core.store.hub import describe

                found = describe(str(source.location), access).ir
                formats = found.formats if found is not None else {}
            return usual_precision(formats) if formats else DEFAULT_PRECISION
        except PaddockError:
            return DEFAULT_PRECISION

    def verify(self, stored: StoredModel, *, full: bool) -> StoredModel:
        """Check the files of a stored model against its manifest.

        Args:
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
        return stored if records == stored.manifest.files else stored.updated(files=records)

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
        with self._folders.try_lock(key, None, *Precision) as idle:
            if not idle:
                raise ModelBusyError(
                    f"The download of {key} is in use by a download or a conversion. Stop it "
                    "first, or wait until it ends."
                )
            return remove_folder(folder, "files")


def _corrupt(stored: StoredModel, what: str) -> CorruptModelError:
    return CorruptModelError(
        f"The stored {stored.title} in {stored.label} is damaged: {what}. "
        f"Delete it ({stored.folder}) and convert it again."
    )
