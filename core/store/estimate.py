"""Estimate the download, disk, memory and time of a conversion before it starts.

The sizes follow from the shape and from how NNCF stores compressed weights. Memory and time are
formulas fitted to measurements of this code (``python -m tests.big_checkpoint`` creates the
checkpoints they were measured with); the time is corrected by the duration of earlier conversions
on this machine.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.catalogue import Int4Settings, Precision, default_int4
from core.errors import CorruptModelError, DiskFullError, NotEnoughMemoryError
from core.hardware.devices import available_memory_bytes
from core.settings import Settings
from core.store.files import free_bytes
from core.store.manifest import MANIFEST_NAME, Manifest, read_manifest
from core.store.resolver import Source, SourceKind
from core.store.weights_source import Origin, find_origin
from core.units import bytes_text

if TYPE_CHECKING:
    from core.store.hub import HubModel

LARGE_MODEL = 1_000_000_000
"""Number of parameters above which an FP32 checkpoint is loaded as FP16 for INT8 and INT4: the
scales are FP16 anyway, and it halves the memory."""

_SCALE_BYTES = 2.0
"""One FP16 scale per group or output channel."""

_ZERO_POINT_BYTES = {Precision.INT8: 1.0, Precision.INT4: 0.5}

_GRAPH_BYTES_PER_LAYER = 120_000
"""Size of the XML of one transformer layer."""

_DEFAULT_LAYERS = 32
"""Number of layers if the configuration does not specify it."""

_TOKENIZER_BYTES_PER_TOKEN = 110
"""Size of tokenizer.json, and of the tokenizer and detokenizer as OpenVINO models."""

_SPARE_BYTES = 16 * 2**20
"""Disk that must stay free, for records and logs."""

_LIBRARY_MEMORY = 0.46e9
"""Resident bytes after importing torch, transformers, Optimum, OpenVINO and NNCF."""

_EXPORT_MEMORY = 0.54e9
"""The same, with the code that is imported for tracing a model."""

_MEMORY_PER_LAYER = 6.5e6
"""Bytes of the graph of one layer while it is traced and saved."""

_COMPRESSION_MEMORY = 0.58e9
"""Resident bytes with the code for compression, and the pages of the weights being read."""

_LARGEST_MATRIX_WIDTH = 10.8
"""Bytes per weight that NNCF needs to compress the embeddings, of which it creates FP32 copies."""

_LAST_MATRIX_WIDTH = 2.0
"""The same for the output matrix, which is compressed last: all other compressed weights are in
memory by then."""

_LIBRARY_SECONDS = 8.0
"""Time to load the libraries and the tokenizer."""

_SECONDS_PER_BILLION = {
    Precision.FP32: 14.0,
    Precision.FP16: 10.0,
    Precision.INT8: 14.5,
    Precision.INT4: 17.5,
    Precision.STORED: 10.0,
}
"""Default rates for a checkpoint, measured with 2.8 B parameters, two cores, local SSD."""

_SECONDS_PER_BILLION_FROM_IR = {
    Precision.FP32: 2.0,
    Precision.FP16: 3.0,
    Precision.INT8: 7.0,
    Precision.INT4: 9.0,
}

_DEQUANTISING_SECONDS_PER_BILLION = 6.0
"""Additional time if the weights of a GGUF file are not kept as stored."""

_GGUF_MEMORY = 0.15e9
"""Resident bytes before a GGUF file is unpacked: OpenVINO is the only large library loaded."""

_UNPACKING_MEMORY = 8.0
"""Bytes per weight of the largest matrix while it is unpacked from a GGUF file."""

_SCALE_ESTIMATION_SECONDS = 20.0
_SCALE_ESTIMATION_SECONDS_PER_BILLION = 300.0
"""Additional time for scale estimation: the model generates texts, is run on them, and the scales
are fitted."""

_MAX_CORRECTION = 10.0
"""Largest factor by which earlier conversions correct the time, up or down: a single conversion
during much other work says nothing about the next."""

_NEAREST = 3
"""Number of earlier conversions used for the correction: those of the nearest size."""


@dataclass(frozen=True)
class Estimate:
    """Estimated needs of one conversion, and what is free now."""

    download_bytes: int
    """Bytes still to be downloaded."""
    disk_bytes: int
    """Size of the result."""
    scratch_bytes: int
    """Additional disk space needed while the conversion runs."""
    memory_bytes: int
    """Peak resident set size of the conversion process."""
    seconds: float
    """Approximate duration of the conversion on this machine, without the download."""
    free_disk: int
    free_memory: int
    problem: str | None
    """Message if disk or memory is not sufficient; None otherwise."""
    short_of_memory: bool = False
    """Whether ``problem`` is about memory instead of disk space."""

    def check(self) -> None:
        """Raise an error if disk or memory is not sufficient.

        Raises:
            DiskFullError, NotEnoughMemoryError: with :attr:`problem` as message.
        """
        if self.problem is not None:
            raise (NotEnoughMemoryError if self.short_of_memory else DiskFullError)(self.problem)


def estimate(
    source: Source,
    precision: Precision,
    settings: Settings,
    *,
    int4: Int4Settings | None = None,
    hub: HubModel | None = None,
) -> Estimate:
    """Estimate the conversion of ``source`` to this precision.

    Args:
        source: from :func:`core.store.resolver.resolve`.
        precision: of the resulting weights.
        settings: for the home folder.
        int4: overrides the catalogue's INT4 settings.
        hub: from :func:`core.store.hub.describe`; required for a Hugging Face id that is neither
            in the catalogue nor downloaded.

    Raises:
        UserError: ``hub`` is required and missing, or the source cannot be converted to this
            precision.
        NotAModelError, CorruptModelError: a local source cannot be used.
    """
    origin = find_origin(source, precision, settings, hub)
    chosen = int4 or (source.model.int4 if source.model else default_int4())
    result = result_bytes(origin, precision, chosen)
    scratch = scratch_bytes(origin, precision)
    download = _remaining_bytes(source, origin, settings)
    memory = peak_memory(origin, precision, chosen)
    free_disk = free_bytes(settings.home)
    free_memory = available_memory_bytes()
    problem, short_of_memory = None, False
    on_disk = download + result + scratch + _SPARE_BYTES
    if on_disk > free_disk:
        problem = (
            f"Converting {source.title} {precision.aim} needs {bytes_text(on_disk)} on disk "
            f"and {bytes_text(free_disk)} are free. Free disk space, or set PADDOCK_HOME to a "
            "larger disk."
        )
    elif memory > free_memory:
        short_of_memory = True
        problem = (
            f"Converting {source.title} {precision.aim} needs {bytes_text(memory)} of memory "
            f"and {bytes_text(free_memory)} are free. Close other programs or unload models."
        )
    return Estimate(
        download_bytes=download,
        disk_bytes=result,
        scratch_bytes=scratch,
        memory_bytes=memory,
        seconds=_seconds(origin, precision, chosen, settings),
        free_disk=free_disk,
        free_memory=free_memory,
        problem=problem,
        short_of_memory=short_of_memory,
    )


def result_bytes(origin: Origin, precision: Precision, int4: Int4Settings) -> int:
    """Return the size in bytes of the converted model's folder."""
    count, hidden, vocabulary = origin.parameters, 4096, 0
    other = _GRAPH_BYTES_PER_LAYER * _DEFAULT_LAYERS
    if origin.shape is not None:
        shape = origin.shape
        hidden, vocabulary = shape.hidden, shape.vocabulary
        other = _GRAPH_BYTES_PER_LAYER * shape.layers + _TOKENIZER_BYTES_PER_TOKEN * vocabulary
    tied = origin.shape is not None and origin.shape.tied_embeddings
    outside = min(vocabulary * hidden * (1 if tied else 2), count)
    per_int8 = 1 + (_SCALE_BYTES + _ZERO_POINT_BYTES[Precision.INT8]) / hidden
    match precision:
        case Precision.FP32:
            weights = 4.0 * count
        case Precision.FP16:
            weights = 2.0 * count
        case Precision.INT8:
            weights = per_int8 * count
        case Precision.INT4:
            zero_point = 0.0 if int4.symmetric else _ZERO_POINT_BYTES[Precision.INT4]
            group = int4.group_size if int4.group_size > 0 else hidden
            per_int4 = 0.5 + (_SCALE_BYTES + zero_point) / group
            mixed = int4.ratio * per_int4 + (1 - int4.ratio) * per_int8
            weights = per_int8 * outside + mixed * (count - outside)
        case Precision.STORED:
            weights = float(origin.weight_bytes)
    return int(weights + other)


