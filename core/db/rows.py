"""Dataclasses as rows of a table, in columns named after their fields, and filters of lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from sqlalchemy import ColumnElement, Table

T = TypeVar("T")


@dataclass(frozen=True)
class Flat:
    """Annotates a dataclass in a dataclass that is stored in columns of the same row.

    One that may be None is None if its first column is. Without this annotation, a dataclass is
    stored as JSON.
    """

    prefix: str = ""
    """Of the columns' names."""


class _Attribute(NamedTuple):
    name: str
    kind: Any
    """The type, without None and annotations."""
    optional: bool
    flat: Flat | None


def columns_of(
    kind: type, prefix: str = "", optional: bool = False
) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, type and whether it may be None of each column of a dataclass."""
    for name, of, may_be_none, flat in _attributes(kind):
        if flat is None:
            yield f"{prefix}{name}", of, optional or may_be_none
        else:
            yield from columns_of(of, f"{prefix}{flat.prefix}", optional or may_be_none)


def to_row(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the fields of a dataclass by column name: the field's name after a prefix."""
    row: dict[str, Any] = {}
    for name, kind, _, flat in _attributes(type(value)):
        found = getattr(value, name)
        if flat is None:
            row[f"{prefix}{name}"] = found
        elif found is None:
            row |= {column: None for column, *_ in columns_of(kind, f"{prefix}{flat.prefix}")}
        else:
            row |= to_row(found, f"{prefix}{flat.prefix}")
    return row


def from_row(kind: type[T], row: Mapping[Any, Any], prefix: str = "") -> T:
    """Return the dataclass that :func:`to_row` turned into these columns of a row.

    Raises:
        KeyError: a column is missing, or an object in JSON has an unknown field.
        TypeError: an object in JSON lacks a field.
        AttributeError: a value in JSON is not an object.
    """
    values: dict[str, Any] = {}
    for name, of, optional, flat in _attributes(kind):
        if flat is None:
            values[name] = _from_json(of, row[f"{prefix}{name}"])
        elif optional and row[f"{prefix}{flat.prefix}{_attributes(of)[0].name}"] is None:
            values[name] = None
        else:
            values[name] = from_row(of, row, f"{prefix}{flat.prefix}")
    return kind(**values)


def _from_json(kind: Any, value: Any) -> Any:
    """Return a value with tuples in place of lists, and dataclasses in place of objects."""
    if value is None:
        return None
    if get_origin(kind) is tuple:
        item = _attribute("", get_args(kind)[0]).kind
        return tuple(_from_json(item, each) for each in value) if is_dataclass(item) else (*value,)
    if is_dataclass(kind):
        kinds = {each.name: each.kind for each in _attributes(kind)}
        return kind(**{name: _from_json(kinds[name], each) for name, each in value.items()})
    return value


@cache
def _attributes(kind: type) -> tuple[_Attribute, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(_attribute(f.name, hints[f.name]) for f in fields(kind))


def _attribute(name: str, hint: Any) -> _Attribute:
    optional, flat = False, None
    while (origin := get_origin(hint)) in (Annotated, Union, UnionType):
        if origin is Annotated:
            flat = next((mark for mark in hint.__metadata__ if isinstance(mark, Flat)), flat)
        else:
            optional = NoneType in get_args(hint)
        hint = get_args(hint)[0]
    return _Attribute(name, hint, optional, flat)


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
