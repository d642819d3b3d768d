"""Loads the example instructions of the Instruct page from ``presets.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from core.catalogue.load import read_toml

CATEGORIES = (
    "open_qa",
    "closed_qa",
    "information_extraction",
    "summarization",
    "brainstorming",
    "classification",
    "creative_writing",
)
"""Dolly's seven instruction categories, without general QA."""

TITLE_LENGTH = 28
"""Characters that fit on one line of a pill button."""


@dataclass(frozen=True)
class Preset:
    """An example instruction."""

    title: str
    """Text of the pill button, at most :data:`TITLE_LENGTH` characters."""
    category: str
    """One of :data:`CATEGORIES`."""
    instruction: str
    context: str = ""
    """Passage that the instruction refers to; empty if it needs none."""


@cache
def presets() -> tuple[Preset, ...]:
    """Return all presets in display order."""
    return tuple(Preset(**row) for row in read_toml("presets.toml")["preset"])
