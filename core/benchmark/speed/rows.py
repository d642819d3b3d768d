"""Results of the suite: one row for each figure that has a threshold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

_DISTINCTIVE = 20
"""Minimum characters of an answer that, if no other instruction got it, identifies its
instruction."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure and its threshold."""

    name: str
    limit: float
    """The threshold, which the figure must reach."""
    at_most: bool = False
    """Whether the figure must not exceed the limit, instead of reaching it."""
    value: float | None = None
    """None if it was not measured."""
    detail: str = ""
    """What it was computed from, or why it was not measured."""

    @property
    def met(self) -> bool | None:
        """Whether the threshold is met; None if it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def threshold(self) -> str:
        """The threshold as text: "≥ 1.4"."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"

    @property
    def text(self) -> str:
        """The value as text."""
        return "—" if self.value is None else f"{self.value:.2f}"

    def to_json(self) -> dict[str, Any]:
        """Return the row as in the suite's last line."""
        value = None if self.value is None else round(self.value, 4)
        return {"name": self.name, "value": value, "bar": self.threshold, "met": self.met}


def rate_row(name: str, ours: float, theirs: float, limit: float, more: str = "") -> Row:
    """Return how many times as high Paddock's tokens/s are, with ``more`` in the detail."""
    detail = f"{ours:,.1f} and {theirs:,.1f} tokens/s{more}"
    return Row(name=name, limit=limit, value=ours / theirs, detail=detail)


def accuracy_rows(key: str, alone: dict, eight: dict) -> list[Row]:
    """Return whether batching costs accuracy, and whether an answer went to another instruction."""
    counts = Counter(alone["answers"])
    # Short answers, such as a name, are those of many instructions.
    distinctive = {
        text for text, count in counts.items() if count == 1 and len(text) >= _DISTINCTIVE
    }
    mixed_up = sum(
        got != own and got in distinctive
        for own, got in zip(alone["answers"], eight["answers"], strict=True)
    )
    return [
        Row(
            name=f"held-out accuracy, {key}, eight at once: points lost",
            limit=1.0,
            at_most=True,
            value=round(100 * abs(alone["accuracy"] - eight["accuracy"]), 6),
            detail=f"{eight['accuracy']:.1%}, and {alone['accuracy']:.1%} alone",
        ),
        Row(
            name=f"answers to another instruction, {key}, eight at once",
            limit=0,
            at_most=True,
            value=mixed_up,
            detail=f"of {len(eight['answers'])}, {len(distinctive)} of which are unique",
        ),
    ]
