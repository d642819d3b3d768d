"""Sentences about what became of a model's weights, the same on pages and in the terminal."""

from __future__ import annotations

QUANTISED_TWICE = (
    "Quantising twice costs accuracy: INT4 made from a 4-bit file has about 1.12 to 1.2 times the "
    "perplexity of its weights as stored, INT8 about 1.01 times."
)


def exactness_text(deviation: float) -> str:
    """How well weights that were kept as stored agree with the file's.

    Args:
        deviation: see :class:`core.store.manifest.GgufRecord`.
    """
    if deviation == 0:
        return "Every weight is exactly the file's."
    return f"No weight differs from the file's by more than {deviation:.2%} of the largest."
