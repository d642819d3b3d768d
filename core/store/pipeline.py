"""Download and convert a model into the store: checks, conversion, manifest, final rename."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from core.catalogue import Compression, Int4Settings, Int8Settings, Precision
from core.errors import ConversionError, DiskFullError, ModelFilesError, NotEnoughMemoryError
from core.hardware.memory import peak_resident_bytes
from core.settings import Settings
from core.store import checkpoint
from core.store.checkpoint import Origin
from core.store.estimate import estimate
from core.store.files import fingerprint, free_bytes, has_no_space, sha256
from core.store.folders import Folders
from core.store.genai_check import genai_check
from core.store.manifest import FileRecord, Int4Record, Manifest, SourceRecord, write_manifest
from core.store.progress import Progress, ProgressCallback, Stage
from core.store.resolver import Source, SourceKind
from core.store.stored import StoredModel
from core.store.weights import WeightReport, read_weights
from core.store.weights_source import find_origin, original_folder, stored_ir

if TYPE_CHECKING:
    from core.store.hub import HubAccess, HubModel

_LIBRARIES = ("torch", "transformers", "optimum-intel", "openvino", "openvino-tokenizers", "nncf")


def download(
    source: Source,
    settings: Settings,
    folders: Folders,
    report: ProgressCallback,
    access: HubAccess | None,
) -> str:
    """Do what :func:`core.store.hub.fetch` does, into the home folder.

    Blocks while another process downloads the same model, and then returns its result.
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
    compression: Compression | None
    """Overrides the settings of the recipe, or the default INT8 settings."""
    settings: Settings
    folders: Folders
    report: ProgressCallback
    access: HubAccess | None

    def run(self) -> StoredModel:
        """Download and convert the model, and move the result into the store; errors as in
        :meth:`core.store.store.ModelStore.ensure`."""
        source, settings = self.source, self.settings
        with self._clear_errors():
            self.folders.remove_leftovers(source.key, self.precision)
            revision = self._downloaded_revision()
            self._check_room()
            origin = find_origin(source, self.precision, settings)
            if origin.folder is None:  # another process has just deleted what it was to come from
                raise ConversionError(f"{source.title} changed during the conversion. Try again.")
            if origin.manifest is None:
                record = SourceRecord(
                    kind=source.kind,
                    location=str(source.location),
                    revision=revision,
                    fingerprint=fingerprint(source),
                )
                return self._convert(origin, record)
            # It must not be deleted meanwhile. The lock of the lower precision is held already, and
            # no precision is converted from a lower one, so a deadlock is not possible.
            with self.folders.lock(source.key, origin.precision, self.report):
                return self._convert(origin, origin.manifest.source)

    def _check_room(self, hub: HubModel | None = None) -> None:
        int4 = self.compression if isinstance(self.compression, Int4Settings) else None
        estimate(self.source, self.precision, self.settings, int4=int4, hub=hub).check()

    def _downloaded_revision(self) -> str | None:
        """Download a model of the hub, unless another IR of it is stored; return its revision."""
        from core.store import hub

        source, settings = self.source, self.settings
        if source.kind is not SourceKind.HUB:
            return None
        if original_folder(source, settings) is None:
            if stored_ir(source, self.precision, settings) is not None:
                return None
            if source.model is not None:  # the catalogue knows its shape
                self._check_room()
            self._check_room(hub.describe(str(source.location), self.access))
        return download(source, settings, self.folders, self.report, self.access)

    def _convert(self, origin: Origin, record: SourceRecord) -> StoredModel:
        key, precision = self.source.key, self.precision
        work = self.folders.new_work(key, precision)
        finished = work / "model"
        try:
            finished.mkdir(parents=True)
            (work / "export").mkdir()
            manifest = self._converted(origin, record, work)
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

    def _converted(self, origin: Origin, record: SourceRecord, work: Path) -> Manifest:
        """Convert the weights into ``work/model``, check it with GenAI, and describe it."""
        source, precision, folder = self.source, self.precision, work / "model"
        started = time.monotonic()
        self.report(Progress(Stage.EXPORTING, "Loading the conversion libraries.", 0.02))
        from core.store.convert import convert

        settings = self.compression if precision.compressed else None
        if precision.int4 and not isinstance(settings, Int4Settings):
            settings = source.int4_settings(precision, origin.parameters)
        elif precision is Precision.INT8 and not isinstance(settings, Int8Settings):
            settings = Int8Settings()
        sampling = source.model.sampling if source.model else None
        used, gguf = convert(origin.folder, work, precision, settings, self.report, sampling)
        self.report(Progress(Stage.CHECKING, "Checking the model with OpenVINO GenAI.", 0.88))
        genai = genai_check(folder)
        self.report(Progress(Stage.CHECKING, "Recording sizes and checksums.", 0.9))
        config = checkpoint.read_json(folder / "config.json")
        files = {
            path.name: FileRecord(
                size=path.stat().st_size, sha256=sha256(path), mtime_ns=path.stat().st_mtime_ns
            )
            for path in sorted(folder.iterdir())
            if path.is_file()
        }
        report = read_weights(folder)
        return Manifest(
            key=source.key,
            title=source.title,
            source=record,
            precision=precision,
            int4=_int4_record(report, used) if precision.int4 else None,
            int8=used if precision is Precision.INT8 else None,
            gguf=gguf or (origin.manifest and origin.manifest.gguf),
            source_of_weights=(
                "gguf" if origin.is_gguf else "ir" if origin.is_ir else "checkpoint"
            ),
            source_bytes=origin.weight_bytes,
            versions={name: metadata.version(name) for name in _LIBRARIES},
            architecture=config.get("model_type"),
            parameters=report.parameters,
            weight_types=report.types,
            weight_formats=report.formats,
            weight_bytes=report.bytes,
            folder_bytes=sum(file.size for file in files.values()),
            positions=checkpoint.context_length(config),
            has_chat_template=bool(checkpoint.chat_template(folder)),
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


def _int4_record(report: WeightReport, used: Int4Settings | None) -> Int4Record:
    """Describe INT4 weights, for which NNCF has used these settings; None for an imported IR."""
    if used is None:
        common = max(report.group_sizes, key=report.group_sizes.__getitem__)
        used = Int4Settings(report.symmetric, common, round(report.layer_share, 2))
    return Int4Record(
        symmetric=report.symmetric,
        group_size=used.group_size,
        ratio=used.ratio,
        group_sizes=report.group_sizes,
        four_bit_share=report.four_bit_share,
        layer_share=report.layer_share,
        scale_estimation="scale_estimation" in report.methods,
        awq="awq" in report.methods,
    )
