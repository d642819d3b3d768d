"""Measurements as a JSON file for another machine.

The document is ``{"format": "paddock-benchmark", "version": 1, "measurements": [...]}``, with
one measurement per line in the fields and units of :mod:`core.db.measurement_values`. It is
imported without loss, and validated as untrusted input: each field must be present, of its exact
type and within the limits declared there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from core.db.columns import REPLACEMENT, storable
from core.db.measurement_values import CONTROL_CHARACTERS, Many, Measurement, MeasurementState
from core.errors import BadRequestError
from core.units import bytes_text

FORMAT = "paddock-benchmark"
VERSION = 1
"""Incremented with every change that an older version of Paddock would misread."""

MAX_BYTES = 50 * 2**20
"""Maximum size of a file: thousands of measurements with the time of every token."""

INVALID_CHARACTERS = re.compile(f"[{CONTROL_CHARACTERS}\ud800-\udfff]")
"""Characters that :data:`core.db.measurement_values.Text` excludes, and lone surrogates."""

_MAX_PARTS = 1_000_000
"""Maximum number of objects and lists in a file. A measured answer has two and takes hundreds of
bytes; a file of empty lists only would take gigabytes of memory when parsed."""

_MAX_FIELDS = 1_000
"""Maximum number of fields of an object in a file. A measurement has 23; each unknown one would be
an error of its own in memory."""

_LONGEST_NAME = 40
"""Maximum characters of a field's name that are repeated in an error."""

_OTHER_FILE = (
    "The file is not a Paddock benchmark. Choose a JSON file written by Export or by "
    "`python -m core bench --json`."
)


def to_json(measurements: Sequence[Measurement]) -> str:
    """Return the measurements as a JSON document; equal measurements give equal text.

    Control characters and lone surrogates, which folder names may contain, become U+FFFD.
    """
    lines = ",\n".join(
        json.dumps(storable(each, _clean), ensure_ascii=False, allow_nan=False)
        for each in measurements
    )
    return f'{{"format": "{FORMAT}", "version": {VERSION}, "measurements": [\n{lines}\n]}}\n'


def from_json(text: str | bytes) -> list[Measurement]:
    """Return the measurements of a document written by :func:`to_json` on any machine.

    Raises:
        BadRequestError: The document is invalid; the message says where. Nothing is imported then.
    """
    if len(text) > MAX_BYTES:
        raise BadRequestError(
            f"The file has {bytes_text(len(text))}, but at most {bytes_text(MAX_BYTES)} can be "
            "imported. Filter the measurements and export them in parts."
        )
    found: dict[str, Measurement] = {}
    for number, measurement in enumerate(_measurements(_rows(text)), 1):
        if measurement.id in found:
            raise BadRequestError(
                f"Measurement {number:,} of the file has the same id as an earlier one. Export the "
                "file again on the machine that measured."
            )
        found[measurement.id] = measurement
    return list(found.values())


def _clean(text: str) -> str:
    return INVALID_CHARACTERS.sub(REPLACEMENT, text)


def _rows(text: str | bytes) -> list[Any]:
    """Return the measurements of a document, parsed but not validated."""
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))  # Windows tools write UTF-16
        text = text.removeprefix("\N{BYTE ORDER MARK}")
        if not text.strip():
            raise BadRequestError("The file is empty. Export it again and choose the new file.")
        if text.count("{") + text.count("[") > _MAX_PARTS:
            raise BadRequestError(_OTHER_FILE)
        document = json.loads(text, parse_constant=_refuse_constant, object_hook=_limited)
    except json.JSONDecodeError as error:
        if not text.lstrip().startswith("{"):
            raise BadRequestError(_OTHER_FILE) from error
        raise BadRequestError(
            f"The file is damaged or incomplete at line {error.lineno:,}, column {error.colno:,}. "
            "Copy it again, or export it again."
        ) from error
    except (ValueError, RecursionError) as error:  # numbers with thousands of digits, deep nesting
        raise BadRequestError(_OTHER_FILE) from error
    if type(document) is not dict or document.get("format") != FORMAT:
        raise BadRequestError(_OTHER_FILE)
    version, rows = document.get("version"), document.get("measurements")
    if type(version) is int and version > VERSION:
        raise BadRequestError(
            "The file was written by a newer version of Paddock. Update Paddock to import it."
        )
    if type(version) is not int or version != VERSION or type(rows) is not list:
        raise BadRequestError(_OTHER_FILE)
    return rows


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _limited(found: dict[str, Any]) -> dict[str, Any]:
    if len(found) > _MAX_FIELDS:
        raise ValueError("an object has too many fields")
    return found


def _measurements(rows: list[Any]) -> tuple[Measurement, ...]:
    """Validate parsed JSON; pydantic converts nothing.

    Raises:
        BadRequestError: a measurement is invalid; the message has its number and field.
    """
    try:
        measurements = _adapter().validate_python(rows)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        reasons = {
            "wanted": f"Input should be {found['msg']}",
            "string_pattern_mismatch": "It has control characters",
        }
        raise _invalid(found["loc"], reasons.get(found["type"], found["msg"])) from error
    for index, measurement in enumerate(measurements):
        if measurement.state is MeasurementState.DONE and measurement.figures is None:
            raise _invalid((index, "figures"), "Field required, as the measurement is done")
    return measurements


@cache
def _adapter() -> TypeAdapter[tuple[Measurement, ...]]:
    return TypeAdapter(Many[Measurement], config=ConfigDict(extra="forbid"))


def _invalid(place: tuple[int | str, ...], reason: str) -> BadRequestError:
    number, *steps = place
    field = ".".join(ascii(step).strip("'")[:_LONGEST_NAME] for step in steps)
    return BadRequestError(
        f"Measurement {int(number) + 1:,} of the file is invalid: {field or 'it'}: {reason}. "
        "Export the file again on the machine that measured."
    )
