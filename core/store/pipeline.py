"""How a model that is not in the store yet gets there."""

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
class Wish:
    """What is to come out of a conversion."""

    precision: Precision
    int4: Int4Settings | None = None
    """Overrides the catalogue's."""
    int8: Int8Settings | None = None
    """Overrides the usual ones."""


@dataclass(frozen=True)
class _Weights:
    """Weights on disk, ready to be converted."""

    folder: Path
    record: SourceRecord
    lock: Precision | None = None
    """Precision of the stored model that they are, which must not be deleted meanwhile."""
    gguf: GgufRecord | None = None
    """Of the stored model that they are, where it came from a GGUF file."""


class Maker:
    """Makes one model; the caller holds the lock of its key and precision."""

    def __init__(
        self,
        settings: Settings,
        folders: Folders,
        tell: ProgressCallback,
        access: HubAccess | None,
        cancel: threading.Event | None,
    ) -> None:
        self._settings = settings
        self._folders = folders
        self._tell = tell
        self._access = access
        self._cancel = cancel

    def make(self, source: Source, wish: Wish) -> StoredModel:
        """Fetch and convert ``source`` and put the result in its place.

        Raises:
            PaddockError: see :meth:`core.store.store.ModelStore.ensure`.
        """
        with self._room_for(source):
            self._folders.remove_leftovers(source.key, wish.precision)
            weights = self._weights(source, wish)
            estimate(source, wish.precision, self._settings, int4=wish.int4).check()
            with self._held(source, weights):
                return self._convert(source, wish, weights)

    def _convert(self, source: Source, wish: Wish, weights: _Weights) -> StoredModel:
        work = self._folders.new_work(source.key, wish.precision)
        finished = work / "model"
        try:
            finished.mkdir(parents=True)
            (work / "export").mkdir()
            started = time.monotonic()
            with PeakMemory() as peak:
                made = _run(source, wish, weights.folder, work, self._tell)
            self._tell(Progress(Stage.CHECKING, "Checking it with OpenVINO GenAI.", 0.88))
            genai = genai_check(finished, self._settings.genai_checks_file)
            self._tell(Progress(Stage.CHECKING, "Recording sizes and checksums.", 0.9))
            manifest = _describe(
                source=source,
                record=weights.record,
                gguf=weights.gguf,
                folder=finished,
                precision=wish.precision,
                made=made,
                genai=genai,
                duration_s=time.monotonic() - started,
                peak=peak,
            )
            write_manifest(finished, manifest)
            self._tell(Progress(Stage.SAVING, "Putting the model in its place.", 0.98))
            target = self._folders.of(source.key, wish.precision)
            if target.exists():  # its source has changed since
                self._folders.discard(target, source.key, wish.precision)
            target.parent.mkdir(parents=True, exist_ok=True)
            finished.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return StoredModel(source.key, wish.precision, target, manifest)

    # Where the weights come from

    def _weights(self, source: Source, wish: Wish) -> _Weights:
        """The original's files, another IR of the model in the store, or a download."""
        folder = original_folder(source, self._settings)
        if folder is None:
            stored = stored_ir(source, wish.precision, self._settings)
            if stored is not None and stored.folder is not None and stored.manifest is not None:
                manifest = stored.manifest
                return _Weights(stored.folder, manifest.source, stored.precision, manifest.gguf)
        revision = None
        if source.kind is SourceKind.HUB:
            folder, revision = self._fetched(source, wish, known=folder is not None)
        record = SourceRecord(
            kind=source.kind,
            location=str(source.location),
            revision=revision,
            fingerprint=fingerprint(source),
        )
        return _Weights(Path(folder or source.location), record)

    def _fetched(self, source: Source, wish: Wish, *, known: bool) -> tuple[Path, str | None]:
        if source.model is not None and not known:  # its shape tells before anything is fetched
            estimate(source, wish.precision, self._settings, int4=wish.int4).check()
        download = self.fetch(source)
        return download.folder, download.revision

    def fetch(self, source: Source) -> Download:
        """Fetch a model of the hub, or go on where an earlier attempt ended.

        Raises:
            PaddockError: see :func:`core.store.hub.fetch`.
        """
        from core.store import hub

        with self._folders.lock(source.key, None, self._tell, self._cancel):
            return hub.fetch(
                str(source.location),
                self._settings.downloads_dir / source.key,
                self._tell,
                access=self._access,
                cancel=self._cancel,
            )

    @contextmanager
    def _held(self, source: Source, weights: _Weights) -> Iterator[None]:
        """Keep a stored model that is converted from being deleted meanwhile.

        The lock of the lower precision is held already, and no precision is made from a lower one:
        nobody can wait in a circle.
        """
        if weights.lock is None:
            context = nullcontext()
        else:
            context = self._folders.lock(source.key, weights.lock, self._tell, self._cancel)
        with context:
            yield

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
            if has_no_space(error) or free_bytes(self._folders.models) < 2**20:
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


def _run(source: Source, wish: Wish, folder: Path, work: Path, tell: ProgressCallback) -> Converted:
    tell(Progress(Stage.EXPORTING, "Loading the conversion libraries.", 0.02))
    from core.store import convert

    target = convert.Target(
        folder=work / "model",
        precision=wish.precision,
        int4=wish.int4 or (source.model.int4 if source.model else default_int4()),
        int8=wish.int8 or Int8Settings(),
    )
    if folder.is_file():
        sampling = source.model.sampling if source.model else None
        return convert.convert_gguf(folder, target, work / "export", tell, sampling)
    if checkpoint.is_ir(folder):
        return convert.convert_ir(folder, target, tell)
    info = checkpoint.inspect_checkpoint(folder)
    return convert.convert_checkpoint(info, target, work / "export", tell)


def _describe(
    *,
    source: Source,
    record: SourceRecord,
    gguf: GgufRecord | None,
    folder: Path,
    precision: Precision,
    made: Converted,
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
    int4 = made.int4 and Int4Record(
        symmetric=made.int4.symmetric,
        group_size=made.int4.group_size,
        ratio=made.int4.ratio,
        group_sizes=made.report.group_sizes,
        four_bit_share=made.report.four_bit_share,
        scale_estimation=made.int4.scale_estimation,
    )
    return Manifest(
        key=source.key,
        title=source.title,
        source=record,
        precision=precision,
        int4=int4,
        int8=made.int8 and Int8Record(symmetric=made.int8.symmetric),
        gguf=made.gguf or gguf,
        source_of_weights=made.source_of_weights,
        source_bytes=made.source_bytes,
        versions={name: metadata.version(name) for name in _LIBRARIES},
        architecture=config.get("model_type"),
        parameters=made.report.parameters,
        weight_types=made.report.types,
        weight_bytes=made.report.bytes,
        folder_bytes=sum(file.size for file in files.values()),
        positions=checkpoint.positions(config),
        has_chat_template=checkpoint.has_chat_template(folder),
        has_openvino_tokenizer="openvino_tokenizer.xml" in files,
        genai=genai,
        created=datetime.now(UTC),
        duration_s=round(duration_s, 3),
        peak_memory_bytes=peak.total_bytes,
        peak_private_bytes=peak.private_bytes,
        files=files,
    )
