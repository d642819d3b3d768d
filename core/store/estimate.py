"""Estimate the download, disk, memory and time of a conversion before it starts.

The sizes follow from the shape and from how NNCF stores compressed weights. Memory and time are
formulas fitted to measurements of this code on two cores (``python -m tests.big_checkpoint``
creates the checkpoints they were measured with).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.catalogue import Int4Settings, Precision, Shape
from core.catalogue.shapes import active_share
from core.errors import DiskFullError, NotEnoughMemoryError
from core.hardware.devices import available_memory_bytes
from core.settings import Settings
from core.store.checkpoint import Origin
from core.store.files import folder_bytes, free_bytes
from core.store.resolver import Source, SourceKind
from core.store.weights_source import find_origin
from core.units import bytes_text

if TYPE_CHECKING:
    from core.store.hub import HubModel

SMALLEST_GROUP = 16
"""Smallest INT4 group size that NNCF may fall back to if a layer's channels are not divisible by
the requested group size; with smaller groups the scales cost as much as the compression saves."""

_SCALE_BYTES = 2.0
"""One FP16 scale per group or output channel."""

_GRAPH_BYTES_PER_LAYER = 120_000
"""Size of the XML of one transformer layer."""

_TYPICAL_SHAPE = Shape(4096, 32, 32, 32, 4096, vocabulary=0, positions=0, tied_embeddings=True)
"""If the configuration does not specify all sizes."""

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
    Precision.FP32: (14.0, 2.0),
    Precision.FP16: (10.0, 3.0),
    Precision.INT8: (14.5, 7.0),
    Precision.INT4: (17.5, 9.0),
    Precision.STORED: (10.0, 2.0),
}
"""Default rates for a checkpoint and for an IR, measured with 2.8 B parameters, two cores, local
SSD."""

_DEQUANTISING_SECONDS_PER_BILLION = 6.0
"""Additional time if the weights of a GGUF file are not kept as stored."""

_GGUF_MEMORY = 0.15e9
"""Resident bytes before a GGUF file is unpacked: OpenVINO is the only large library loaded."""

_UNPACKING_MEMORY = 8.0
"""Bytes per weight of the largest matrix while it is unpacked from a GGUF file."""

_SCALE_ESTIMATION_SECONDS = 20.0
_SCALE_ESTIMATION_SECONDS_PER_BILLION = 1000.0
"""Additional time for scale estimation: the model generates texts, is run on them, and the scales
are fitted."""


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
    error: DiskFullError | NotEnoughMemoryError | None
    """If disk or memory is not sufficient; None otherwise."""
    int4: Int4Settings | None = None
    """Settings of the compression; None for another precision than INT4, and for an imported INT4
    model."""
    note: str | None = None
    """From :func:`group_note`."""

    @property
    def problem(self) -> str | None:
        """Text of :attr:`error`."""
        return None if self.error is None else str(self.error)

    def check(self) -> None:
        """Raise :attr:`error` if there is one."""
        if self.error is not None:
            raise self.error


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
        hub: from :func:`core.store.hub.describe`; required for a Hugging Face id that is neither
            in the catalogue nor downloaded.

    Raises:
        UserError: ``hub`` is required and missing, or the source cannot be converted to this
            precision.
        NotAModelError, CorruptModelError: a local source cannot be used.
    """
    origin = find_origin(source, precision, settings, hub)
    chosen = int4 or source.int4_settings(precision, origin.parameters)
    compressing = precision.int4 and not (origin.is_ir and origin.precision is precision)
    result = result_bytes(origin, precision, chosen)
    scratch = scratch_bytes(origin, precision)
    download = remaining_bytes(source, origin, settings)
    memory = peak_memory(origin, precision, chosen)
    free_disk = free_bytes(settings.home)
    free_memory = available_memory_bytes()
    error: DiskFullError | NotEnoughMemoryError | None = None
    on_disk = download + result + scratch + _SPARE_BYTES
    if on_disk > free_disk:
        error = DiskFullError(
            f"Converting {source.title} {precision.aim} needs {bytes_text(on_disk)} on disk "
            f"and {bytes_text(free_disk)} are free. Free disk space, or set PADDOCK_HOME to a "
            "larger disk."
        )
    elif memory > free_memory:
        error = NotEnoughMemoryError(
            f"Converting {source.title} {precision.aim} needs {bytes_text(memory)} of memory "
            f"and {bytes_text(free_memory)} are free. Close other programs or unload models."
        )
    return Estimate(
        download_bytes=download,
        disk_bytes=result,
        scratch_bytes=scratch,
        memory_bytes=memory,
        seconds=_seconds(origin, precision, chosen),
        free_disk=free_disk,
        free_memory=free_memory,
        error=error,
        int4=chosen if compressing else None,
        note=group_note(origin.shape, chosen) if compressing else None,
    )


