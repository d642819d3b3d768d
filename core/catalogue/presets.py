"""Loads the example instructions of the Instruct page from ``presets.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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

_FILE = Path(__file__).with_name("presets.toml")


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
    rows = tomllib.loads(_FILE.read_text(encoding="utf-8"))["preset"]
    return tuple(Preset(**row) for row in rows)