def scratch_bytes(origin: Origin, precision: Precision) -> int:
    """Return the disk space in bytes for the export before compression, 0 if there is none."""
    if origin.is_ir or precision not in (Precision.INT8, Precision.INT4):
        return 0
    return int(origin.parameters * loaded_width(origin, precision))


def loaded_width(origin: Origin, precision: Precision) -> int:
    """Return the bytes per parameter of a checkpoint when loaded for this precision."""
    if precision is Precision.FP32:
        return 4
    if precision is Precision.FP16 or origin.dtype in ("float16", "bfloat16"):
        return 2
    return 2 if origin.parameters > LARGE_MODEL else 4


def peak_memory(origin: Origin, precision: Precision, int4: Int4Settings) -> int:
    """Return the peak resident set size in bytes of the conversion process, including
    memory-mapped files."""
    if origin.is_ir and origin.precision is precision:
        return int(_LIBRARY_MEMORY)  # the weight file is linked or copied
    stages = [_LIBRARY_MEMORY]
    if origin.is_gguf:
        kept = precision in (Precision.STORED, Precision.FP32)
        built = result_bytes(origin, precision if kept else Precision.FP16, int4)
        matrix = origin.shape.vocabulary * origin.shape.hidden if origin.shape else 0
        stages.append(_GGUF_MEMORY + built + origin.weight_bytes + _UNPACKING_MEMORY * matrix)
    if precision in (Precision.INT8, Precision.INT4):
        stages.append(_compression_memory(origin, precision, int4))
    elif origin.is_ir:
        stages.append(_LIBRARY_MEMORY + origin.weight_bytes)  # mapped, and rounded while saved
    if not (origin.is_ir or origin.is_gguf):
        layers = origin.shape.layers if origin.shape else _DEFAULT_LAYERS
        exporting = _EXPORT_MEMORY + _MEMORY_PER_LAYER * layers
        loaded = origin.parameters * loaded_width(origin, precision)
        if loaded_as_stored(origin, precision):
            stages.append(exporting + loaded)  # weights stay memory-mapped
        else:
            stages.append(_LIBRARY_MEMORY + loaded + origin.weight_bytes)
            stages.append(exporting + loaded)
    return int(max(stages))


