"""A converted model in the store, and texts about its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from core.catalogue import Int4Settings, Precision
from core.store.manifest import Manifest
from core.store.resolver import name_of, recorded_title

QUANTISED_TWICE = (
    "Quantising twice costs accuracy: INT4 converted from a 4-bit file has about 1.12 to 1.2 times "
    "the perplexity of the weights as stored, INT8 about 1.01 times."
)


def weights_label(precision: Precision, weights: str, recipe: str) -> str:
    """Return the label of weights from a GGUF file: ``INT4 · GGUF Q4_1`` as stored, or
    ``INT8 from Q4_1``.

    Args:
        precision: of the model in the store.
        weights: precision that corresponds to the file's weights, such as INT4.
        recipe: type of most of the file's tensors, such as Q4_1.
    """
    if precision is Precision.STORED:
        return f"{weights} · GGUF {recipe}"
    return f"{precision.label} from {recipe}"


def exactness_text(deviation: float) -> str:
    """Describe how exactly weights that were kept as stored match the GGUF file.

    Args:
        deviation: see :class:`core.store.manifest.GgufRecord`.
    """
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
        """Label of its weights for users: ``INT8``, or from :func:`weights_label`."""
        gguf = self.manifest.gguf
        if gguf is None:
            return self.precision.label
        return weights_label(self.precision, gguf.weights, gguf.recipe)

    @property
    def special_label(self) -> str | None:
        """:attr:`label` for records if it says more than the precision; else None."""
        return self.label if self.manifest.gguf is not None else None

    @property
    def int4(self) -> Int4Settings | None:
        """INT4 settings of the compression; None for another precision."""
        record = self.manifest.int4
        if record is None:
            return None
        return Int4Settings(
            record.symmetric, record.group_size, record.ratio, record.scale_estimation
        )

    @property
    def kept_unchanged(self) -> bool:
        """Whether the source was an OpenVINO model of this precision, which was only copied."""
        manifest = self.manifest
        # A model that was compressed from another IR is smaller than its source.
        return manifest.source_of_weights == "ir" and manifest.source_bytes == manifest.weight_bytes

    def suits(self, wanted: Int4Settings) -> bool:
        """Return whether the model runs on a device that requires these INT4 settings.

        For an imported INT4 model the ratio does not matter: it cannot be compressed again with
        another one.
        """
        actual = self.int4
        if actual is not None and self.kept_unchanged:
            actual = replace(actual, ratio=wanted.ratio)
        return actual is not None and actual.suits(wanted)
