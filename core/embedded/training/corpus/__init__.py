"""The training corpus of the embedded models: generated, deterministic from a seed.

:func:`examples` yields training or held-out examples. What is held out (names, values, item
sets, wordings, out-of-scope instructions) is decided by
:class:`core.embedded.training.corpus.source.Source`, so that the two splits share none of it by
construction. The weights were trained on these texts, so changing the order of random choices or
any text also changes the held-out tasks.
"""

from core.embedded.tasks import CATEGORIES, Check, is_refusal
from core.embedded.training.corpus.example import Example
from core.embedded.training.corpus.mixture import examples, preset_examples
from core.embedded.training.corpus.source import Source, Split

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