def loaded_as_stored(origin: Origin, precision: Precision) -> bool:
    """Return whether a checkpoint is loaded in the dtype of its files."""
    if precision is Precision.FP32:
        return origin.dtype == "float32"
    if precision is Precision.FP16:
        return origin.dtype == "float16"
    return loaded_width(origin, precision) == (2 if origin.dtype != "float32" else 4)


def _compression_memory(origin: Origin, precision: Precision, int4: Int4Settings) -> float:
    """Return the peak while NNCF compresses: at the embeddings or at the end, see the constants."""
    matrix = origin.shape.vocabulary * origin.shape.hidden if origin.shape else 0
    result = result_bytes(origin, precision, int4)
    working = max(_LARGEST_MATRIX_WIDTH * matrix, result + _LAST_MATRIX_WIDTH * matrix)
    if precision is Precision.INT4 and int4.scale_estimation:
        width = 2 if origin.is_ir else loaded_width(origin, precision)
        working += 2 * width * origin.parameters  # inference maps the weights and repacks them
    return _COMPRESSION_MEMORY + working


def missing_bytes(source: Source, settings: Settings, hub: HubModel | None = None) -> int:
    """Return the bytes still to be downloaded before a model can be converted.

    Raises:
        UserError: unknown, see :func:`estimate`.
        NotAModelError, CorruptModelError: a local source cannot be used.
    """
    if source.kind is not SourceKind.HUB:
        return 0
    return _remaining_bytes(source, find_origin(source, Precision.INT8, settings, hub), settings)


def _remaining_bytes(source: Source, origin: Origin, settings: Settings) -> int:
    if origin.folder is not None or source.kind is not SourceKind.HUB:
        return 0
    from core.store import hub

    return max(0, origin.fetch_bytes - hub.fetched_bytes(settings.downloads_dir / source.key))


def _seconds(origin: Origin, precision: Precision, int4: Int4Settings, settings: Settings) -> float:
    default = _default_seconds(
        origin.parameters,
        precision,
        from_ir=origin.is_ir,
        from_gguf=origin.is_gguf,
        scale_estimation=precision is Precision.INT4 and int4.scale_estimation,
    )
    return default * _correction(origin.parameters, precision, settings.models_dir)


def _default_seconds(
    parameters: int,
    precision: Precision,
    *,
    from_ir: bool,
    from_gguf: bool,
    scale_estimation: bool,
) -> float:
    kept = precision is Precision.STORED
    rates = _SECONDS_PER_BILLION
    if from_ir or (from_gguf and not kept):
        rates = _SECONDS_PER_BILLION_FROM_IR
    seconds = _LIBRARY_SECONDS + rates[precision] * parameters / 1e9
    if from_gguf and not kept:
        seconds += _DEQUANTISING_SECONDS_PER_BILLION * parameters / 1e9
    if scale_estimation:
        seconds += _SCALE_ESTIMATION_SECONDS
        seconds += _SCALE_ESTIMATION_SECONDS_PER_BILLION * parameters / 1e9
    return seconds


def _correction(parameters: int, precision: Precision, models: Path) -> float:
    """Return the ratio of actual to default durations of the most similar earlier conversions."""
    done = [item for item in _manifests(models) if item.duration_s > 0 and item.parameters > 0]
    similar = [item for item in done if item.precision is precision] or done
    similar.sort(key=lambda item: abs(math.log(item.parameters / max(parameters, 1))))
    if not similar:
        return 1.0
    ratio = statistics.median(_duration_ratio(item) for item in similar[:_NEAREST])
    return min(max(ratio, 1 / _MAX_CORRECTION), _MAX_CORRECTION)


def _duration_ratio(done: Manifest) -> float:
    default = _default_seconds(
        done.parameters,
        done.precision,
        from_ir=done.source_of_weights == "ir",
        from_gguf=done.source_of_weights == "gguf",
        scale_estimation=done.int4 is not None and done.int4.scale_estimation,
    )
    return done.duration_s / default


def _manifests(models: Path) -> list[Manifest]:
    found = []
    for path in models.glob(f"[!.]*/*/{MANIFEST_NAME}"):
        try:
            found.append(read_manifest(path.parent))
        except CorruptModelError:
            continue
    return found
