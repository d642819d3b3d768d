"""Reads a list of instructions that a person pasted or uploaded."""

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

MOST_INSTRUCTIONS = 200
MAX_BYTES = 8 * 2**20
"""Of an uploaded file: 200 instructions of 40 000 characters."""
SEPARATOR = "---"
"""A line of this between instructions lets each have several lines."""
_FIELDS = ("instruction", "context")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a list."""

    instruction: str
    context: str = ""


def decode_upload(data: bytes, name: str) -> str:
    """Text of an uploaded file: UTF-8 or, with its mark, UTF-16.

    Raises:
        BadRequestError: too large, or no text.
    """
    if len(data) > MAX_BYTES:
        raise BadRequestError(
            f"{_shown(name)} has {len(data) / 2**20:.0f} MiB; the most that is read is "
            f"{MAX_BYTES / 2**20:.0f} MiB."
        )
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadRequestError(
            f"{_shown(name)} is not text in UTF-8 (byte {error.start + 1:,}); save it as UTF-8."
        ) from error


def parse_instructions(text: str, name: str = "") -> tuple[Instruction, ...]:
    """The instructions of a pasted text or an uploaded file.

    Plain text has one instruction a line or, where a line ``---`` stands anywhere, one between two
    such lines. CSV has a column ``instruction`` and perhaps ``context``, or a single column
    without a heading. JSON lines are strings, or objects with these two names.

    Args:
        text: what was pasted, or the file's content.
        name: the file's name, whose ending says what it is; empty for pasted text.

    Raises:
        BadRequestError: nothing in it, too many, or something that cannot be used; the text says
            in which line.
    """
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    ending = PurePath(name).suffix.lower()
    match ending:
        case "" | ".txt" | ".text" | ".md":
            found = _plain(text)
        case ".csv" | ".tsv":
            found = _table(text, name)
        case ".jsonl" | ".ndjson":
            found = _json_lines(text)
        case _:
            raise BadRequestError(
                f"{_shown(name)} cannot be read; give a .txt, .csv or .jsonl file."
            )
    instructions = []
    for line, instruction in found:
        if len(instructions) == MOST_INSTRUCTIONS:
            raise BadRequestError(
                f"There are more than {MOST_INSTRUCTIONS} instructions; "
                "leave the rest for another list."
            )
        instructions.append(_checked(line, instruction))
    if not instructions:
        raise BadRequestError("There is no instruction in it; write one a line.")
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


def _table(text: str, name: str) -> Iterator[tuple[int, Instruction]]:
    first = text.lstrip().partition("\n")[0]
    delimiter = max("\t;,", key=first.count)  # the comma where none occurs
    if name.lower().endswith(".csv") and not first.count(delimiter):
        delimiter = ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: dict[str, int] | None = None
    end = 0
    try:
        for row in reader:
            line, end = end + 1, reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                headings = [cell.strip().lower() for cell in row]
                columns = {field: headings.index(field) for field in _FIELDS if field in headings}
                if "instruction" in columns:
                    continue
                if len(row) > 1:
                    raise BadRequestError(
                        'The table has no column with the heading "instruction"; add it.'
                    )
                columns = {"instruction": 0}
            yield (
                line,
                Instruction(
                    **{field: row[at] if at < len(row) else "" for field, at in columns.items()}
                ),
            )
    except csv.Error as error:
        raise BadRequestError(
            f"Line {reader.line_num} is not proper CSV ({error}); correct it."
        ) from error


def _json_lines(text: str) -> Iterator[tuple[int, Instruction]]:
    # JSON strings may hold line separators that splitlines() would cut at.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(
                f"Line {number} is not JSON; write one string or object a line."
            ) from error
        yield number, _from_json(number, value)


def _from_json(number: int, value: Any) -> Instruction:
    if isinstance(value, str):
        return Instruction(value)
    if not isinstance(value, dict) or "instruction" not in value:
        raise BadRequestError(
            f'Line {number} is no instruction; write a string, or an object with "instruction".'
        )
    fields = {field: value.get(field) or "" for field in _FIELDS}
    for field, content in fields.items():
        if not isinstance(content, str):
            raise BadRequestError(f'The "{field}" in line {number} is not a string; correct it.')
    return Instruction(**fields)


def _checked(line: int, found: Instruction) -> Instruction:
    try:
        request = GenerationRequest(found.instruction, found.context).validated()
    except BadRequestError as error:
        raise BadRequestError(f"Line {line} cannot be used: {error}") from error
    return Instruction(request.instruction, request.context)


def _shown(name: str) -> str:
    printable = "".join(character for character in name if character.isprintable())
    return printable[:80] or "The file"
