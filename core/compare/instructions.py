"""Reads a list of instructions that a user pasted or uploaded."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from core.errors import BadRequestError
from core.inference.request import GenerationRequest
from core.units import bytes_text

MAX_INSTRUCTIONS = 200
MAX_BYTES = 8 * 2**20
"""Largest uploaded file: 200 instructions of 40 000 characters."""
SEPARATOR = "---"
"""Line between instructions that have several lines."""
_FIELDS = ("instruction", "context")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a list."""

    instruction: str
    context: str = ""


def decode_upload(data: bytes, name: str) -> str:
    """Decode an uploaded file as UTF-8, UTF-16 or UTF-32.

    Raises:
        BadRequestError: the file is too large or not text.
    """
    if len(data) > MAX_BYTES:
        raise BadRequestError(
            f"{_shown(name)} has {bytes_text(len(data))}, but the limit is "
            f"{bytes_text(MAX_BYTES)}. Split the file."
        )
    try:
        return data.decode(json.detect_encoding(data))  # Windows tools write UTF-16
    except UnicodeDecodeError as error:
        raise BadRequestError(
            f"{_shown(name)} is not UTF-8 text (byte {error.start + 1:,}). Save it as UTF-8."
        ) from error


def parse_instructions(text: str, name: str = "") -> tuple[Instruction, ...]:
    """Parse the instructions of a pasted text or an uploaded file.

    Plain text has one instruction per line or, if it contains a line ``---``, instructions
    separated by such lines. CSV has a column ``instruction`` and optionally ``context``, or a
    single column without a header. JSON lines are strings, or objects with these two names.

    Args:
        text: the pasted text, or the content of the file.
        name: name of the file, whose extension gives the format; empty for pasted text.

    Raises:
        BadRequestError: no instruction, too many, or an invalid one; the text names the line.
    """
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    ending = PurePath(name).suffix.lower()
    match ending:
        case "" | ".txt" | ".text" | ".md":
            found = _plain(text)
        case ".csv" | ".tsv":
            found = _table(text, "\t" if ending == ".tsv" else ",")
        case ".jsonl" | ".ndjson":
            found = _from_json(text)
        case _:
            raise BadRequestError(
                f"{_shown(name)} has an unsupported format. Use a .txt, .csv or .jsonl file."
            )
    instructions = []
    for line, instruction in found:
        if len(instructions) == MAX_INSTRUCTIONS:
            raise BadRequestError(
                f"The list has more than {MAX_INSTRUCTIONS} instructions. "
                "Split it into several lists."
            )
        instructions.append(_checked(line, instruction))
    if not instructions:
        raise BadRequestError("The list has no instruction. Write one per line.")
    return tuple(instructions)


def _plain(text: str) -> Iterator[tuple[int, Instruction]]:
    lines = text.splitlines()
    if not any(line.strip() == SEPARATOR for line in lines):
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, Instruction(line)
        return
    block: list[str] = []
    for number, line in enumerate([*lines, SEPARATOR], 1):
        if line.strip() != SEPARATOR:
            block.append(line)
            continue
        if any(part.strip() for part in block):
            yield number - len(block), Instruction("\n".join(block))
        block = []


def csv_rows(text: str, fallback: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table that are not empty, with their line numbers.

    The delimiter is the most frequent of tab, semicolon and comma in the first line.

    Args:
        fallback: the delimiter if the first line has none, because there is one column.

    Raises:
        BadRequestError: it is not valid CSV; the text names the line.
    """
    first = text.lstrip().partition("\n")[0]
    delimiter = max("\t;,", key=first.count)
    if delimiter not in first:
        delimiter = fallback
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadRequestError(
            f"Line {reader.line_num} is not valid CSV ({error}). Correct it."
        ) from error


def json_lines(text: str, remedy: str) -> Iterator[tuple[int, Any]]:
    """Yield the values of JSON lines with their line numbers.

    Raises:
        BadRequestError: a line is not valid JSON; the text ends with the remedy.
    """
    # JSON strings may contain line separators at which splitlines() would split.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"Line {number} is not valid JSON. {remedy}") from error


def _table(text: str, fallback: str) -> Iterator[tuple[int, Instruction]]:
    columns: dict[str, int] = {}
    for line, row in csv_rows(text, fallback):
        if not columns:
            headings = [cell.strip().lower() for cell in row]
            columns = {field: headings.index(field) for field in _FIELDS if field in headings}
            if "instruction" in columns:
                continue
            if len(row) > 1:
                raise BadRequestError('The table has no column "instruction". Add it.')
            columns = {"instruction": 0}
        cells = {field: row[at] if at < len(row) else "" for field, at in columns.items()}
        yield line, Instruction(**cells)


def _from_json(text: str) -> Iterator[tuple[int, Instruction]]:
    for number, value in json_lines(text, "Write one string or object per line."):
        if isinstance(value, str):
            value = {"instruction": value}
        if not isinstance(value, dict) or "instruction" not in value:
            raise BadRequestError(
                f"Line {number} has no instruction. Write a string, or an object with "
                '"instruction".'
            )
        fields = {field: value.get(field) or "" for field in _FIELDS}
        for field, content in fields.items():
            if not isinstance(content, str):
                raise BadRequestError(
                    f'The "{field}" in line {number} is not a string. Correct it.'
                )
        yield number, Instruction(**fields)


def _checked(line: int, found: Instruction) -> Instruction:
    try:
        request = GenerationRequest(found.instruction, found.context).validated()
    except BadRequestError as error:
        raise BadRequestError(f"Line {line} is invalid: {error}") from error
    return Instruction(request.instruction.strip(), request.context.strip())


def _shown(name: str) -> str:
    printable = "".join(character for character in name if character.isprintable())
    return printable[:80] or "The file"
