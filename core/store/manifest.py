"""What is written beside a converted model: where it came from and what it is."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.catalogue import Precision
from core.errors import CorruptModelError

MANIFEST_NAME = "paddock.json"
SCHEMA = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SourceRecord(_Frozen):
    """Where the weights came from."""

    kind: str
    """A value of :class:`core.store.resolver.SourceKind`."""
    location: str
    """Hugging Face id, or folder as it was then."""
    revision: str | None
    """Commit of the hub's repository; None for folders."""
    fingerprint: str | None
    """Changes when the folder's weights change; None for the hub, where the revision counts."""


class Int4Record(_Frozen):
    """INT4 settings as asked for, and what became of them in this model."""

    symmetric: bool
    group_size: int
    """As given to NNCF; −1 means one scale per output channel."""
    ratio: float
    """As given to NNCF: share of the compressible layers to become INT4."""
    group_sizes: dict[int, int]
    """4-bit parameters by group size as read back; layers whose channels the group size does not
    divide get a smaller one."""
    four_bit_share: float
    """Share of all parameters that are in four bits, as read back, 0 to 1."""
    scale_estimation: bool = False
    """Whether the scales were fitted on texts that the model wrote itself."""


class Int8Record(_Frozen):
    """INT8 settings; there is one scale per output channel."""

    symmetric: bool
    """Without zero points."""


class GenAIOutcome(StrEnum):
    """Whether OpenVINO GenAI may run a model; see :mod:`core.store.genai_check`."""

    EXACT = "exact"
    """It computes the architecture as Optimum does."""
    DIFFERS = "differs"
    """It computes the architecture otherwise."""
    REFUSED = "refused"
    """It cannot run the architecture."""
    STATE = "state"
    """The model has a state that GenAI would carry over into the next answer."""
    UNCHECKED = "unchecked"
    """Neither is known: no small model of this architecture can be made here."""


class GenAICheck(_Frozen):
    """What a check of OpenVINO GenAI found."""

    key: str
    """Of the architecture, the processor and the libraries' versions that it holds for."""
    outcome: GenAIOutcome
    difference: float | None = None
    """Largest difference of a token's log-probability from Optimum's."""
    detail: str | None = None
    """Names of the states, or what a library said."""

    @property
    def reason(self) -> str | None:
        """Why Optimum must run the model, as a sentence; None where GenAI may."""
        match self.outcome:
            case GenAIOutcome.DIFFERS:
                return "OpenVINO GenAI computes this architecture wrongly, so Optimum runs it."
            case GenAIOutcome.REFUSED:
                return "OpenVINO GenAI cannot run this architecture, so Optimum runs it."
            case GenAIOutcome.STATE:
                return (
                    f"The model has a state beside its attention cache ({self.detail}), which "
                    "OpenVINO GenAI would carry over into the next answer, so Optimum runs it."
                )
        return None

    @property
    def remark(self) -> str | None:
        """What a person must know of it, as a sentence; None where nothing."""
        if self.outcome is GenAIOutcome.UNCHECKED:
            return "Whether OpenVINO GenAI computes this architecture correctly is not known."
        return self.reason


class GgufRecord(_Frozen):
    """The GGUF file that the weights came from."""

    recipe: str
    """Tensor type of most weights of the layers: Q4_1."""
    tensor_types: dict[str, int]
    """Parameters by tensor type, as they stood in the file."""
    weights: str
    """What weights of these types amount to: INT4, INT8, BF16."""
    deviation: float | None
    """Kept as stored: the largest difference between a weight and what the file's stands for, as a
    share of the largest weight of its matrix; None where they were dequantised."""


class FileRecord(_Frozen):
    """One file of the model."""

    size: int
    """Bytes."""
    sha256: str
    mtime_ns: int
    """When size and time are unchanged, the content counts as verified."""


class Manifest(_Frozen):
    """The record of one converted model in one precision (``paddock.json``)."""

    schema_version: int = SCHEMA
    key: str
    title: str
    source: SourceRecord
    precision: Precision
    int4: Int4Record | None
    int8: Int8Record | None = None
    """None for another precision, an INT8 model that came as such, and in older manifests."""
    gguf: GgufRecord | None = None
    """None where the weights never were in a GGUF file."""
    source_of_weights: Literal["checkpoint", "ir", "gguf"] | None = None
    """What was converted: a PyTorch checkpoint, another IR or a GGUF file; None in older
    manifests."""
    source_bytes: int | None = None
    """Size of the weight files it was converted from; None in older manifests."""
    versions: dict[str, str]
    """Library name to version, of the libraries that took part."""
    architecture: str | None
    """``model_type`` of the configuration."""
    parameters: int
    weight_types: dict[str, int]
    """Parameters by OpenVINO element type, as read back from the IR."""
    weight_bytes: int
    folder_bytes: int
    """All files but this manifest."""
    positions: int | None
    """Longest sequence in tokens; None where the configuration does not say."""
    has_chat_template: bool
    has_openvino_tokenizer: bool
    genai: GenAICheck | None = None
    """None in older manifests; see :func:`core.store.subprocesses.with_genai_check`."""
    created: datetime
    """UTC."""
    duration_s: float
    """Fetching aside."""
    peak_memory_bytes: int
    """Highest resident set size of the converting process, memory-mapped files included."""
    peak_private_bytes: int | None
    """The same without what is file-backed; None where the operating system does not tell."""
    files: dict[str, FileRecord]
    """By file name."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the model in ``folder``; parsed once for as long as the file stays as it is.

    Raises:
        CorruptModelError: it is missing, unreadable, or of a later version of Paddock.
    """
    path = folder / MANIFEST_NAME
    try:
        state = path.stat()
        manifest = _parsed(path, state.st_ino, state.st_size, state.st_mtime_ns)
    except (OSError, ValidationError) as error:
        raise CorruptModelError(
            f"{MANIFEST_NAME} in {folder} is missing or damaged; delete this folder and convert "
            "the model again."
        ) from error
    if manifest.schema_version != SCHEMA:
        raise CorruptModelError(
            f"{MANIFEST_NAME} in {folder} is of version {manifest.schema_version}, which this "
            "Paddock does not know; delete this folder and convert the model again."
        )
    return manifest


@lru_cache(maxsize=256)
def _parsed(path: Path, _inode: int, _size: int, _mtime_ns: int) -> Manifest:
    return Manifest.model_validate_json(path.read_bytes())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest whole or not at all."""
    beside = folder / f"{MANIFEST_NAME}.new"
    beside.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    beside.replace(folder / MANIFEST_NAME)
