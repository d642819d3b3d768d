"""Measurements as files: JSON for another machine, CSV for spreadsheets, Markdown to publish.

The JSON document is ``{"format": "paddock-benchmark", "version": 1, "measurements": [...]}``, with
one measurement per line in the fields and units of :mod:`core.db.measurement_values`. It is
imported without loss, and validated as untrusted input.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from core.db.measurement_values import Measurement
from core.errors import BadRequestError
from core.metrics.import_schema import INVALID_CHARACTERS, read_measurements
from core.metrics.tables import spreadsheet_text, to_csv, to_markdown
from core.units import bytes_text

__all__ = [
    "MAX_BYTES",
    "MAX_MEASUREMENTS",
    "from_json",
    "max_json_size",
    "spreadsheet_text",
    "to_csv",
    "to_json",
    "to_markdown",
]

FORMAT = "paddock-benchmark"
VERSION = 1
"""Incremented with every change that an older version of Paddock would misread."""

MAX_BYTES = 50 * 2**20
"""Maximum size of a file: thousands of measurements with the time of every token."""

MAX_MEASUREMENTS = 100_000
"""Maximum number of measurements in a file."""

_MAX_PARTS = 1_000_000
"""Maximum number of objects and lists in a file. A measured answer has two and takes hundreds of
bytes; a file of empty lists only would take gigabytes of memory when parsed."""

_MAX_FIELDS = 1_000
"""Maximum number of fields of an object in a file. A measurement has 23; each unknown one would be
an error of its own in memory."""

_BYTES_PER_TOKEN = 24
"""Size of a token's time in a file: up to seventeen digits, a decimal point, a comma, a space."""

_BYTES_PER_ANSWER = 250
"""Size of the other figures of an answer, with their names."""

_BYTES_PER_ROW = 8_000
"""Size of the rest of a measurement: about 3,000 bytes, more with long names."""

_OTHER_FILE = (
    "The file is not a Paddock benchmark. Choose a JSON file written by Export or by "
    "`python -m core bench --json`."
)


def to_json(measurements: Sequence[Measurement]) -> str:
    """Return the measurements as a JSON document; equal measurements give equal text.

    Control characters and lone surrogates, which folder names may contain, become U+FFFD.

    Raises:
        BadRequestError: The file would be too large to be imported.
    """
    lines = ",\n".join(_line(measurement) for measurement in measurements)
    text = f'{{"format": "{FORMAT}", "version": {VERSION}, "measurements": [\n{lines}\n]}}\n'
    if len(measurements) > MAX_MEASUREMENTS or len(text.encode()) > MAX_BYTES:
        raise BadRequestError(
            f"The file for {len(measurements):,} measurements would have {bytes_text(len(text))}, "
            f"but at most {bytes_text(MAX_BYTES)} and {MAX_MEASUREMENTS:,} measurements can be "
            "imported. Filter the measurements and export them in parts."
        )
    return text


def max_json_size(measurements: Iterable[Measurement]) -> int:
    """Return an upper limit of the size of :func:`to_json` in bytes, without reading rounds."""
    return sum(
        _BYTES_PER_ROW
        + (_BYTES_PER_ANSWER + _BYTES_PER_TOKEN * row.configuration.new_tokens) * _answers_of(row)
        for row in measurements
    )


def _answers_of(row: Measurement) -> int:
    figures = row.figures
    if figures is None or figures.answers is None:
        return row.configuration.repeats
    return figures.answers + figures.answers_apart


def from_json(text: str | bytes) -> list[Measurement]:
    """Return the measurements of a document written by :func:`to_json` on any machine.

    Raises:
        BadRequestError: The document is invalid; the message says where. Nothing is imported then.
    """
    if len(text) > MAX_BYTES:
        raise BadRequestError(
            f"The file has {bytes_text(len(text))}, but at most {bytes_text(MAX_BYTES)} can be "
            "imported. Export it in parts."
        )
    found: dict[str, Measurement] = {}
    for number, measurement in enumerate(read_measurements(_rows(_parsed(_decoded(text)))), 1):
        if measurement.id in found:
            raise BadRequestError(
                f"Measurement {number:,} of the file has the same id as an earlier one. Export the "
                "file again on the machine that measured."
            )
        found[measurement.id] = measurement
    return list(found.values())


def _line(measurement: Measurement) -> str:
    return json.dumps(_plain(asdict(measurement)), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Convert a value to JSON types; infinite and NaN numbers become None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None  # as in the database; not a measured value, but the export must not fail
    if isinstance(value, str):
        return INVALID_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _decoded(text: str | bytes) -> str:
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRequestError(_OTHER_FILE) from error
    text = text.removeprefix("\N{BYTE ORDER MARK}")
    if not text.strip():
        raise BadRequestError("The file is empty. Export it again and choose the new file.")
    if text.count("{") + text.count("[") > _MAX_PARTS:
        raise BadRequestError(_OTHER_FILE)
    return text


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_hook=_limited)
    except json.JSONDecodeError as error:
        if not text.lstrip().startswith("{"):
            raise BadRequestError(_OTHER_FILE) from error
        raise BadRequestError(
            f"The file is damaged or incomplete at line {error.lineno:,}, column {error.colno:,}. "
            "Copy it again, or export it again."
        ) from error
    except (ValueError, RecursionError) as error:  # numbers with thousands of digits, deep nesting
        raise BadRequestError(_OTHER_FILE) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _limited(found: dict[str, Any]) -> dict[str, Any]:
    if len(found) > _MAX_FIELDS:
        raise ValueError("an object has too many fields")
    return found


def _rows(document: Any) -> list[Any]:
    if type(document) is not dict or document.get("format") != FORMAT:
        raise BadRequestError(_OTHER_FILE)
    version, rows = document.get("version"), document.get("measurements")
    if type(version) is int and version > VERSION:
        raise BadRequestError(
            "The file was written by a newer version of Paddock. Update Paddock to import it."
        )
    if (
        type(version) is not int
        or version != VERSION
        or type(rows) is not list
        or len(document) != 3
    ):
        raise BadRequestError(_OTHER_FILE)
    if len(rows) > MAX_MEASUREMENTS:
        raise BadRequestError(
            f"The file has {len(rows):,} measurements, but at most {MAX_MEASUREMENTS:,} can be "
            "imported. Export it in parts."
        )
    return rows
