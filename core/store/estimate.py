"""What fetching and converting a model will take here, said before it starts.

The sizes follow from the shape and from how NNCF lays out compressed weights. The memory and the
time are rules fitted to measurements of this code (``python -m tests.big_checkpoint`` makes the
checkpoints they were taken with); the time is corrected by what earlier conversions on this machine
took.
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
"""Parameters above which an FP32 checkpoint is loaded as FP16 for INT8 and INT4: the scales are
FP16 anyway and it halves the memory."""

_SCALE_BYTES = 2.0
"""One FP16 scale per group or output channel."""

_ZERO_POINT_BYTES = {Precision.INT8: 1.0, Precision.INT4: 0.5}

_GRAPH_BYTES_PER_LAYER = 120_000
"""The XML of one transformer layer."""

_USUAL_LAYERS = 32
"""Of a model whose configuration does not tell."""

_TOKENIZER_BYTES_PER_TOKEN = 110
"""tokenizer.json, and the tokenizer and detokenizer as OpenVINO models."""

_SPARE_BYTES = 16 * 2**20
"""Disk that must stay free, for records and logs."""

_LIBRARY_MEMORY = 0.46e9
"""Bytes resident once torch, transformers, Optimum, OpenVINO and NNCF are loaded."""

_EXPORT_MEMORY = 0.54e9
"""The same with the code that tracing a model brings in."""

_MEMORY_PER_LAYER = 6.5e6
"""What the graph of a layer takes while it is traced and written."""

_COMPRESSION_MEMORY = 0.58e9
"""The same with the code of a compression, and the pages of the weights it reads just then."""

_LARGEST_MATRIX_WIDTH = 10.8
"""Bytes per weight that NNCF needs to compress the embeddings, of which it makes FP32 copies."""

_LAST_MATRIX_WIDTH = 2.0
"""The same for the output matrix, which comes last: all that was made before is there then."""

_LIBRARY_SECONDS = 8.0
"""To load the libraries and the tokenizer."""

_SECONDS_PER_BILLION = {
    Precision.FP32: 14.0,
    Precision.FP16: 10.0,
    Precision.INT8: 14.5,
    Precision.INT4: 17.5,
    Precision.STORED: 10.0,
}
"""Default rates from a checkpoint: 2.8 B parameters, two cores, local SSD."""

_SECONDS_PER_BILLION_FROM_IR = {
    Precision.FP32: 2.0,
    Precision.FP16: 3.0,
    Precision.INT8: 7.0,
    Precision.INT4: 9.0,
}

_DEQUANTISING_SECONDS_PER_BILLION = 6.0
"""Further time where a GGUF file's weights are not kept as they are."""

_GGUF_MEMORY = 0.15e9
"""Bytes resident before a GGUF file is unpacked: of the heavy libraries, OpenVINO alone."""

_UNPACKING_MEMORY = 8.0
"""Bytes per weight of the largest matrix while it is taken out of a GGUF file."""

_SCALE_ESTIMATION_SECONDS = 20.0
_SCALE_ESTIMATION_SECONDS_PER_BILLION = 300.0
"""Further time for scale estimation: the model writes, is run once more, and is fitted."""

_MOST_UNUSUAL = 10.0
"""How many times faster or slower than usual a machine is believed to be: one conversion beside
much other work says nothing about the next."""

_NEAREST = 3
"""Earlier conversions that correct the time: those of the nearest size."""


