"""Measurements as files: JSON to take to another machine, CSV for sheets, Markdown to read.

The JSON document is ``{"format": "paddock-benchmark", "version": 1, "measurements": [...]}``, one
measurement a line, in the fields and units of :mod:`core.db.measurement_values`. It is read
back without loss, and as what it is: a file that anybody may have written.
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
from core.metrics.import_schema import UNFIT, UnfitError, read_measurement
from core.metrics.tables import spreadsheet_text, to_csv, to_markdown

__all__ = [
    "MAX_BYTES",
    "MAX_MEASUREMENTS",
    "from_json",
    "largest_json",
    "spreadsheet_text",
    "to_csv",
    "to_json",
    "to_markdown",
]

FORMAT = "paddock-benchmark"
VERSION = 1
"""Goes up with every change that an older Paddock would misread."""

MAX_BYTES = 50 * 2**20
"""Of a file: thousands of measurements with the time of every token."""

MAX_MEASUREMENTS = 100_000
"""Of a file."""

_MAX_PARTS = 1_000_000
"""Objects and lists in a file. A measured answer has two, and takes hundreds of bytes; a file of
nothing but empty lists would take gigabytes of memory once it is read."""

_BYTES_PER_TOKEN = 24
"""A token's time in a file: up to seventeen digits, a point, a comma and a blank."""

_BYTES_PER_ANSWER = 250
"""Its other figures, with their names."""

_BYTES_PER_ROW = 8_000
"""Everything else of a measurement; some three thousand, and names may be long."""

_OTHER_FILE = (
    "The file is not a Paddock benchmark; choose the JSON file that Export, or "
    "`python -m core bench --json`, wrote."
)


def to_json(measurements: Sequence[Measurement]) -> str:
    """All that is known of the measurements; the same ones give the same text.

    Characters that are no text (a folder's name may hold them) become U+FFFD.

    Raises:
        BadRequestError: the file would be too large to be imported anywhere.
    """
    lines = ",\n".join(_line(measurement) for measurement in measurements)
    text = f'{{"format": "{FORMAT}", "version": {VERSION}, "measurements": [\n{lines}\n]}}\n'
    if len(measurements) > MAX_MEASUREMENTS or len(text.encode()) > MAX_BYTES:
        raise BadRequestError(
            f"{len(measurements):,} measurements make a file of {len(text) / 2**20:,.0f} MiB, more "
            f"than can be imported ({MAX_BYTES // 2**20} MiB); filter them and export in parts."
        )
    return text


def largest_json(measurements: Iterable[Measurement]) -> int:
    """Bytes that :func:`to_json` makes of them at the most, without reading their answers."""
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
    """The measurements of a document that :func:`to_json` wrote, here or elsewhere.

    Raises:
        BadRequestError: it is no such document, or holds what no measurement does; the text says
            where. Nothing of it is used then.
    """
    if len(text) > MAX_BYTES:
        raise BadRequestError(
            f"The file has {len(text) / 2**20:,.0f} MiB, and {MAX_BYTES // 2**20} MiB are the most "
            "that is imported at once; export it in parts."
        )
    rows = _rows(_parsed(_decoded(text)))
    found: dict[str, Measurement] = {}
    for number, row in enumerate(rows, start=1):
        measurement = _measurement(row, number)
        if measurement.id in found:
            raise BadRequestError(
                f"Measurement {number:,} of the file has the id of an earlier one; export it again "
                "on the machine that measured."
            )
        found[measurement.id] = measurement
    return list(found.values())


def _line(measurement: Measurement) -> str:
    return json.dumps(_plain(asdict(measurement)), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """The value in JSON's types, as far as it has a place there; what has none is left out."""
    if isinstance(value, float) and not math.isfinite(value):
        return None  # as in the database; never measured, but an export must not fail for it
    if isinstance(value, str):
        return UNFIT.sub("\N{REPLACEMENT CHARACTER}", value)
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
        raise BadRequestError("The file is empty; export it again and choose the new one.")
    if text.count("{") + text.count("[") > _MAX_PARTS:
        raise BadRequestError(_OTHER_FILE)
    return text


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if not text.lstrip().startswith("{"):
            raise BadRequestError(_OTHER_FILE) from error
        raise BadRequestError(
            f"The file is damaged or cut off at line {error.lineno:,}, column {error.colno:,}; "
            "copy it anew, or export it again."
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; deep nesting
        raise BadRequestError(_OTHER_FILE) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _rows(document: Any) -> list[Any]:
    if type(document) is not dict or document.get("format") != FORMAT:
        raise BadRequestError(_OTHER_FILE)
    version, rows = document.get("version"), document.get("measurements")
    if type(version) is int and version > VERSION:
        raise BadRequestError(
            "The file was written by a newer Paddock than this one; update Paddock to import it."
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
            f"The file holds {len(rows):,} measurements, and {MAX_MEASUREMENTS:,} are the most "
            "that is imported at once; export it in parts."
        )
    return rows


def _measurement(row: Any, number: int) -> Measurement:
    try:
        return read_measurement(row)
    except UnfitError as error:
        raise BadRequestError(
            f"Measurement {number:,} of the file cannot be used: {error.where or 'it'} "
            f"{error.said}; export it again on the machine that measured."
        ) from error