def group_note(shape: Shape | None, int4: Int4Settings) -> str | None:
    """Return what happens to layers whose width the group size does not divide, as a sentence.

    NNCF compresses them with the largest power of two that divides the width.
    """
    size = int4.group_size
    if shape is None or size <= 0:
        return None
    notes = []
    for width in sorted({shape.hidden, shape.intermediate}):
        if width % size:
            smaller = width & -width
            what = f"get groups of {smaller}" if smaller >= SMALLEST_GROUP else "stay in INT8"
            notes.append(f"layers of width {width:,} {what}")
    if not notes:
        return None
    return f"A group size of {size} does not divide every layer: {' and '.join(notes)}."


def result_bytes(origin: Origin, precision: Precision, int4: Int4Settings) -> int:
    """Return the size in bytes of the converted model's folder."""
    shape, count = _shape(origin), origin.parameters
    other = _GRAPH_BYTES_PER_LAYER * shape.layers + _TOKENIZER_BYTES_PER_TOKEN * shape.vocabulary
    if precision is Precision.STORED:
        return int(origin.weight_bytes + other)
    matrices = 1 if shape.tied_embeddings else 2
    outside = min(shape.vocabulary * shape.hidden * matrices, count)
    width, outer_width = weight_widths(precision, int4, shape.hidden)
    return int(width * (count - outside) + outer_width * outside + other)


def token_bytes(origin: Origin, precision: Precision, int4: Int4Settings) -> int:
    """Return the bytes of the weights that the converted model reads for each token.

    Of the input embeddings one row is read, unless they are the output matrix, too; of a mixture
    of experts, those that process the token.
    """
    if precision is Precision.STORED:
        return stored_token_bytes(origin)
    shape = _shape(origin)
    matrix = min(shape.vocabulary * shape.hidden, origin.parameters)
    layers = max(_active_parameters(origin) - matrix, 0)
    width, outer_width = weight_widths(precision, int4, shape.hidden)
    return int(width * layers + outer_width * matrix)


def stored_token_bytes(origin: Origin) -> int:
    """Return the bytes that are read for each token of weights that are kept as they are."""
    return int(origin.weight_bytes * _active_parameters(origin) / max(origin.parameters, 1))


def _active_parameters(origin: Origin) -> float:
    shape, count = _shape(origin), origin.parameters
    looked_up = 0 if shape.tied_embeddings else min(shape.vocabulary * shape.hidden, count)
    return (count - looked_up) * active_share(shape, count)


def _shape(origin: Origin) -> Shape:
    return origin.shape or _TYPICAL_SHAPE


