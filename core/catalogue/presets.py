"""Example instructions for the Instruct page, read from ``presets.toml`` beside this module."""

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
"""Dolly's seven categories of instruction (general QA aside)."""

TITLE_LENGTH = 28
"""Characters that fit a pill on one line."""

_FILE = Path(__file__).with_name("presets.toml")


@dataclass(frozen=True)
class Preset:
    """One instruction a person can pick instead of typing."""

    title: str
    """Short enough for a pill, at most :data:`TITLE_LENGTH` characters."""
    category: str
    """One of :data:`CATEGORIES`."""
    instruction: str
    context: str
    """Passage the instruction is about; empty where it needs none."""


@cache
def presets() -> tuple[Preset, ...]:
    """All presets in the order in which they are shown."""
    rows = tomllib.loads(_FILE.read_text(encoding="utf-8"))["preset"]
    return tuple(
        Preset(
            title=row["title"],
            category=row["category"],
            instruction=row["instruction"],
            context=row.get("context", ""),
        )
        for row in rows
    )
