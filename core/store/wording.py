"""Texts about converted weights, shared by the pages and the command line."""

from __future__ import annotations

QUANTISED_TWICE = (
    "Quantising twice costs accuracy: INT4 converted from a 4-bit file has about 1.12 to 1.2 times "
    "the perplexity of the weights as stored, INT8 about 1.01 times."
)


def exactness_text(deviation: float) -> str:
    """Describe how exactly weights that were kept as stored match the GGUF file.

    Args:
        deviation: see :class:`core.store.manifest.GgufRecord`.
    """
    if deviation == 0:
        return "All weights are identical to those in the file."
    return f"No weight differs from the file by more than {deviation:.2%} of the largest weight."
