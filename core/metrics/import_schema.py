"""Validation of imported measurements.

The data is untrusted. Each field must be present, of its exact type and within the limits of the
database and the charts; nothing is converted. Validation stops at the first error.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, partial
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from core.db.measurement_values import Measurement, MeasurementState

MAX_TEXT = 1_000
"""Maximum characters of a name: title, device, host, or folder, the longest of these."""

MAX_ERROR = 20_000
"""Maximum characters of ``error``, which may quote a library's message."""

MAX_ENTRIES = 100
"""Maximum entries of ``hints`` and ``versions``."""

MAX_COUNT = 2**31 - 1
"""Largest value of an integer column in every database."""

MAX_BYTES_COUNT = 2**63 - 1
"""Largest value of a big integer column in every database, for sizes in bytes."""

MAX_FIGURE = 1e18
"""Far above any time in ms or bandwidth in bytes/s, and far below a floating-point overflow."""

YEARS = (2000, 2199)
"""First and last year accepted in dates."""

INVALID_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Control characters except line ends and tabs, and lone surrogates."""

_ID = re.compile(r"[0-9a-f]{32}")
_SHOWN = 40
"""Maximum characters of an invalid value that are repeated in the error."""

_Read = Callable[[Any], Any]
_Value = TypeVar("_Value")


class InvalidDataError(Exception):
    """The data is invalid. Each enclosing reader adds its part to :attr:`path`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path: list[str] = []

    @property
    def where(self) -> str:
        """The field, such as ``rounds[0].load_s``; empty for the whole measurement."""
        return "".join(self.path).removeprefix(".")


def read_measurement(data: Any) -> Measurement:
    """Return the measurement in parsed JSON.

    Raises:
        InvalidDataError: A field is invalid; has the field and the reason.
    """
    measurement = _reader(Measurement)(data)
    if measurement.state is MeasurementState.DONE and measurement.figures is None:
        with _within(".figures"):
            raise InvalidDataError("is missing though the measurement is done")
    return measurement


@contextmanager
def _within(step: str) -> Iterator[None]:
    try:
        yield
    except InvalidDataError as error:
        error.path.insert(0, step)
        raise


