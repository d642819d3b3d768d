"""What the suite says: one row for each figure that has a bar."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.benchmark.speed.paired import Medians

_TELLING = 20
"""Characters from which an answer that nobody else got belongs to its instruction alone."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a figure must reach."""

    limit: float
    at_most: bool = False
    """Whether the figure must not exceed the limit, instead of reaching it."""

    def met_by(self, value: float) -> bool:
        """Whether a figure keeps to it."""
        return value <= self.limit if self.at_most else value >= self.limit

    @property
    def text(self) -> str:
        """For people: "≥ 1.4"."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure and its bar."""

    name: str
    bar: Bar
    value: float | None = None
    """None where it was not measured."""
    detail: str = ""
    """What it was made of, or why it was not measured."""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where it was not measured."""
        return None if self.value is None else self.bar.met_by(self.value)

    @property
    def text(self) -> str:
        """The value for people."""
        return "—" if self.value is None else f"{self.value:.2f}"

    def to_json(self) -> dict[str, Any]:
        """The row as the suite's last line has it."""
        value = None if self.value is None else round(self.value, 4)
        return {"name": self.name, "value": value, "bar": self.bar.text, "met": self.met}


def against(name: str, found: Medians, bar: float) -> Row:
    """Decode rates of Paddock and of the notebook's way."""
    ours, theirs = found["paddock"]["tokens_per_s"], found["notebook"]["tokens_per_s"]
    return Row(
        name=name,
        bar=Bar(limit=bar),
        value=ours / theirs,
        detail=f"{ours:,.1f} against {theirs:,.1f} tokens/s",
    )


def first_token(name: str, found: Medians) -> Row:
    """Times to the first token of Paddock and of the notebook's way."""
    ours, theirs = found["paddock"]["ttft_ms"], found["notebook"]["ttft_ms"]
    return Row(
        name=f"{name}, against the notebook's way",
        bar=Bar(limit=1.1, at_most=True),
        value=ours / theirs,
        detail=f"{ours:,.0f} against {theirs:,.0f} ms",
    )


def accuracy_rows(key: str, alone: dict, eight: dict) -> list[Row]:
    """Whether batching costs right answers, and whether anybody got somebody else's."""
    counts = Counter(alone["answers"])
    # Short answers, such as a name, belong to many instructions.
    telling = {text for text, count in counts.items() if count == 1 and len(text) >= _TELLING}
    mixed_up = sum(
        got != own and got in telling
        for own, got in zip(alone["answers"], eight["answers"], strict=True)
    )
    return [
        Row(
            name=f"held-out accuracy, {key}, eight at once: points lost",
            bar=Bar(limit=1.0, at_most=True),
            value=round(100 * abs(alone["accuracy"] - eight["accuracy"]), 6),
            detail=f"{eight['accuracy']:.1%} against {alone['accuracy']:.1%} alone",
        ),
        Row(
            name=f"answers of another's instruction, {key}, eight at once",
            bar=Bar(limit=0, at_most=True),
            value=mixed_up,
            detail=f"of {len(eight['answers'])}, {len(telling)} of which nobody else got",
        ),
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    marks = {True: "met", False: "not met", None: "not measured"}
    cells = [(row.name, row.text, row.bar.text, marks[row.met]) for row in rows]
    widths = [max(len(line[column]) for line in [*cells, _HEAD]) for column in range(4)]
    lines = []
    for line, detail in zip([_HEAD, *cells], ["", *(row.detail for row in rows)], strict=True):
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        lines.append("  ".join([*padded, detail]).rstrip())
    return "\n".join(lines)


_HEAD = ("What", "Value", "Bar", "")


def last_line(rows: Sequence[Row]) -> str:
    """One line of JSON for machines."""
    return json.dumps({"rows": [row.to_json() for row in rows]}, ensure_ascii=False)
