"""Download and convert a model into the store: checks, conversion, manifest, final rename."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from core.catalogue import Int4Settings, Int8Settings, Precision, default_int4
from core.errors import ConversionError, DiskFullError, ModelFilesError, NotEnoughMemoryError
from core.hardware.memory import PeakMemory
from core.settings import Settings
from core.store import checkpoint
from core.store.estimate import estimate
from core.store.files import fingerprint, free_bytes, has_no_space, sha256
from core.store.folders import Folders
from core.store.genai_check import genai_check
from core.store.manifest import (
    FileRecord,
    GenAICheck,
    GgufRecord,
    Int4Record,
    Int8Record,
    Manifest,
    SourceRecord,
    write_manifest,
)
from core.store.progress import Progress, ProgressCallback, Stage
from core.store.resolver import Source, SourceKind
from core.store.stored import StoredModel
from core.store.weights_source import original_folder, stored_ir

if TYPE_CHECKING:
    from core.store.convert import Converted
    from core.store.hub import Download, HubAccess

_LIBRARIES = (
    "torch",
    "transformers",
    "optimum-intel",
    "openvino",
    "openvino-tokenizers",
    "nncf",
)


@dataclass(frozen=True)
class ConversionRequest:
    """Requested precision and settings of a conversion."""

    precision: Precision
    int4: Int4Settings | None = None
    """Overrides the catalogue's INT4 settings."""
    int8: Int8Settings | None = None
    """Overrides the default INT8 settings."""


@dataclass(frozen=True)
class _Weights:
    """Weights on disk, ready for conversion."""

    folder: Path
    record: SourceRecord
    lock: Precision | None = None
    """Precision of the stored model if one is converted: it must not be deleted meanwhile."""
    gguf: GgufRecord | None = None
    """Of the stored model that is converted, if it comes from a GGUF file."""


class ConversionPipeline:
    """Downloads and converts one model; the caller holds the lock of its key and precision."""

    def __init__(
        self,
        settings: Settings,
        folders: Folders,
        report: ProgressCallback,
        access: HubAccess | None,
        cancel: threading.Event | None,
    ) -> None:
        self._settings = settings
        self._folders = folders
        self._report = report
        self._access = access
        self._cancel = cancel

    def run(self, source: Source, request: ConversionRequest) -> StoredModel:
        """Download and convert ``source``, and move the result into the store.

        Raises:
            PaddockError: see :meth:`core.store.store.ModelStore.ensure`.
        """
        with self._clear_errors(source):
            self._folders.remove_leftovers(source.key, request.precision)
            weights = self._weights(source, request)
            estimate(source, request.precision, self._settings, int4=request.int4).check()
            with self._source_locked(source, weights):
                return self._convert(source, request, weights)

    def _convert(
        self, source: Source, request: ConversionRequest, weights: _Weights
    ) -> StoredModel:
        work = self._folders.new_work(source.key, request.precision)
        finished = work / "model"
        try:
            finished.mkdir(parents=True)
            (work / "export").mkdir()
            started = time.monotonic()
            with PeakMemory() as peak:
                converted = _convert(source, request, weights.folder, work, self._report)
            self._report(Progress(Stage.CHECKING, "Checking the model with OpenVINO GenAI.", 0.88))
            genai = genai_check(finished, self._settings.genai_checks_file)
            self._report(Progress(Stage.CHECKING, "Recording sizes and checksums.", 0.9))
            manifest = _manifest(
                source=source,
                record=weights.record,
                gguf=weights.gguf,
                folder=finished,
                precision=request.precision,
                converted=converted,
                genai=genai,
                duration_s=time.monotonic() - started,
                peak=peak,
            )
            write_manifest(finished, manifest)
            self._report(Progress(Stage.SAVING, "Moving the model into the store.", 0.98))
            target = self._folders.path(source.key, request.precision)
            if target.exists():  # converted before the source changed
                self._folders.discard(target, source.key, request.precision)
            target.parent.mkdir(parents=True, exist_ok=True)
            finished.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return StoredModel(source.key, request.precision, target, manifest)

    # Source of the weights

    def _weights(self, source: Source, request: ConversionRequest) -> _Weights:
        """Return the original's files, another IR of the model in the store, or a download."""
        folder = original_folder(source, self._settings)
        if folder is None:
            stored = stored_ir(source, request.precision, self._settings)
            if stored is not None and stored.folder is not None and stored.manifest is not None:
                manifest = stored.manifest
                return _Weights(stored.folder, manifest.source, stored.precision, manifest.gguf)
        revision = None
        if source.kind is SourceKind.HUB:
            folder, revision = self._downloaded(source, request, complete=folder is not None)
        record = SourceRecord(
            kind=source.kind,
            location=str(source.location),
            revision=revision,
            fingerprint=fingerprint(source),
        )
        return _Weights(Path(folder or source.location), record)

    def _downloaded(
        self, source: Source, request: ConversionRequest, *, complete: bool
    ) -> tuple[Path, str | None]:
        if source.model is not None and not complete:  # the catalogue knows its shape
            estimate(source, request.precision, self._settings, int4=request.int4).check()
        download = self.fetch(source)
        return download.folder, download.revision

    def fetch(self, source: Source) -> Download:
        """Download a model from the hub, resuming an earlier attempt.

        Raises:
            PaddockError: see :func:`core.store.hub.fetch`.
        """
        from core.store import hub

        with self._folders.lock(source.key, None, self._report, self._cancel):
            return hub.fetch(
                str(source.location),
                self._settings.downloads_dir / source.key,
                self._report,
                access=self._access,
                cancel=self._cancel,
            )

    @contextmanager
    def _source_locked(self, source: Source, weights: _Weights) -> Iterator[None]:
        """Lock the stored model that is the source, so that it is not deleted meanwhile.

        The lock of the lower precision is held already, and no precision is converted from a lower
        one, so a deadlock is not possible.
        """
        if weights.lock is None:
            context = nullcontext()
        else:
            context = self._folders.lock(source.key, weights.lock, self._report, self._cancel)
        with context:
            yield

    @contextmanager
    def _clear_errors(self, source: Source) -> Iterator[None]:
        """Convert exceptions caused by a full disk or lack of memory to errors that say so."""
        try:
            yield
        except MemoryError as error:
            raise NotEnoughMemoryError(
                f"The memory ran out while converting {source.title}. Close other programs or "
                "unload models, and try again."
            ) from error
        except (OSError, ConversionError, ModelFilesError) as error:
            # OpenVINO reports a full disk with its own error, or writes a truncated file without
            # an error.
            if has_no_space(error) or free_bytes(self._folders.models) < 2**20:
                raise DiskFullError(
                    f"The disk became full while converting {source.title}, so nothing was kept. "
                    "Free disk space and try again."
                ) from error
            if isinstance(error, OSError):
                raise ConversionError(
                    f"{source.title} could not be converted ({error}). Check the home folder "
                    f"{self._settings.home} and try again."
                ) from error
            raise


