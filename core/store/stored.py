"""A converted model in the store, and texts about its weights."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from core.catalogue import Compression, Int4Settings, Precision, npu_int4
from core.store.files import has_changed
from core.store.formats import format_of, leading_format, mix_text
from core.store.manifest import Manifest, read_manifest, write_manifest
from core.store.resolver import Source, name_of, recorded_title

log = logging.getLogger(__name__)

QUANTISED_TWICE = (
    "Quantising twice costs accuracy: INT4 converted from a 4-bit file has about 1.12 to 1.2 times "
    "the perplexity of the weights as stored, INT8 about 1.01 times."
)


def weights_label(precision: Precision, weights: str, recipe: str) -> str:
    """Return the label of weights from a GGUF file: ``INT4 · GGUF Q4_1`` as stored, or
    ``INT8 from Q4_1``.

    Args:
        weights: precision that corresponds to the file's weights, such as INT4.
        recipe: type of most of the file's tensors, such as Q4_1.
    """
    if precision is Precision.STORED:
        return f"{weights} · GGUF {recipe}"
    return f"{precision.label} from {recipe}"


def exactness_text(deviation: float) -> str:
    """Describe :attr:`core.store.manifest.GgufRecord.deviation` of weights kept as stored."""
    if deviation == 0:
        return "All weights are identical to those in the file."
    return f"No weight differs from the file by more than {deviation:.2%} of the largest weight."


@dataclass(frozen=True)
class StoredModel:
    """A complete converted model on disk."""

    key: str
    precision: Precision
    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The model's key for programs; see :func:`core.store.resolver.name_of`."""
        source = self.manifest.source
        return name_of(self.key, source.kind, source.location)

    @property
    def title(self) -> str:
        """Title for users; for catalogue models the current one, not that of the conversion."""
        return recorded_title(self.key, self.manifest.title)

    @property
    def label(self) -> str:
        """Label of its weights for users: ``INT8``, ``NF4``, or from :func:`weights_label`."""
        gguf = self.manifest.gguf
        if gguf is None:
            kept = self.precision is Precision.STORED or self.kept_unchanged
            return leading_format(self.formats) if kept else self.precision.label
        return weights_label(self.precision, gguf.weights, gguf.recipe)

    @property
    def special_label(self) -> str | None:
        """:attr:`label` for records if it says more than the precision; else None."""
        return self.label if self.label != self.precision.label else None

    @property
    def formats(self) -> dict[str, int]:
        """Parameters by format of the weights: INT4, MXFP4, FP16, …"""
        manifest = self.manifest
        if manifest.weight_formats:
            return manifest.weight_formats
        found: Counter[str] = Counter()
        for element_type, count in manifest.weight_types.items():
            found[format_of(element_type)] += count
        return dict(found)

    @property
    def mix(self) -> str:
        """The formats with their shares: ``INT4 63 %, INT8 37 %``."""
        return mix_text(self.formats)

    @property
    def int4(self) -> Int4Settings | None:
        """INT4 settings as read from the weights; None for another precision."""
        return self.manifest.int4 and self.manifest.int4.actual

    @property
    def compression(self) -> Compression | None:
        """Settings that INT4 or INT8 weights were compressed with; None if not known."""
        int4 = self.manifest.int4
        return self.manifest.int8 if int4 is None else int4.requested

    @property
    def kept_unchanged(self) -> bool:
        """Whether the source was an OpenVINO model of this precision, which was only copied."""
        manifest = self.manifest
        # A model that was compressed from another IR is smaller than its source.
        return manifest.source_of_weights == "ir" and manifest.source_bytes == manifest.weight_bytes

    def differs_from(self, source: Source) -> bool:
        """Return whether the source has changed since the conversion."""
        record = self.manifest.source
        # A catalogue model may come from a package now and have come from the hub before.
        return source.kind == record.kind and has_changed(source, record.fingerprint)

    def updated(self, **changes: object) -> StoredModel:
        """Return the model with changes in its manifest, which are also written, if possible."""
        manifest = self.manifest.model_copy(update=changes)
        try:
            write_manifest(self.folder, manifest)
        except OSError as error:  # read-only, or deleted meanwhile
            log.warning("The manifest in %s cannot be updated: %s", self.folder, error)
        return replace(self, manifest=manifest)

    def serves(self, precision: Precision) -> bool:
        """Return whether it is used for a precision: also any INT4 model with an NPU's settings is
        used on an NPU."""
        if precision is not Precision.INT4_NPU:
            return self.precision is precision
        actual, wanted = self.int4, npu_int4()
        if actual is not None and self.kept_unchanged:  # it cannot have another ratio
            actual = replace(actual, ratio=wanted.ratio)
        return actual is not None and actual.suits(wanted)


def find_stored(source: Source, precision: Precision, models: Path) -> StoredModel | None:
    """Do what :meth:`core.store.store.ModelStore.get` does, with the folder of all models."""
    folder = models / source.key / precision.value
    if not folder.is_dir():
        return None
    stored = StoredModel(source.key, precision, folder, read_manifest(folder))
    return None if stored.differs_from(source) else stored