@dataclass(frozen=True)
class Estimate:
    """What one conversion takes, against what is free now."""

    download_bytes: int
    """Still to be fetched; 0 where nothing is."""
    disk_bytes: int
    """Size of the result."""
    scratch_bytes: int
    """Further disk that the conversion needs for as long as it runs."""
    memory_bytes: int
    """Peak resident set size of the converting process."""
    seconds: float
    """Of the conversion alone, roughly, on this machine."""
    free_disk: int
    free_memory: int
    problem: str | None
    """One sentence where disk or memory does not suffice; None otherwise."""
    short_of_memory: bool = False
    """Whether ``problem`` is memory, and not the disk."""

    def check(self) -> None:
        """Refuse to start what cannot end well.

        Raises:
            DiskFullError, NotEnoughMemoryError: with :attr:`problem` as text.
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
    """What it takes to get ``source`` in this precision.

    Args:
        source: from :func:`core.store.resolver.resolve`.
        precision: of the weights of the result.
        settings: tells the home folder.
        int4: overrides the catalogue's INT4 settings.
        hub: what :func:`core.store.hub.describe` said; needed for a Hugging Face id that is neither
            in the catalogue nor fetched.

    Raises:
        PersonMistake: ``hub`` is needed and missing, or this precision cannot be had from this
            source.
        NotAModelError, CorruptModelError: a local source cannot be used.
    """
    origin = find_origin(source, precision, settings, hub)
    chosen = int4 or (source.model.int4 if source.model else default_int4())
    result = result_bytes(origin, precision, chosen)
    scratch = scratch_bytes(origin, precision)
    download = _still_to_fetch(source, origin, settings)
    memory = peak_memory(origin, precision, chosen)
    free_disk = free_bytes(settings.home)
    free_memory = available_memory_bytes()
    problem, short_of_memory = None, False
    on_disk = download + result + scratch + _SPARE_BYTES
    if on_disk > free_disk:
        problem = (
            f"Converting {source.title} {precision.aim} needs {bytes_text(on_disk)} on disk "
            f"and {bytes_text(free_disk)} are free; make room, or set PADDOCK_HOME to a larger "
            "disk."
        )
    elif memory > free_memory:
        short_of_memory = True
        problem = (
            f"Converting {source.title} {precision.aim} needs {bytes_text(memory)} of memory "
            f"and {bytes_text(free_memory)} are free; close other programs or unload models."
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
    """Size in bytes of the finished folder."""
    count, hidden, vocabulary = origin.parameters, 4096, 0
    beside = _GRAPH_BYTES_PER_LAYER * _USUAL_LAYERS
    if origin.shape is not None:
        shape = origin.shape
        hidden, vocabulary = shape.hidden, shape.vocabulary
        beside = _GRAPH_BYTES_PER_LAYER * shape.layers + _TOKENIZER_BYTES_PER_TOKEN * vocabulary
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
    return int(weights + beside)


def scratch_bytes(origin: Origin, precision: Precision) -> int:
    """Disk in bytes for the export before compression; 0 where there is none."""
    if origin.is_ir or precision not in (Precision.INT8, Precision.INT4):
        return 0
    return int(origin.parameters * loaded_width(origin, precision))


def loaded_width(origin: Origin, precision: Precision) -> int:
    """Bytes per parameter of a checkpoint as it is loaded for this precision."""
    if precision is Precision.FP32:
        return 4
    if precision is Precision.FP16 or origin.dtype in ("float16", "bfloat16"):
        return 2
    return 2 if origin.parameters > LARGE_MODEL else 4


def peak_memory(origin: Origin, precision: Precision, int4: Int4Settings) -> int:
    """Peak resident set size of the converting process in bytes, memory-mapped files included."""
    if origin.is_ir and origin.precision is precision:
        return int(_LIBRARY_MEMORY)  # its weight file is linked or copied
    stages = [_LIBRARY_MEMORY]
    if origin.is_gguf:
        kept = precision in (Precision.STORED, Precision.FP32)
        built = result_bytes(origin, precision if kept else Precision.FP16, int4)
        matrix = origin.shape.vocabulary * origin.shape.hidden if origin.shape else 0
        stages.append(_GGUF_MEMORY + built + origin.weight_bytes + _UNPACKING_MEMORY * matrix)
    if precision in (Precision.INT8, Precision.INT4):
        stages.append(_compressing(origin, precision, int4))
    elif origin.is_ir:
        stages.append(_LIBRARY_MEMORY + origin.weight_bytes)  # mapped, and rounded while written
    if not (origin.is_ir or origin.is_gguf):
        layers = origin.shape.layers if origin.shape else _USUAL_LAYERS
        exporting = _EXPORT_MEMORY + _MEMORY_PER_LAYER * layers
        loaded = origin.parameters * loaded_width(origin, precision)
        if loaded_as_stored(origin, precision):
            stages.append(exporting + loaded)  # weights stay mapped from their files
        else:
            stages.append(_LIBRARY_MEMORY + loaded + origin.weight_bytes)
            stages.append(exporting + loaded)
    return int(max(stages))


def loaded_as_stored(origin: Origin, precision: Precision) -> bool:
    """Whether a checkpoint's weights are used as they lie in its files."""
    if precision is Precision.FP32:
        return origin.dtype == "float32"
    if precision is Precision.FP16:
        return origin.dtype == "float16"
    return loaded_width(origin, precision) == (2 if origin.dtype != "float32" else 4)


