"""The training corpus of the embedded models: generated, deterministic from a seed.

:func:`examples` yields training or held-out examples. What is held out (names, values, item
sets, wordings, foreign instructions) is decided by :class:`core.demo.corpus.source.Source`, so
that the two splits share none of it by construction.
"""

from core.demo.corpus.example import CATEGORIES, Check, Example, is_refusal
from core.demo.corpus.mixture import examples, preset_examples
from core.demo.corpus.source import Source, Split

__all__ = [
    "CATEGORIES",
    "Check",
    "Example",
    "Source",
    "Split",
    "examples",
    "is_refusal",
    "preset_examples",
]