@cache
def _reader(kind: Any) -> _Read:
    """Return the reader for a type used in fields of a measurement."""
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
        return partial(_read_fields, kind, _field_readers(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return partial(_read_member, kind)
    if get_origin(kind) in (Union, types.UnionType):
        (inner,) = (each for each in get_args(kind) if each is not type(None))
        return partial(_read_optional, _reader(inner))
    if get_origin(kind) is tuple:
        return partial(_read_items, _reader(get_args(kind)[0]))
    if get_origin(kind) is Mapping:
        return partial(_read_mapping, _reader(get_args(kind)[1]))
    return _PLAIN[kind]


def _field_readers(kind: type) -> dict[str, tuple[_Read, bool]]:
    """Return each field's reader and whether it is required.

    A field with a default may be newer than the file. Fields with a default factory are required: a
    computed default, such as the current time, would be wrong.
    """
    hints = get_type_hints(kind)
    return {
        field.name: (_field_reader(field, hints[field.name]), field.default is MISSING)
        for field in fields(kind)
    }


def _field_reader(field: Field[Any], hint: Any) -> _Read:
    special = {
        "group_size": _read_group_size,
        "id": _read_id,
        "sweep": _read_id,
        "error": partial(_read_optional, partial(_read_text, limit=MAX_ERROR)),
    }
    if field.name in special:
        return special[field.name]
    if "bytes" in field.name and hint in (int, int | None):
        size = partial(_read_count, limit=MAX_BYTES_COUNT)
        return size if hint is int else partial(_read_optional, size)
    return _reader(hint)


def _read_fields(
    kind: type[_Value], readers: Mapping[str, tuple[_Read, bool]], data: Any
) -> _Value:
    if type(data) is not dict:
        raise InvalidDataError(f"is {_shown(data)}, not an object")
    for name in data.keys() - readers.keys():
        raise InvalidDataError(f"has an unknown field {_shown(name)}")
    values: dict[str, Any] = {}
    for name, (read, required) in readers.items():
        if name in data:
            with _within(f".{name}"):
                values[name] = read(data[name])
        elif required:
            with _within(f".{name}"):
                raise InvalidDataError("is missing")
    return kind(**values)


def _read_items(read: _Read, data: Any) -> tuple[Any, ...]:
    if type(data) is not list:
        raise InvalidDataError(f"is {_shown(data)}, not a list")
    index = 0
    items = []
    try:
        for index, item in enumerate(data):  # noqa: B007  used in the error
            items.append(read(item))
    except InvalidDataError as error:
        error.path.insert(0, f"[{index}]")
        raise
    return tuple(items)


def _read_mapping(read: _Read, data: Any) -> dict[str, Any]:
    if type(data) is not dict:
        raise InvalidDataError(f"is {_shown(data)}, not an object")
    if len(data) > MAX_ENTRIES:
        raise InvalidDataError(f"has {len(data):,} entries, more than {MAX_ENTRIES}")
    values = {}
    for key, item in data.items():
        with _within(f"[{_shown(key)}]"):
            values[_read_text(key)] = read(item)
    return values


def _read_optional(read: _Read, data: Any) -> Any:
    return None if data is None else read(data)


def _read_member(kind: type[StrEnum], data: Any) -> StrEnum:
    if type(data) is not str or data not in list(kind):
        raise InvalidDataError(f"is {_shown(data)}, not one of {', '.join(kind)}")
    return kind(data)


def _read_id(data: Any) -> str:
    if type(data) is not str or not _ID.fullmatch(data):
        raise InvalidDataError(f"is {_shown(data)}, not 32 hexadecimal digits")
    return data


def _read_text(data: Any, limit: int = MAX_TEXT) -> str:
    if type(data) is not str:
        raise InvalidDataError(f"is {_shown(data)}, not a string")
    if len(data) > limit:
        raise InvalidDataError(f"has {len(data):,} characters, more than {limit:,}")
    if INVALID_CHARACTERS.search(data):
        raise InvalidDataError("has control characters or lone surrogates")
    return data


def _read_flag(data: Any) -> bool:
    if type(data) is not bool:
        raise InvalidDataError(f"is {_shown(data)}, not true or false")
    return data


def _read_count(data: Any, limit: int = MAX_COUNT) -> int:
    if type(data) is not int or not 0 <= data <= limit:
        raise InvalidDataError(f"is {_shown(data)}, not a whole number from 0 to {limit:,}")
    return data


def _read_group_size(data: Any) -> int:
    """Read a group size; −1 means one scale per channel."""
    return data if type(data) is int and data == -1 else _read_count(data)


def _read_figure(data: Any) -> float:
    if type(data) not in (int, float) or not 0 <= data <= MAX_FIGURE:
        raise InvalidDataError(f"is {_shown(data)}, not a number from 0 to {MAX_FIGURE:g}")
    return float(data)


def _read_time(data: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(_read_text(data))
        if moment.tzinfo is not None and YEARS[0] <= moment.year <= YEARS[1]:
            return moment.astimezone(UTC)
    except ValueError:
        pass
    raise InvalidDataError(
        f"is {_shown(data)}, not a date and time with a time zone from {YEARS[0]} on"
    )


def _read_scalar(data: Any) -> str | int | float | bool | None:
    """Read a value of an OpenVINO property."""
    if data is None or type(data) is bool:
        return data
    if type(data) is str:
        return _read_text(data)
    if type(data) not in (int, float) or not abs(data) <= MAX_BYTES_COUNT:
        raise InvalidDataError(f"is {_shown(data)}, not a string or a number")
    return data


_PLAIN: dict[Any, _Read] = {
    str: _read_text,
    bool: _read_flag,
    int: _read_count,
    float: _read_figure,
    datetime: _read_time,
    Any: _read_scalar,
}


def _shown(data: Any) -> str:
    """Return an invalid value for an error message: short, and with special characters escaped."""
    if isinstance(data, dict | list):
        return "an object" if isinstance(data, dict) else "a list"
    if data is None or isinstance(data, bool):
        return {None: "null", True: "true", False: "false"}[data]
    if isinstance(data, int) and abs(data) > MAX_BYTES_COUNT:
        return "a number with too many digits"
    text = ascii(data) if isinstance(data, str) else repr(data)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
