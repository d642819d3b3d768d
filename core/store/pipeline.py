"""Download and convert a model into the store: checks, conversion, manifest, final rename."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from core.catalogue import Int4Settings, Int8Settings, Precision
from core.errors import ConversionError, DiskFullError, ModelFilesError, NotEnoughMemoryError
from core.hardware.memory import peak_resident_bytes
from core.settings import Settings
from core.store import checkpoint
from core.store.estimate import estimate
from core.store.files import fingerprint, free_bytes, has_no_space, sha256
from core.store.folders import Folders
from core.store.genai_check import genai_check
from core.store.manifest import (
    FileRecord,
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
from core.store.weights_source import of_folder, original_folder, stored_ir

if TYPE_CHECKING:
    from core.store.convert import Converted
    from core.store.hub import Download, HubAccess, HubModel

_LIBRARIES = (
    "torch",
    "transformers",
    "optimum-intel",
    "openvino",
    "openvino-tokenizers",
    "nncf",
)


@dataclass(frozen=True)
class _Weights:
    """Weights on disk, ready for conversion."""

    folder: Path
    record: SourceRecord
    lock: Precision | None = None
    """Precision of the stored model if one is converted: it must not be deleted meanwhile."""
    gguf: GgufRecord | None = None
    """Of the stored model that is converted, if it comes from a GGUF file."""


def download(
    source: Source,
    settings: Settings,
    folders: Folders,
    report: ProgressCallback,
    access: HubAccess | None,
) -> Download:
    """Download a model from the hub, resuming an earlier attempt.

    Blocks while another process downloads the same model, and then returns its result.

    Raises:
        PaddockError: see :func:`core.store.hub.fetch`.
    """
    from core.store import hub

    folder = settings.downloads_dir / source.key
    with folders.lock(source.key, None, report):
        return hub.fetch(str(source.location), folder, report, access=access)


@dataclass(frozen=True)
class Conversion:
    """One conversion into the store; the caller holds the lock of its model and precision."""

    source: Source
    precision: Precision
    int4: Int4Settings | None
    """Overrides the settings of the recipe."""
    int8: Int8Settings | None
    """Overrides the default INT8 settings."""
    settings: Settings
    folders: Folders
    report: ProgressCallback
    access: HubAccess | None

    def run(self) -> StoredModel:
        """Download and convert the model, and move the result into the store.

        Raises:
            PaddockError: see :meth:`core.store.store.ModelStore.ensure`.
        """
        source = self.source
        with self._clear_errors():
            self.folders.remove_leftovers(source.key, self.precision)
            weights = self._weights()
            self._check_room()
            # The lock of the lower precision is held already, and no precision is converted from a
            # lower one, so a deadlock is not possible.
            in_use = (
                self.folders.lock(source.key, weights.lock, self.report)
                if weights.lock is not None
                else nullcontext()
            )
            with in_use:
                return self._convert(weights)

    def _check_room(self, hub: HubModel | None = None) -> None:
        estimate(self.source, self.precision, self.settings, int4=self.int4, hub=hub).check()

    # Source of the weights

    def _weights(self) -> _Weights:
        """Return the original's files, another IR of the model in the store, or a download."""
        source, revision = self.source, None
        folder = original_folder(source, self.settings)
        if folder is None:
            stored = stored_ir(source, self.precision, self.settings)
            if stored is not None and stored.folder is not None and stored.manifest is not None:
                manifest = stored.manifest
                return _Weights(stored.folder, manifest.source, stored.precision, manifest.gguf)
        if source.kind is SourceKind.HUB:
            folder, revision = self._downloaded(complete=folder is not None)
        record = SourceRecord(
            kind=source.kind,
            location=str(source.location),
            revision=revision,
            fingerprint=fingerprint(source),
        )
        return _Weights(Path(folder or source.location), record)

    def _downloaded(self, *, complete: bool) -> tuple[Path, str | None]:
        from core.store import hub

        source = self.source
        if not complete:
            if source.model is not None:  # the catalogue knows its shape
                self._check_room()
            self._check_room(hub.describe(str(source.location), self.access))
        done = download(source, self.settings, self.folders, self.report, self.access)
        return original_folder(source, self.settings) or done.folder, done.revision

    # Conversion

    def _convert(self, weights: _Weights) -> StoredModel:
        key, precision = self.source.key, self.precision
        work = self.folders.new_work(key, precision)
        finished = work / "model"
        try:
            finished.mkdir(parents=True)
            (work / "export").mkdir()
            started = time.monotonic()
            converted = self._converted(weights.folder, work)
            manifest = self._manifest(weights, finished, converted, started)
            write_manifest(finished, manifest)
            self.report(Progress(Stage.SAVING, "Moving the model into the store.", 0.98))
            target = self.folders.path(key, precision)
            if target.exists():  # converted before the source changed
                self.folders.discard(target, key, precision)
            target.parent.mkdir(parents=True, exist_ok=True)
            finished.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return StoredModel(key, precision, target, manifest)

    def _converted(self, folder: Path, work: Path) -> Converted:
        source = self.source
        self.report(Progress(Stage.EXPORTING, "Loading the conversion libraries.", 0.02))
        from core.store import convert

        int4 = self.int4
        if int4 is None:
            parameters = of_folder(folder).parameters if self.precision.int4 else None
            int4 = source.int4_settings(self.precision, parameters)
        target = convert.Target(
            folder=work / "model",
            precision=self.precision,
            int4=int4,
            int8=self.int8 or Int8Settings(),
        )
        if folder.is_file():
            sampling = source.model.sampling if source.model else None
            return convert.convert_gguf(folder, target, work / "export", self.report, sampling)
        if checkpoint.is_ir(folder):
            return convert.convert_ir(folder, target, self.report)
        info = checkpoint.inspect_checkpoint(folder)
        return convert.convert_checkpoint(info, target, work / "export", self.report)

    def _manifest(
        self, weights: _Weights, folder: Path, converted: Converted, started: float
    ) -> Manifest:
        """Check the converted model in ``folder`` with GenAI, and describe it."""
        self.report(Progress(Stage.CHECKING, "Checking the model with OpenVINO GenAI.", 0.88))
        genai = genai_check(folder, self.settings.genai_checks_file)
        self.report(Progress(Stage.CHECKING, "Recording sizes and checksums.", 0.9))
        config = checkpoint.read_json(folder / "config.json")
        files = {
            path.name: FileRecord(
                size=path.stat().st_size, sha256=sha256(path), mtime_ns=path.stat().st_mtime_ns
            )
            for path in sorted(folder.iterdir())
            if path.is_file()
        }
        report = converted.report
        int4 = converted.int4 and Int4Record(
            symmetric=report.symmetric,
            group_size=converted.int4.group_size,
            ratio=converted.int4.ratio,
            group_sizes=report.group_sizes,
            four_bit_share=report.four_bit_share,
            layer_share=report.layer_share,
            scale_estimation="scale_estimation" in report.methods,
            awq="awq" in report.methods,
        )
        return Manifest(
            key=self.source.key,
            title=self.source.title,
            source=weights.record,
            precision=self.precision,
            int4=int4,
            int8=converted.int8 and Int8Record(symmetric=converted.int8.symmetric),
            gguf=converted.gguf or weights.gguf,
            source_of_weights=converted.source_of_weights,
            source_bytes=converted.source_bytes,
            versions={name: metadata.version(name) for name in _LIBRARIES},
            architecture=config.get("model_type"),
            parameters=report.parameters,
            weight_types=report.types,
            weight_formats=report.formats,
            weight_bytes=report.bytes,
            folder_bytes=sum(file.size for file in files.values()),
            positions=checkpoint.context_length(config),
            has_chat_template=checkpoint.has_chat_template(folder),
            genai=genai,
            created=datetime.now(UTC),
            duration_s=round(time.monotonic() - started, 3),
            peak_memory_bytes=peak_resident_bytes(),
            files=files,
        )

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Convert exceptions caused by a full disk or lack of memory to errors that say so."""
        title = self.source.title
        try:
            yield
        except MemoryError as error:
            raise NotEnoughMemoryError(
                f"The memory ran out while converting {title}. Close other programs or unload "
                "models, and try again."
            ) from error
        except (OSError, ConversionError, ModelFilesError) as error:
            # OpenVINO reports a full disk with its own error, or writes a truncated file without
            # an error.
            if has_no_space(error) or free_bytes(self.folders.models) < 2**20:
                raise DiskFullError(
                    f"The disk became full while converting {title}, so nothing was kept. Free "
                    "disk space and try again."
                ) from error
            if isinstance(error, OSError):
                raise ConversionError(
                    f"{title} could not be converted ({error}). Check the home folder "
                    f"{self.settings.home} and try again."
                ) from error
            raise
