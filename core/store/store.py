"""Converted models on disk: found, made, verified, deleted.

The layout below ``settings.models_dir``::

    <key>/<precision>/          one model: IR, tokenizer, configuration, paddock.json
    .work/<key>.<precision>.lock
    .work/<key>.<precision>.<random>/   a conversion under way

A conversion holds the lock of its model and precision, works in ``.work`` and renames the finished
folder into place, so a folder with a manifest is always whole. Locks are the operating system's and
die with their process; whoever holds one may therefore remove every work folder of that name.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from core.catalogue import Int4Settings, Precision, default_int4
from core.errors import (
    ConversionError,
    CorruptModelError,
    DiskFullError,
    ModelBusyError,
    ModelFilesError,
    NotEnoughMemoryError,
)
from core.settings import Settings
from core.store import checkpoint
from core.store.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Int4Record,
    Manifest,
    SourceRecord,
    read_manifest,
    write_manifest,
)
from core.store.memory import PeakMemory
from core.store.progress import Progress, ProgressCallback, Stage, ignore_progress
from core.store.sources import Source, SourceKind
from core.store.weights import IR_BIN

if TYPE_CHECKING:
    from core.store.convert import Converted

log = logging.getLogger(__name__)

_LIBRARIES = (
    "torch",
    "transformers",
    "optimum-intel",
    "openvino",
    "openvino-tokenizers",
    "nncf",
)
_LOCK_POLL_S = 0.25
_SPARE_BYTES = 16 * 2**20
"""Room for everything but the weights: XML, tokenizer, the run database."""

_BYTES_PER_PARAMETER = {
    Precision.FP32: 4.0,
    Precision.FP16: 2.0,
    Precision.INT8: 1.05,
    Precision.INT4: 1.05,  # if no layer but embeddings allowed it: an upper bound
}


@dataclass(frozen=True)
class StoredModel:
    """A converted model that lies complete on disk."""

    key: str
    precision: Precision
    folder: Path
    manifest: Manifest


class ModelStore:
    """The models in one home folder; safe to use from several threads and processes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models = settings.models_dir
        self._work = settings.models_dir / ".work"

    def get(self, source: Source, precision: Precision) -> StoredModel | None:
        """The stored model, or None where it is not stored or its source has changed since.

        Cheap: reads the manifest and the state of the source's files, not the model.

        Raises:
            CorruptModelError: there is a folder, but its manifest is missing or damaged.
        """
        folder = self._folder(source.key, precision)
        if not folder.is_dir():
            return None
        manifest = read_manifest(folder)
        now = _fingerprint(source)
        if now is not None and now != manifest.source.fingerprint:
            return None
        return StoredModel(source.key, precision, folder, manifest)

    def list(self) -> list[StoredModel]:
        """All stored models by key and precision; damaged ones are left out and logged."""
        found = []
        for path in sorted(self._models.glob(f"*/*/{MANIFEST_NAME}")):
            folder = path.parent
            if folder.parent.name.startswith(".") or folder.name not in set(Precision):
                continue
            try:
                manifest = read_manifest(folder)
            except CorruptModelError as error:
                log.warning("%s", error)
                continue
            found.append(StoredModel(folder.parent.name, Precision(folder.name), folder, manifest))
        return found

    def ensure(
        self,
        source: Source,
        precision: Precision,
        *,
        int4: Int4Settings | None = None,
        progress: ProgressCallback | None = None,
    ) -> StoredModel:
        """Return the stored and verified model, after fetching and converting it if need be.

        Blocks while another process converts the same model to the same precision, and then
        takes its result. Heavy in memory and time where it converts: see
        :func:`core.store.process.convert_in_process`.

        Args:
            source: from :func:`core.store.sources.resolve`.
            precision: of the weights.
            int4: overrides the catalogue's INT4 settings; a model already stored in INT4 with
                other settings is returned as it is.
            progress: told of each step, from the calling thread.

        Raises:
            CorruptModelError: the stored model or its source is damaged.
            NotAModelError, HubError, UnknownModelError: the source cannot be used or fetched.
            PersonMistake: this precision cannot be had from this source.
            DiskFullError, NotEnoughMemoryError: the machine has too little room.
            ConversionError: export or compression failed.
        """
        tell = progress or ignore_progress
        stored = self.get(source, precision)
        if stored is None:
            with self._lock(source.key, precision, tell):
                stored = self.get(source, precision)  # another process may have made it
                if stored is None:
                    stored = self._make(source, precision, int4, tell)
                    tell(Progress(Stage.DONE, f"{source.title} is ready on disk.", 1.0))
                    return stored
        stored = self.verify(stored, full=False)
        tell(Progress(Stage.DONE, f"{source.title} is ready on disk.", 1.0))
        return stored

    def verify(self, stored: StoredModel, *, full: bool) -> StoredModel:
        """Check the files of a stored model against its manifest.

        Args:
            stored: the model.
            full: read every file and compare checksums. Otherwise names and sizes are compared,
                and only files whose time of change differs from the manifest's are read.

        Returns:
            The model, with new times of change in its manifest where files had to be read.

        Raises:
            CorruptModelError: a file is missing, cut off or altered; the text names it.
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
                if _sha256(path) != record.sha256:
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
        lock = FileLock(self._lock_path(stored.key, stored.precision))
        try:
            with lock.acquire(timeout=0):
                freed = _size(stored.folder)
                self._discard(stored.folder, stored.key, stored.precision)
        except Timeout as error:
            raise ModelBusyError(
                f"{stored.manifest.title} in {stored.precision.label} is being converted; stop "
                "that first, or wait for it."
            ) from error
        return freed

    def sweep(self, key: str, precision: Precision) -> None:
        """Remove what a killed conversion of this model left, unless one is under way."""
        try:
            with FileLock(self._lock_path(key, precision)).acquire(timeout=0):
                self._remove_leftovers(key, precision)
        except Timeout:
            log.debug("%s %s is being converted by another process", key, precision)

    # How a model is made

    def _make(
        self,
        source: Source,
        precision: Precision,
        int4: Int4Settings | None,
        tell: ProgressCallback,
    ) -> StoredModel:
        self._remove_leftovers(source.key, precision)
        folder, revision = self._local_folder(source, tell)
        settings = int4 or (source.model.int4 if source.model else default_int4())
        self._check_space(source, folder, precision)
        work = self._work / f"{source.key}.{precision}.{uuid.uuid4().hex[:8]}"
        finished = work / "model"
        try:
            with self._room_for(source):
                finished.mkdir(parents=True)
                (work / "export").mkdir()
                started = time.monotonic()
                fingerprint = _fingerprint(source)
                with PeakMemory() as peak:
                    made = _convert(folder, work, precision, settings, tell)
                tell(Progress(Stage.CHECKING, "Recording sizes and checksums.", 0.9))
                manifest = _describe(
                    source=source,
                    record=SourceRecord(
                        kind=source.kind,
                        location=str(source.location),
                        revision=revision,
                        fingerprint=fingerprint,
                    ),
                    folder=finished,
                    precision=precision,
                    made=made,
                    duration_s=time.monotonic() - started,
                    peak=peak,
                )
                write_manifest(finished, manifest)
                tell(Progress(Stage.SAVING, "Putting the model in its place.", 0.98))
                target = self._folder(source.key, precision)
                if target.exists():  # its source has changed since
                    self._discard(target, source.key, precision)
                target.parent.mkdir(parents=True, exist_ok=True)
                finished.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return StoredModel(source.key, precision, target, manifest)

    def _local_folder(self, source: Source, tell: ProgressCallback) -> tuple[Path, str | None]:
        """Folder with the source's files, and the hub's revision where it comes from there."""
        if source.kind is SourceKind.HUB:
            from core.store import hub

            with self._lock(source.key, None, tell):
                hub_id = str(source.location)
                download = hub.fetch(hub_id, self._settings.downloads_dir / source.key, tell)
            return download.folder, download.revision
        return Path(source.location), None

    def _check_space(self, source: Source, folder: Path, precision: Precision) -> None:
        """Refuse before the work starts what cannot fit.

        Raises:
            DiskFullError: with both numbers.
        """
        needed = estimate_bytes(folder, precision)
        self._work.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._work).free
        if needed > free:
            raise DiskFullError(
                f"Converting {source.title} to {precision.label} needs {_gb(needed)} on disk and "
                f"{_gb(free)} are free; make room, or set PADDOCK_HOME to a larger disk."
            )

    @contextmanager
    def _room_for(self, source: Source) -> Iterator[None]:
        """Turn running out of disk or memory half-way into its own sentence."""
        try:
            yield
        except MemoryError as error:
            raise NotEnoughMemoryError(
                f"The memory ran out while {source.title} was converted; close other programs or "
                "unload models, and try again."
            ) from error
        except (OSError, ConversionError, ModelFilesError) as error:
            # OpenVINO reports a full disk in its own words, or writes a short file in silence.
            if _has_no_space(error) or shutil.disk_usage(self._models).free < 2**20:
                raise DiskFullError(
                    f"The disk became full while {source.title} was converted; nothing was kept, "
                    "so make room and try again."
                ) from error
            if isinstance(error, OSError):
                raise ConversionError(
                    f"{source.title} could not be converted ({error}); check the home folder "
                    f"{self._settings.home} and try again."
                ) from error
            raise

    # Locks and folders

    def _folder(self, key: str, precision: Precision) -> Path:
        return self._models / key / precision.value

    def _lock_path(self, key: str, precision: Precision | None) -> Path:
        self._work.mkdir(parents=True, exist_ok=True)
        return self._work / f"{key}.{precision or 'source'}.lock"

    @contextmanager
    def _lock(
        self, key: str, precision: Precision | None, tell: ProgressCallback
    ) -> Iterator[None]:
        """Hold the lock of a model in one precision, or of its source (None)."""
        lock = FileLock(self._lock_path(key, precision))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            message = f"Waiting for another process that works on {key}."
            tell(Progress(Stage.WAITING, message, None))
            lock.acquire(poll_interval=_LOCK_POLL_S)
        try:
            yield
        finally:
            lock.release()

    def _remove_leftovers(self, key: str, precision: Precision) -> None:
        """Remove work folders of this name; only for the holder of the lock."""
        prefix = f"{key}.{precision}."
        for path in self._work.iterdir():
            if path.is_dir() and path.name.startswith(prefix):
                log.info("removing what an interrupted conversion left: %s", path.name)
                shutil.rmtree(path, ignore_errors=True)

    def _discard(self, folder: Path, key: str, precision: Precision) -> None:
        """Take a model out of sight in one step, then remove it."""
        aside = self._work / f"{key}.{precision}.{uuid.uuid4().hex[:8]}"
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise ModelBusyError(
                f"The files in {folder} are in use by a program; unload the model and try again."
            ) from error
        shutil.rmtree(aside, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def estimate_bytes(folder: Path, precision: Precision) -> int:
    """Upper bound of the disk space in bytes that converting the model in ``folder`` takes.

    The export before compression is included: it is there at the same time.
    """
    if checkpoint.is_ir(folder):
        return 2 * (folder / IR_BIN).stat().st_size + _SPARE_BYTES
    info = checkpoint.inspect_checkpoint(folder)
    per_parameter = _BYTES_PER_PARAMETER[precision]
    if precision in (Precision.INT8, Precision.INT4):
        per_parameter += 4.0 if info.dtype == "float32" else 2.0
    return int(info.parameters * per_parameter) + _SPARE_BYTES


def _convert(
    folder: Path, work: Path, precision: Precision, int4: Int4Settings, tell: ProgressCallback
) -> Converted:
    tell(Progress(Stage.EXPORTING, "Loading the conversion libraries.", 0.02))
    from core.store import convert

    if checkpoint.is_ir(folder):
        return convert.convert_ir(folder, work / "model", precision, int4, tell)
    info = checkpoint.inspect_checkpoint(folder)
    return convert.convert_checkpoint(info, work / "model", work / "export", precision, int4, tell)


def _describe(
    *,
    source: Source,
    record: SourceRecord,
    folder: Path,
    precision: Precision,
    made: Converted,
    duration_s: float,
    peak: PeakMemory,
) -> Manifest:
    config = checkpoint.read_json(folder / "config.json")
    files = {
        path.name: FileRecord(
            size=path.stat().st_size, sha256=_sha256(path), mtime_ns=path.stat().st_mtime_ns
        )
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    int4 = made.int4 and Int4Record(
        symmetric=made.int4.symmetric,
        group_size=made.int4.group_size,
        ratio=made.int4.ratio,
        group_sizes=made.report.group_sizes,
        four_bit_share=made.report.four_bit_share,
    )
    return Manifest(
        key=source.key,
        title=source.title,
        source=record,
        precision=precision,
        int4=int4,
        versions={name: metadata.version(name) for name in _LIBRARIES},
        architecture=config.get("model_type"),
        parameters=made.report.parameters,
        weight_types=made.report.types,
        weight_bytes=made.report.bytes,
        folder_bytes=sum(file.size for file in files.values()),
        positions=checkpoint.positions(config),
        has_chat_template=checkpoint.has_chat_template(folder),
        has_openvino_tokenizer="openvino_tokenizer.xml" in files,
        created=datetime.now(UTC),
        duration_s=round(duration_s, 3),
        peak_memory_bytes=peak.total_bytes,
        peak_private_bytes=peak.private_bytes,
        files=files,
    )


def _fingerprint(source: Source) -> str | None:
    """Changes when the weights of a local source do; None where that cannot be told.

    A folder that is gone, or the hub, gives None: what was made from it stays good.
    """
    if source.kind is SourceKind.HUB:
        return None
    folder = Path(source.location)
    if source.kind is SourceKind.EMBEDDED:
        weights = folder / "model.safetensors"
        if not weights.is_file():
            return None
        state = weights.stat()
        return _remembered_sha256(weights, state.st_size, state.st_mtime_ns)
    digest = hashlib.sha256()
    names = ("*.safetensors", "pytorch_model*.bin", IR_BIN, "config.json", "tokenizer*")
    paths = sorted({path for name in names for path in folder.glob(name)})
    for path in paths:
        state = path.stat()
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest() if paths else None


def _corrupt(stored: StoredModel, what: str) -> CorruptModelError:
    return CorruptModelError(
        f"The stored {stored.manifest.title} in {stored.precision.label} is damaged: {what}; "
        f"delete it ({stored.folder}) and convert it again."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=32)
def _remembered_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    return _sha256(path)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _has_no_space(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC).lower() in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
