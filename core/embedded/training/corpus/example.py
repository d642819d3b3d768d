"""An example of the corpus: a task with what the split into training and held-out data needs."""

from __future__ import annotations

from dataclasses import dataclass

from core.embedded.tasks import Task


@dataclass(frozen=True)
class Example(Task):
    """One task of the corpus."""

    wording: str = ""
    """Template of the instruction; held-out wordings never occur in training."""
    values: tuple[str, ...] = ()
    """Names, values and item sets in it that belong to one split only."""
