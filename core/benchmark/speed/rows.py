"""Results of the suite: one row for each figure that has a threshold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.benchmark.speed.paired import Medians

_DISTINCTIVE = 20
"""Minimum characters of an answer that, if no other instruction got it, identifies its
instruction."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What a figure must reach."""

    limit: float
    at_most: bool = False
    """Whether the figure must not exceed the limit, instead of reaching it."""

    def met_by(self, value: float) -> bool:
        """Return whether a figure meets the threshold."""
        return value <= self.limit if self.at_most else value >= self.limit

    @property
    def text(self) -> str:
        """As text: "≥ 1.4"."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure and its threshold."""

    name: str
    bar: Threshold
    value: float | None = None
    """None if it was not measured."""
    detail: str = ""
    """What it was computed from, or why it was not measured."""

    @property
    def met(self) -> bool | None:
        """Whether the threshold is met; None if it was not measured."""
        return None if self.value is None else self.bar.met_by(self.value)

    @property
    def text(self) -> str:
        """The value as text."""
        return "—" if self.value is None else f"{self.value:.2f}"

    def to_json(self) -> dict[str, Any]:
        """Return the row as in the suite's last line."""
        value = None if self.value is None else round(self.value, 4)
        return {"name": self.name, "value": value, "bar": self.bar.text, "met": self.met}


def against(name: str, found: Medians, bar: float) -> Row:
    """Compare the decode rates of Paddock and of the notebook."""
    ours, theirs = found["paddock"]["tokens_per_s"], found["notebook"]["tokens_per_s"]
    return Row(
        name=name,
        bar=Threshold(limit=bar),
        value=ours / theirs,
        detail=f"{ours:,.1f} and {theirs:,.1f} tokens/s",
    )


def first_token(name: str, found: Medians) -> Row:
    """Compare the times to first token of Paddock and of the notebook."""
    ours, theirs = found["paddock"]["ttft_ms"], found["notebook"]["ttft_ms"]
    return Row(
        name=f"{name}, relative to the notebook",
        bar=Threshold(limit=1.1, at_most=True),
        value=ours / theirs,
        detail=f"{ours:,.0f} and {theirs:,.0f} ms",
    )


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
            bar=Threshold(limit=1.0, at_most=True),
            value=round(100 * abs(alone["accuracy"] - eight["accuracy"]), 6),
            detail=f"{eight['accuracy']:.1%}, and {alone['accuracy']:.1%} alone",
        ),
        Row(
            name=f"answers to another instruction, {key}, eight at once",
            bar=Threshold(limit=0, at_most=True),
            value=mixed_up,
            detail=f"of {len(eight['answers'])}, {len(distinctive)} of which are unique",
        ),
    ]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table for users."""
    marks = {True: "met", False: "not met", None: "not measured"}
    cells = [(row.name, row.text, row.bar.text, marks[row.met]) for row in rows]
    widths = [max(len(line[column]) for line in [*cells, _HEAD]) for column in range(4)]
    lines = []
    for line, detail in zip([_HEAD, *cells], ["", *(row.detail for row in rows)], strict=True):
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        lines.append("  ".join([*padded, detail]).rstrip())
    return "\n".join(lines)


_HEAD = ("Figure", "Value", "Threshold", "")


def last_line(rows: Sequence[Row]) -> str:
    """Return one line of JSON for programs."""
    return json.dumps({"rows": [row.to_json() for row in rows]}, ensure_ascii=False)
