"""Describe a GGUF file, after checking that it is supported, from its header alone.

Pages and commands use it for files on disk and for files on a hub before they are downloaded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from core.catalogue import Precision, Shape
from core.errors import NotAModelError
from core.store.gguf.blocks import TENSOR_TYPES
from core.store.gguf.companions import check_tokenizer
from core.store.gguf.reader import (
    BUILT,
    THROUGH_TRANSFORMERS,
    GgufFile,
    read_gguf,
    shape_of,
    unreadable,
)
from core.store.names import part_names

_BITS = {kind.name: kind.bits for kind in TENSOR_TYPES.values()}


@dataclass(frozen=True)
class GgufSummary:
    """Description of a model for pages; small enough to cache."""

    architecture: str
    """``model_type`` in transformers."""
    shape: Shape
    parameters: int
    types: dict[str, int]
    """Parameters by tensor type, most first."""
    recipe: str
    """Tensor type of most weights of the layers, such as Q4_1."""
    bytes: int
    """Size of all files."""
    kept: bool
    """Whether the weights can be kept as stored; else they are only dequantised."""

    @property
    def weights(self) -> Precision | None:
        """Precision that corresponds to the weights; None for BF16."""
        if any(_BITS[name] == 4 for name in self.types):
            return Precision.INT4
        by_type = {"F32": Precision.FP32, "F16": Precision.FP16, "BF16": None}
        return by_type.get(self.recipe, Precision.INT8)

    @property
    def default_precision(self) -> Precision:
        """As stored where that is possible, because the weights are compressed already."""
        return Precision.STORED if self.kept else Precision.INT8


def summary(path: Path) -> GgufSummary:
    """Describe a file, with the other parts of a split model; cached until the files change. Errors
    as in :func:`summarise` and :func:`core.store.gguf.reader.read_gguf`."""
    states = []
    for name in part_names(path.name):
        try:
            state = path.with_name(name).stat()
        except OSError as error:
            raise unreadable(name, error.strerror or str(error)) from error
        states.append((state.st_size, state.st_mtime_ns))
    return _summary(path, tuple(states))


@lru_cache(maxsize=64)
def _summary(path: Path, _states: tuple[tuple[int, int], ...]) -> GgufSummary:
    return summarise(read_gguf(path))


def summarise(file: GgufFile) -> GgufSummary:
    """Describe a file by its header, after checking that the model is supported.

    Raises:
        NotAModelError: it writes no text, or a feature of its architecture or its tokenizer is not
            supported.
        CorruptModelError: a value is missing or impossible.
    """
    shape = shape_of(file)
    what = _unsupported_feature(file, shape.head_width)
    if what is not None:
        raise NotAModelError(
            f"{file.name} is a model with {what}, which is not supported for GGUF files. "
            "Use the model's safetensors instead."
        )
    if (
        file.value("{arch}.pooling_type", int, 0)
        or any(name.startswith("cls.") for name in file.tensors)
        or not file.value("{arch}.attention.causal", bool, True)
    ):
        raise NotAModelError(
            f"{file.name} is an embedding or reranking model, which does not write text. Choose an "
            "instruction model."
        )
    check_tokenizer(file)
    types: Counter[str] = Counter()
    of_layers: Counter[str] = Counter()
    for tensor in file.tensors.values():
        types[tensor.type.name] += tensor.count
        if tensor.name.startswith("blk."):
            of_layers[tensor.type.name] += tensor.count
    if not of_layers:
        raise unreadable(file.name, "it has no layers")
    built = file.architecture in BUILT
    return GgufSummary(
        architecture=THROUGH_TRANSFORMERS.get(file.architecture, file.architecture),
        shape=shape,
        parameters=types.total(),
        types=dict(types.most_common()),
        recipe=of_layers.most_common(1)[0][0],
        bytes=file.bytes,
        kept=built and all(tensor.type.kept for tensor in file.tensors.values()),
    )


def _unsupported_feature(file: GgufFile, width: int) -> str | None:
    """Return a feature that the file's architecture may have, and would be lost silently."""
    scaling = file.value("{arch}.rope.scaling.type", str, "none")
    if scaling not in ("none", "linear"):
        return f"rotary scaling of type {scaling[:20]!r}"
    if file.architecture not in BUILT:
        if "rope_factors_long.weight" in file.tensors:
            return "rotary factors for long texts"
        return "linear rotary scaling" if scaling == "linear" else None
    if file.value("{arch}.expert_count", int, 0):
        return "experts"
    if file.value("{arch}.rope.dimension_count", int, width) != width or width % 2:
        return "a rotary embedding of part of each head"
    return None
