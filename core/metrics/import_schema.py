"""Validation of imported measurements.

The data is untrusted. Each field must be present, of its exact type and within the limits that
:mod:`core.db.measurement_values` declares; nothing is converted. The first error is reported.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from core.db import measurement_values
from core.db.measurement_values import (
    CONTROL_CHARACTERS,
    MAX_BYTE_COUNT,
    Many,
    Measurement,
    MeasurementState,
)
from core.errors import BadRequestError

INVALID_CHARACTERS = re.compile(f"[{CONTROL_CHARACTERS}\ud800-\udfff]")
"""Characters that :data:`core.db.measurement_values.Text` excludes, and lone surrogates."""

_FIELDS = {
    field.name
    for kind in vars(measurement_values).values()
    if is_dataclass(kind)
    for field in fields(kind)
}
_WANTED = {
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "enum": f"one of {', '.join(MeasurementState)}",
    "string_type": "a string",
    "tuple_type": "a list",
}
_SHOWN = 40
"""Maximum characters of an invalid value that are repeated in the error."""


def read_measurements(rows: list[Any]) -> list[Measurement]:
    """Return the measurements in parsed JSON.

    Raises:
        BadRequestError: A measurement is invalid; the message has its number and field.
    """
    try:
        measurements = _adapter().validate_python(rows)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        unknown = found["type"] == "unexpected_keyword_argument"
        place = found["loc"][:-1] if unknown else found["loc"]
        raise _invalid(place, _reason(found)) from error
    for index, measurement in enumerate(measurements):
        if measurement.state is MeasurementState.DONE and measurement.figures is None:
            raise _invalid((index, "figures"), "is missing though the measurement is done")
    return list(measurements)


@cache
def _adapter() -> TypeAdapter[tuple[Measurement, ...]]:
    return TypeAdapter(Many[Measurement], config=ConfigDict(extra="forbid"))


def _invalid(place: tuple[int | str, ...], reason: str) -> BadRequestError:
    where = "".join(
        f".{step}" if step in _FIELDS else f"[{step if isinstance(step, int) else _shown(step)}]"
        for step in place[1:]
        if step != "[key]"  # pydantic's name of an invalid key, which is the step before
    )
    return BadRequestError(
        f"Measurement {int(place[0]) + 1:,} of the file is invalid: {where[1:] or 'it'} {reason}. "
        "Export the file again on the machine that measured."
    )


def _reason(error: ErrorDetails) -> str:
    value = error["input"]
    match error["type"]:
        case "missing":
            return "is missing"
        case "string_too_long":
            return f"has {len(value):,} characters, more than {error['ctx']['max_length']:,}"
        case "too_long":
            return f"has {len(value):,} entries, more than {error['ctx']['max_length']}"
        case "string_pattern_mismatch" | "string_unicode":
            return "has control characters or lone surrogates"
        case "unexpected_keyword_argument":
            return f"has an unknown field {_shown(error['loc'][-1])}"
        case "wanted":
            return f"is {_shown(value)}, not {error['msg']}"
        case kind:
            return f"is {_shown(value)}, not {_WANTED.get(kind, 'a valid value')}"


def _shown(data: Any) -> str:
    """Return an invalid value for an error message: short, and with special characters escaped."""
    if isinstance(data, dict | list):
        return "an object" if isinstance(data, dict) else "a list"
    if data is None or isinstance(data, bool):
        return {None: "null", True: "true", False: "false"}[data]
    if isinstance(data, int) and abs(data) > MAX_BYTE_COUNT:
        return "a number with too many digits"
    text = ascii(data) if isinstance(data, str) else repr(data)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
