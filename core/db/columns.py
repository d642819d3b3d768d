"""Column types, which convert values for the database and back.

A model's output may contain lone surrogates or NUL, which databases reject, and a figure may be
NaN, which is not valid JSON. They are replaced, so that the row can be stored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Float, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable_text(text: str) -> str:
    """Return the text with NUL and lone surrogates replaced by U+FFFD."""
    return _UNSTORABLE.sub(REPLACEMENT, text)


def storable(value: Any, clean: Callable[[str], str] = storable_text) -> Any:
    """Return a JSON-serializable value: clean texts, lists for tuples, dictionaries for
    dataclasses, ISO 8601 text for times, None for NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(str(key)): storable(item, clean) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item, clean) for item in value]
    if is_dataclass(value):
        return {each.name: storable(getattr(value, each.name), clean) for each in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int) else clean(str(value))


def _to_json(value: Any) -> str:
    return json.dumps(storable(value), ensure_ascii=False, separators=(",", ":"))


class CleanText(TypeDecorator[str]):
    """Text of any length that every database accepts."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(str(value))


class EnumText(TypeDecorator[StrEnum]):
    """A ``StrEnum``, stored as its value; others raise ValueError."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.kind(value)


class UtcTime(TypeDecorator[datetime]):
    """A time, stored as UTC without a time zone, which SQLite lacks, and read as UTC.

    A time without a time zone raises ValueError.
    """

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone cannot be stored")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Figure(TypeDecorator[float]):
    """A double-precision number; NaN and infinity become NULL."""

    impl = Float(53)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None or not math.isfinite(value) else float(value)


class JsonText(TypeDecorator[Any]):
    """A mapping or list as compact JSON text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else _to_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class NamesText(TypeDecorator[tuple[str, ...]]):
    """Names without commas, joined by commas so that SQL can filter by them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(",".join(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...]:
        return tuple(value.split(",")) if value else ()


class MillisecondsText(TypeDecorator[tuple[float, ...]]):
    """Times in milliseconds as a compact JSON list, rounded to microseconds."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[float, ...] | None, dialect: Dialect) -> str | None:
        return None if value is None else _to_json([round(float(time), 3) for time in value])

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[float, ...] | None:
        return None if value is None else tuple(json.loads(value))