def _convert(
    source: Source, request: ConversionRequest, folder: Path, work: Path, report: ProgressCallback
) -> Converted:
    report(Progress(Stage.EXPORTING, "Loading the conversion libraries.", 0.02))
    from core.store import convert

    target = convert.Target(
        folder=work / "model",
        precision=request.precision,
        int4=request.int4 or (source.model.int4 if source.model else default_int4()),
        int8=request.int8 or Int8Settings(),
    )
    if folder.is_file():
        sampling = source.model.sampling if source.model else None
        return convert.convert_gguf(folder, target, work / "export", report, sampling)
    if checkpoint.is_ir(folder):
        return convert.convert_ir(folder, target, report)
    info = checkpoint.inspect_checkpoint(folder)
    return convert.convert_checkpoint(info, target, work / "export", report)


def _manifest(
    *,
    source: Source,
    record: SourceRecord,
    gguf: GgufRecord | None,
    folder: Path,
    precision: Precision,
    converted: Converted,
    genai: GenAICheck,
    duration_s: float,
    peak: PeakMemory,
) -> Manifest:
    config = checkpoint.read_json(folder / "config.json")
    files = {
        path.name: FileRecord(
            size=path.stat().st_size, sha256=sha256(path), mtime_ns=path.stat().st_mtime_ns
        )
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    int4 = converted.int4 and Int4Record(
        symmetric=converted.int4.symmetric,
        group_size=converted.int4.group_size,
        ratio=converted.int4.ratio,
        group_sizes=converted.report.group_sizes,
        four_bit_share=converted.report.four_bit_share,
        scale_estimation=converted.int4.scale_estimation,
    )
    return Manifest(
        key=source.key,
        title=source.title,
        source=record,
        precision=precision,
        int4=int4,
        int8=converted.int8 and Int8Record(symmetric=converted.int8.symmetric),
        gguf=converted.gguf or gguf,
        source_of_weights=converted.source_of_weights,
        source_bytes=converted.source_bytes,
        versions={name: metadata.version(name) for name in _LIBRARIES},
        architecture=config.get("model_type"),
        parameters=converted.report.parameters,
        weight_types=converted.report.types,
        weight_bytes=converted.report.bytes,
        folder_bytes=sum(file.size for file in files.values()),
        positions=checkpoint.context_length(config),
        has_chat_template=checkpoint.has_chat_template(folder),
        has_openvino_tokenizer="openvino_tokenizer.xml" in files,
        genai=genai,
        created=datetime.now(UTC),
        duration_s=round(duration_s, 3),
        peak_memory_bytes=peak.total_bytes,
        peak_private_bytes=peak.private_bytes,
        files=files,
    )
