"""A finished model in the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from core.catalogue import Int4Settings, Precision
from core.store.manifest import Manifest
from core.store.resolver import name_of, recorded_title


def weights_label(precision: Precision, weights: str, recipe: str) -> str:
    """What weights that come from a GGUF file are, for people: ``INT4 · GGUF Q4_1`` as stored,
    ``INT8 from Q4_1``.

    Args:
        precision: in which they are kept here.
        weights: what the file's weights amount to, INT4.
        recipe: type of most of the file's tensors, Q4_1.
    """
    if precision is Precision.STORED:
        return f"{weights} · GGUF {recipe}"
    return f"{precision.label} from {recipe}"


@dataclass(frozen=True)
class StoredModel:
    """A converted model that lies complete on disk."""

    key: str
    precision: Precision
    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """Its key for programs; see :func:`core.store.resolver.name_of`."""
        source = self.manifest.source
        return name_of(self.key, source.kind, source.location)

    @property
    def title(self) -> str:
        """For people; that of a row of the catalogue may be another than when it was converted."""
        return recorded_title(self.key, self.manifest.title)

    @property
    def label(self) -> str:
        """What its weights are, for people: ``INT8``, or as :func:`weights_label` has it."""
        gguf = self.manifest.gguf
        if gguf is None:
            return self.precision.label
        return weights_label(self.precision, gguf.weights, gguf.recipe)

    @property
    def special_label(self) -> str | None:
        """:attr:`label` where it says more than the precision does, for records."""
        return self.label if self.manifest.gguf is not None else None

    @property
    def int4(self) -> Int4Settings | None:
        """How it was compressed to INT4; None in another precision."""
        record = self.manifest.int4
        if record is None:
            return None
        return Int4Settings(
            record.symmetric, record.group_size, record.ratio, record.scale_estimation
        )

    @property
    def came_so(self) -> bool:
        """Whether it came as an OpenVINO model of this precision, and was taken over as it is."""
        manifest = self.manifest
        # What was compressed from another IR is smaller than that.
        return manifest.source_of_weights == "ir" and manifest.source_bytes == manifest.weight_bytes

    def suits(self, wanted: Int4Settings) -> bool:
        """Whether a device that wants INT4 weights of these settings takes it as it is.

        Which layers are in INT4 does not matter where that was decided elsewhere: a model that came
        in INT4 cannot be compressed in another way.
        """
        has = self.int4
        if has is not None and self.came_so:
            has = replace(has, ratio=wanted.ratio)
        return has is not None and has.suits(wanted)
