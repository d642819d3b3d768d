"""Dataclasses to rows whose columns have their fields' names and back, and filters of lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Table

T = TypeVar("T")


def to_row(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the fields of a dataclass by column name: the field's name after a prefix."""
    return {f"{prefix}{f.name}": getattr(value, f.name) for f in fields(value)}


def from_row(kind: type[T], row: Mapping[Any, Any], prefix: str = "") -> T:
    """Return the dataclass that :func:`to_row` turned into these columns of a row."""
    return kind(**{f.name: row[f"{prefix}{f.name}"] for f in fields(kind)})  # type: ignore[arg-type]


def conditions(table: Table, time: str, which: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter.

    Args:
        time: column that ``since`` (at this time or later) and ``until`` (before) refer to.
        which: values by column; None does not restrict.
    """
    found = []
    for name, value in which.items():
        if value is None:
            continue
        if name == "since":
            found.append(table.c[time] >= value)
        elif name == "until":
            found.append(table.c[time] < value)
        else:
            found.append(table.c[name] == value)
    return found


def batches(items: Sequence[T], size: int = 500) -> Iterator[Sequence[T]]:
    """Yield parts of a list well below every database's limit of parameters per statement."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