def _compressing(origin: Origin, precision: Precision, int4: Int4Settings) -> float:
    """Peak while NNCF compresses: at the embeddings, or at the end; see the constants."""
    matrix = origin.shape.vocabulary * origin.shape.hidden if origin.shape else 0
    made = result_bytes(origin, precision, int4)
    working = max(_LARGEST_MATRIX_WIDTH * matrix, made + _LAST_MATRIX_WIDTH * matrix)
    if precision is Precision.INT4 and int4.scale_estimation:
        width = 2 if origin.is_ir else loaded_width(origin, precision)
        working += 2 * width * origin.parameters  # the model is run: mapped once, repacked once
    return _COMPRESSION_MEMORY + working


def missing_bytes(source: Source, settings: Settings, hub: HubModel | None = None) -> int:
    """What is still to be fetched before a model can be converted; 0 where all of it is here.

    Raises:
        PersonMistake: that is not known, see :func:`estimate`.
        NotAModelError, CorruptModelError: a local source cannot be used.
    """
    if source.kind is not SourceKind.HUB:
        return 0
    return _still_to_fetch(source, find_origin(source, Precision.INT8, settings, hub), settings)


def _still_to_fetch(source: Source, origin: Origin, settings: Settings) -> int:
    if origin.folder is not None or source.kind is not SourceKind.HUB:
        return 0
    from core.store import hub

    return max(0, origin.fetch_bytes - hub.fetched_bytes(settings.downloads_dir / source.key))


def _seconds(origin: Origin, precision: Precision, int4: Int4Settings, settings: Settings) -> float:
    fitted = precision is Precision.INT4 and int4.scale_estimation
    usual = _usual_seconds(
        origin.parameters,
        precision,
        from_ir=origin.is_ir,
        from_gguf=origin.is_gguf,
        fitted=fitted,
    )
    return usual * _pace(origin.parameters, precision, settings.models_dir)


def _usual_seconds(
    parameters: int, precision: Precision, *, from_ir: bool, from_gguf: bool, fitted: bool
) -> float:
    kept = precision is Precision.STORED
    rates = _SECONDS_PER_BILLION
    if from_ir or (from_gguf and not kept):
        rates = _SECONDS_PER_BILLION_FROM_IR
    seconds = _LIBRARY_SECONDS + rates[precision] * parameters / 1e9
    if from_gguf and not kept:
        seconds += _DEQUANTISING_SECONDS_PER_BILLION * parameters / 1e9
    if fitted:
        seconds += _SCALE_ESTIMATION_SECONDS
        seconds += _SCALE_ESTIMATION_SECONDS_PER_BILLION * parameters / 1e9
    return seconds


def _pace(parameters: int, precision: Precision, models: Path) -> float:
    """How much longer this machine took than usual, by the conversions most like this one."""
    done = [item for item in _manifests(models) if item.duration_s > 0 and item.parameters > 0]
    like = [item for item in done if item.precision is precision] or done
    like.sort(key=lambda item: abs(math.log(item.parameters / max(parameters, 1))))
    if not like:
        return 1.0
    pace = statistics.median(_slowness(item) for item in like[:_NEAREST])
    return min(max(pace, 1 / _MOST_UNUSUAL), _MOST_UNUSUAL)


def _slowness(done: Manifest) -> float:
    usual = _usual_seconds(
        done.parameters,
        done.precision,
        from_ir=done.source_of_weights == "ir",
        from_gguf=done.source_of_weights == "gguf",
        fitted=done.int4 is not None and done.int4.scale_estimation,
    )
    return done.duration_s / usual


def _manifests(models: Path) -> list[Manifest]:
    found = []
    for path in models.glob(f"[!.]*/*/{MANIFEST_NAME}"):
        try:
            found.append(read_manifest(path.parent))
        except CorruptModelError:
            continue
    return found