def weight_widths(precision: Precision, int4: Int4Settings, hidden: int) -> tuple[float, float]:
    """Return the bytes per weight of the layers, and of the embeddings and the output matrix, with
    their scales and zero points.

    Args:
        precision: any but STORED.
    """
    per_int8 = 1 + (_SCALE_BYTES + 1.0) / hidden  # a zero point has the width of a weight
    match precision.base:
        case Precision.FP32:
            return 4.0, 4.0
        case Precision.FP16:
            return 2.0, 2.0
        case Precision.INT8:
            return per_int8, per_int8
    zero_point = 0.0 if int4.symmetric else 0.5
    group = int4.group_size if int4.group_size > 0 else hidden
    per_int4 = 0.5 + (_SCALE_BYTES + zero_point) / group
    return int4.ratio * per_int4 + (1 - int4.ratio) * per_int8, per_int8


def scratch_bytes(origin: Origin, precision: Precision) -> int:
    """Return the disk space in bytes for the export before compression, 0 if there is none."""
    if origin.is_ir or not precision.compressed:
        return 0
    return origin.loaded_bytes(precision)


def peak_memory(origin: Origin, precision: Precision, int4: Int4Settings) -> int:
    """Return the peak resident set size in bytes of the conversion process, including
    memory-mapped files."""
    if origin.is_ir and precision in (origin.precision, Precision.STORED):
        return int(_LIBRARY_MEMORY)  # the weight file is linked or copied
    stages, shape = [_LIBRARY_MEMORY], _shape(origin)
    matrix = shape.vocabulary * shape.hidden
    loaded = 0 if origin.is_ir else origin.loaded_bytes(precision)
    if origin.is_gguf:
        kept = precision in (Precision.STORED, Precision.FP32)
        built = result_bytes(origin, precision if kept else Precision.FP16, int4)
        stages.append(_GGUF_MEMORY + built + origin.weight_bytes + _UNPACKING_MEMORY * matrix)
    if precision.compressed:
        # The peak is at the embeddings or at the end, see the constants.
        result = result_bytes(origin, precision, int4)
        working = max(_LARGEST_MATRIX_WIDTH * matrix, result + _LAST_MATRIX_WIDTH * matrix)
        if precision.int4 and int4.scale_estimation:  # inference maps the weights and repacks them
            working += 2 * (loaded or 2 * origin.parameters)
        stages.append(_COMPRESSION_MEMORY + working)
    elif origin.is_ir:
        stages.append(_LIBRARY_MEMORY + origin.weight_bytes)  # mapped, and rounded while saved
    if not (origin.is_ir or origin.is_gguf):
        stages.append(_EXPORT_MEMORY + _MEMORY_PER_LAYER * shape.layers + loaded)
        if origin.load_dtype(precision) != origin.dtype:  # else the weights stay memory-mapped
            stages.append(_LIBRARY_MEMORY + loaded + origin.weight_bytes)
    return int(max(stages))


def missing_bytes(source: Source, settings: Settings, hub: HubModel | None = None) -> int:
    """Return the bytes still to be downloaded before a model can be converted; errors as in
    :func:`estimate`."""
    if source.kind is not SourceKind.HUB:
        return 0
    return remaining_bytes(source, find_origin(source, Precision.INT8, settings, hub), settings)


def remaining_bytes(source: Source, origin: Origin, settings: Settings) -> int:
    """Return the bytes of these weights still to be downloaded."""
    if origin.folder is not None or source.kind is not SourceKind.HUB:
        return 0
    return max(0, origin.fetch_bytes - folder_bytes(settings.downloads_dir / source.key))


def _seconds(origin: Origin, precision: Precision, int4: Int4Settings) -> float:
    kept, billions = precision is Precision.STORED, origin.parameters / 1e9
    from_checkpoint, from_ir = _SECONDS_PER_BILLION[precision.base]
    like_ir = origin.is_ir or (origin.is_gguf and not kept)
    seconds = _LIBRARY_SECONDS + (from_ir if like_ir else from_checkpoint) * billions
    if origin.is_gguf and not kept:
        seconds += _DEQUANTISING_SECONDS_PER_BILLION * billions
    if precision.int4 and int4.scale_estimation:
        seconds += _SCALE_ESTIMATION_SECONDS + _SCALE_ESTIMATION_SECONDS_PER_BILLION * billions
    return seconds
