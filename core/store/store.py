"""Converted models on disk: found, made, verified, deleted.

The layout below ``settings.models_dir``::

    <key>/<precision>/          one model: IR, tokenizer, configuration, paddock.json
    .work/<key>.<precision>.lock
    .work/<key>.<precision>.<random>/   a conversion under way

A conversion holds the lock of its model and precision, works in ``.work`` and renames the finished
folder into place, so a folder with a manifest is always whole.
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
    PersonMistake,
    StoppedError,
    UnknownModelError,
)
from core.remotes import is_remote, split_name
from core.settings import Settings
from core.store import resolver
from core.store.files import fingerprint, folder_bytes, free_bytes, remove_folder, sha256
from core.store.folders import Folders
from core.store.manifest import MANIFEST_NAME, read_manifest, write_manifest
from core.store.pipeline import Maker, Wish
from core.store.progress import Progress, ProgressCallback, Stage, ignore_progress
from core.store.resolver import Source, SourceKind, local_titles, marked_title, recorded_name
from core.store.stored import StoredModel

if TYPE_CHECKING:
    from core.store.hub import Download, HubAccess

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiskUsage:
    """What the home folder holds, in bytes."""

    models_bytes: int
    downloads_bytes: int
    """Checkpoints fetched from the hub, whole or broken off."""
    work_bytes: int
    """Conversions under way, and what killed ones left."""
    free_bytes: int


@dataclass(frozen=True)
class StoredDownload:
    """A checkpoint fetched from the hub; what is made from it does not need it any more."""

    key: str
    bytes: int
    complete: bool
    """False where it was broken off: the next attempt goes on from there."""


class ModelStore:
    """The models in one home folder; safe to use from several threads and processes."""

    def __init__(self, settings: Settings, models: Path | None = None) -> None:
        """
        Args:
            settings: tell the home folder, in which originals and stored models to make others from
                are looked for.
            models: where the models lie, by default ``settings.models_dir``; locks are shared.
        """
        self.settings = settings
        self._folders = Folders(models or settings.models_dir, settings.models_dir / ".work")

    @property
    def import_dir(self) -> Path:
        """Folder of the model folders that people elsewhere than on this machine may name."""
        return self.settings.import_dir

    def get(self, source: Source, precision: Precision) -> StoredModel | None:
        """The stored model, or None where it is not stored or its source has changed since.

        Cheap: reads the manifest and the state of the source's files, not the model.

        Raises:
            CorruptModelError: there is a folder, but its manifest is missing or damaged.
        """
        folder = self._folders.of(source.key, precision)
        if not folder.is_dir():
            return None
        manifest = read_manifest(folder)
        now = fingerprint(source)
        # A row of the catalogue may come from a package today and have come from the hub before.
        if source.kind == manifest.source.kind and now not in (None, manifest.source.fingerprint):
            return None
        return StoredModel(source.key, precision, folder, manifest)

    def list(self) -> list[StoredModel]:
        """All stored models by key and precision; damaged ones are left out and logged."""
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
        """Return the stored and verified model, after fetching and converting it if need be.

        Blocks while another process converts the same model to the same precision, and then
        takes its result. Heavy in memory and time where it converts: see
        :func:`core.store.subprocesses.convert_in_process`.

        Args:
            source: from :func:`core.store.resolver.resolve` or :meth:`resolve`.
            precision: of the weights.
            int4: overrides the catalogue's INT4 settings; a model already stored in INT4 with
                other settings is returned as it is.
            int8: overrides the usual INT8 settings, likewise.
            progress: told of each step, from the calling thread.
            access: how the hub is asked; by default as the environment says.
            cancel: when set, a download ends within a second and keeps what came, and a
                conversion ends before its next step and keeps nothing.

        Raises:
            CorruptModelError: the stored model or its source is damaged.
            NotAModelError, HubError, UnknownModelError: the source cannot be used or fetched.
            PersonMistake: this precision cannot be had from this source.
            DiskFullError, NotEnoughMemoryError: the machine has too little room.
            ConversionError: export or compression failed, or the home folder is read-only.
            StoppedError: ``cancel`` was set.
        """
        tell = _stoppable(progress or ignore_progress, cancel)
        stored = self.get(source, precision)
        if stored is None:
            self.settings.check_not_kiosk()
            with self._folders.lock(source.key, precision, tell, cancel):
                stored = self.get(source, precision)  # another process may have made it
                if stored is None:
                    maker = Maker(self.settings, self._folders, tell, access, cancel)
                    stored = maker.make(source, Wish(precision, int4, int8))
                    tell(Progress(Stage.DONE, f"{source.title} is ready on disk.", 1.0))
                    return stored
        stored = self.verify(stored, full=False)
        tell(Progress(Stage.DONE, f"{source.title} is ready on disk.", 1.0))
        return stored

    def fetch(
        self,
        source: Source,
        *,
        progress: ProgressCallback | None = None,
        access: HubAccess | None = None,
        cancel: threading.Event | None = None,
    ) -> Download:
        """Fetch a model of the hub and convert nothing; the arguments are those of :meth:`ensure`.

        Blocks while another process fetches the same model, and then takes its result.

        Raises:
            StoppedError: ``cancel`` was set; what came is kept for the next attempt.
            PersonMistake: the model is not one of the hub.
            PaddockError: see :func:`core.store.hub.fetch`.
        """
        if source.kind is not SourceKind.HUB:
            raise PersonMistake(
                f"{source.title} is on this machine already, there is nothing to fetch; convert it "
                "to the precision you want."
            )
        self.settings.check_not_kiosk()
        tell = progress or ignore_progress
        download = Maker(self.settings, self._folders, tell, access, cancel).fetch(source)
        tell(Progress(Stage.DONE, f"{source.title} has been fetched.", 1.0))
        return download

    def resolve(self, model: str) -> Source:
        """Find a model as :func:`core.store.resolver.resolve` does, or else in the store.

        A stored model is found by its key, and by what it was made from, even where that is gone:
        other precisions can be made from an FP16 or FP32 model in the store.

        Raises:
            UnknownModelError, NotAModelError, CorruptModelError: see there.
        """
        try:
            return resolver.resolve(model)
        except UnknownModelError:
            name = model.strip()
            places = (None, self.settings.npu_models_dir)
            found = [each for at in places for each in ModelStore(self.settings, at).list()]
            for stored in found:
                made_from = stored.manifest.source
                if name in (stored.key, made_from.location):
                    kind = SourceKind(made_from.kind)
                    on_hub = kind is SourceKind.HUB
                    location = made_from.location if on_hub else Path(made_from.location)
                    return Source(stored.key, kind, location, None, stored.title)
            raise

    def name(self, model: str) -> str:
        """The key for programs of what a person calls ``model``; as it is where there is none."""
        try:
            return self.resolve(model).name
        except PaddockError:
            return model.strip()

    def title(self, name: str) -> str:
        """The model's title for people, which no other model of theirs has.

        Args:
            name: its key for programs, or how a record of an earlier version names it.

        Raises:
            PersonMistake: it begins like a remote's model and is none.
        """
        key = recorded_name(name)
        if key in catalogue():
            return catalogue()[key].title
        if is_remote(key):
            return split_name(key).model
        titles = local_titles() | {each.name: each.title for each in self.list()}
        own = titles.get(key, key)
        alike = any(title == own for other, title in titles.items() if other != key)
        return marked_title(own, key) if alike else own

    def default_precision(self, model: str) -> Precision:
        """What a model is used in where nobody chose; the usual where there is no such model."""
        try:
            return self.resolve(model).default_precision
        except PaddockError:
            return DEFAULT_PRECISION

    def verify(self, stored: StoredModel, *, full: bool) -> StoredModel:
        """Check the files of a stored model against its manifest.

        Args:
            stored: the model.
            full: read every file and compare checksums. Otherwise names and sizes are compared,
                and only files whose time of change differs from the manifest's are read.

        Returns:
            The model, with new times of change in its manifest where files had to be read.

        Raises:
            CorruptModelError: a file is missing, cut off, altered or not to be read; the text
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
        except OSError as error:  # read-only, or deleted meanwhile: it is verified all the same
            log.warning("the manifest in %s cannot be renewed: %s", stored.folder, error)
        return StoredModel(stored.key, stored.precision, stored.folder, manifest)

    def delete(self, stored: StoredModel) -> int:
        """Remove a stored model, damaged or not, and return the bytes freed.

        Raises:
            ModelBusyError: it is being converted, or (on Windows) loaded by a program.
        """
        self.settings.check_not_kiosk()
        with self._folders.if_idle(stored.key, stored.precision) as idle:
            if not idle:
                raise ModelBusyError(
                    f"{stored.title} in {stored.label} is being converted; stop "
                    "that first, or wait for it."
                )
            freed = folder_bytes(stored.folder)
            self._folders.discard(stored.folder, stored.key, stored.precision)
        return freed

    def sweep(self, key: str, precision: Precision) -> None:
        """Remove what a killed conversion of this model left, unless one is under way."""
        with self._folders.if_idle(key, precision) as idle:
            if idle:
                self._folders.remove_leftovers(key, precision)
            else:
                log.debug("%s %s is being converted by another process", key, precision)

    def sweep_all(self) -> int:
        """Remove what killed conversions of any model left, and return the bytes freed."""
        self.settings.check_not_kiosk()
        before = folder_bytes(self._folders.work)
        for key, precision in self._folders.leftovers():
            self.sweep(key, precision)
        return max(0, before - folder_bytes(self._folders.work))

    # The disk

    def disk_usage(self) -> DiskUsage:
        """What the home folder holds and what its disk has free; counts every file anew."""
        work = folder_bytes(self._folders.work)
        return DiskUsage(
            models_bytes=folder_bytes(self._folders.models) - work,
            downloads_bytes=folder_bytes(self.settings.downloads_dir),
            work_bytes=work,
            free_bytes=free_bytes(self.settings.home),
        )

    def downloads(self) -> list[StoredDownload]:
        """What was fetched from the hub, whole or in part, by key."""
        from core.store import hub

        return [
            StoredDownload(folder.name, folder_bytes(folder), hub.completed(folder) is not None)
            for folder in sorted(self.settings.downloads_dir.glob("[!.]*"))
            if folder.is_dir()
        ]

    def forget_download(self, key: str) -> int:
        """Remove what was fetched of a model, and return the bytes freed.

        Converted models stay usable; a further precision is then made from a stored FP16 or FP32
        model, or fetched again.

        Raises:
            ModelBusyError: it is being fetched or converted, or may not be removed.
        """
        self.settings.check_not_kiosk()
        if key not in {download.key for download in self.downloads()}:
            return 0  # also what would lead out of the downloads, such as ".."
        folder = self.settings.downloads_dir / key
        with self._folders.alone_with(key, f"The download of {key}"):
            return remove_folder(folder, "files")


def _stoppable(tell: ProgressCallback, cancel: threading.Event | None) -> ProgressCallback:
    """Tell of progress, and end at the first step after ``cancel`` was set."""
    if cancel is None:
        return tell

    def step(progress: Progress) -> None:
        if cancel.is_set() and progress.stage is not Stage.DONE:
            raise StoppedError("The conversion was stopped; nothing of it was kept.")
        tell(progress)

    return step


def _corrupt(stored: StoredModel, what: str) -> CorruptModelError:
    return CorruptModelError(
        f"The stored {stored.title} in {stored.label} is damaged: {what}; "
        f"delete it ({stored.folder}) and convert it again."
    )
