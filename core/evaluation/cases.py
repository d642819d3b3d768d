"""Test sets, and lists of instructions: cases from CSV, JSON and plain text, and back."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from core.catalogue.presets import presets
from core.embedded.tasks import held_out_tasks
from core.errors import BadRequestError
from core.evaluation.checks import applies, problem_of
from core.inference.request import GenerationRequest, check_text
from core.metrics.tables import CSV_MARK, csv_text, spreadsheet_text
from core.units import bytes_text, counted

MAX_CASES = 2000
MAX_BYTES = 8 * 2**20
"""Of an uploaded file."""
MAX_CHECKS = 20
"""Per case."""
MAX_NAME = 100
DEFAULT_CHECKS = ("ends", "f1: 0.3")
"""Checks of cases without their own; one that needs an expected answer or a context is left out
where there is none."""
FORMAT = "paddock-test-set"
SEPARATOR = "---"
"""Line of a plain text between instructions that have several lines."""
_COLUMNS = ("id", "instruction", "context", "expected", "checks", "tags")


def _text(value: Any) -> Any:
    return "" if value is None else value


def _lines(value: Any) -> Any:
    """From a list, a text of several lines, or a mapping of checks to their arguments."""
    if isinstance(value, str):
        return [line.strip() for line in value.splitlines() if line.strip()]
    if isinstance(value, Mapping):
        value = [{name: argument} for name, argument in value.items()]
    if isinstance(value, list | tuple):
        return [_check_text(each) for each in value]
    return [] if value is None else value


def _check_text(value: Any) -> Any:
    if isinstance(value, Mapping) and len(value) == 1:
        name, argument = next(iter(value.items()))
        if argument in (None, "", True):
            return str(name)
        return f"{name}: {argument if isinstance(argument, str) else json.dumps(argument)}"
    return value


def _tags(value: Any) -> Any:
    if isinstance(value, str):
        value = value.replace(";", ",").split(",")
    if isinstance(value, list | tuple):
        return [each.strip() if isinstance(each, str) else each for each in value if each]
    return [] if value is None else value


Text = Annotated[str, BeforeValidator(_text)]


class Case(BaseModel):
    """One instruction of a test set. Field names of databricks-dolly-15k are understood."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True, populate_by_name=True)

    instruction: Text = Field(validation_alias=AliasChoices("instruction", "prompt"))
    context: Text = Field("", validation_alias=AliasChoices("context", "input"))
    expected: Text = Field(
        "", validation_alias=AliasChoices("expected", "response", "output", "answer")
    )
    checks: Annotated[tuple[str, ...], BeforeValidator(_lines)] = Field((), max_length=MAX_CHECKS)
    tags: Annotated[tuple[str, ...], BeforeValidator(_tags)] = Field(
        (), validation_alias=AliasChoices("tags", "category", "tag"), max_length=MAX_CHECKS
    )
    id: Text = ""

    @property
    def key(self) -> str:
        """Identifies the case in several runs: its id, or a hash of instruction and context."""
        if self.id:
            return self.id
        return hashlib.sha256(f"{self.instruction}\0{self.context}".encode()).hexdigest()[:16]


class TestSet(BaseModel):
    """A named table of cases."""

    __test__: ClassVar[bool] = False  # not a class of tests
    model_config = ConfigDict(frozen=True)

    name: str
    cases: tuple[Case, ...]
    default_checks: tuple[str, ...] = DEFAULT_CHECKS

    def checks_of(self, case: Case) -> tuple[str, ...]:
        """Return the checks of a case: its own, or the default ones that apply to it."""
        return case.checks or tuple(
            check
            for check in self.default_checks
            if applies(check, context=case.context, expected=case.expected)
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags, sorted."""
        return tuple(sorted({tag for case in self.cases for tag in case.tags}))

    def problems(self) -> list[str]:
        """Return what is wrong with the checks, as sentences; their cases get an error."""
        found: dict[str, list[int]] = {}
        for number, case in enumerate(self.cases, 1):
            for check in self.checks_of(case):
                if problem := problem_of(check):
                    found.setdefault(problem, []).append(number)
        return [
            f"Case {numbers[0]}: {problem}"
            if len(numbers) == 1
            else f"{problem} ({counted(len(numbers), 'case')}, the first is {numbers[0]}.)"
            for problem, numbers in found.items()
        ]


# Reading


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


def read_test_set(text: str, name: str = "", *, plain: bool = False) -> TestSet:
    """Parse a pasted text or the content of a file.

    Args:
        text: a table with a header, or with one column; a JSON list, the JSON of :func:`to_json` or
            JSON lines; or plain text with one instruction per line or, if it contains a line
            ``---``, instructions separated by such lines.
        name: name of the file, whose extension gives the format; empty for pasted text, which is
            recognised by its beginning, as files of other extensions are.
        plain: whether a text of no other extension is plain even if it begins like JSON.

    Raises:
        BadRequestError: it cannot be read; the text says which case or line.
    """
    text = text.removeprefix(CSV_MARK)
    title, checks = PurePath(name).stem[:MAX_NAME] or "Pasted", DEFAULT_CHECKS
    begins, suffix = text.lstrip()[:1], PurePath(name).suffix.lower()
    records: Iterable[Any]
    if suffix in (".csv", ".tsv") or (not suffix and _has_header(text)):
        records = _csv_records(text, "\t" if suffix == ".tsv" else ",")
    elif suffix in (".json", ".jsonl", ".ndjson") or (not plain and begins in ("[", "{")):
        value = _json_value(text)
        if isinstance(value, Mapping) and "cases" in value:
            title = str(value.get("name") or title)[:MAX_NAME]
            default = _lines(value.get("default_checks", DEFAULT_CHECKS))
            if not isinstance(default, list):
                raise BadRequestError("default_checks is not a list. Correct it.")
            checks = tuple(map(str, default))
            value = value["cases"]
        records = value if isinstance(value, list) else [value]
    elif suffix in ("", ".txt", ".text", ".md"):
        records = _plain_instructions(text)
    else:
        raise BadRequestError(
            f"{_shown(name)} has an unsupported format. Use a .txt, .csv or .jsonl file."
        )
    return TestSet(name=title, cases=tuple(_cases(records)), default_checks=checks)


def checked(test_set: TestSet, most: int = MAX_CASES) -> TestSet:
    """Return the set without blank cases and with unique ids, after checking its texts and size.

    Args:
        most: maximum number of cases.

    Raises:
        BadRequestError: no case, too many, or an invalid text.
    """
    cases: list[Case] = []
    seen: set[str] = set()
    repeated: Counter[str] = Counter()
    for number, case in enumerate(test_set.cases, 1):
        if not (case.instruction.strip() or case.context.strip() or case.expected.strip()):
            continue
        try:
            GenerationRequest(case.instruction, case.context).validated()
            check_text("expected answer", case.expected)
        except BadRequestError as error:
            raise BadRequestError(f"Case {number} is invalid: {error}") from error
        key = case.key
        while case.key in seen:  # its result must not be mistaken for the other's
            repeated[key] += 1
            case = case.model_copy(update={"id": f"{key}-{repeated[key] + 1}"})
        seen.add(case.key)
        cases.append(case)
    if not cases:
        raise BadRequestError("There is no case. Add an instruction.")
    if len(cases) > most:
        raise BadRequestError(f"There are {len(cases):,} cases. Use at most {most:,} of them.")
    name = " ".join(test_set.name.split())[:MAX_NAME] or "Test set"
    return test_set.model_copy(update={"name": name, "cases": tuple(cases)})


def _cases(records: Iterable[Any]) -> Iterable[Case]:
    for number, record in enumerate(records, 1):
        if isinstance(record, str):
            record = {"instruction": record}
        if not isinstance(record, Mapping):
            raise BadRequestError(
                f"Case {number} is not an object with an instruction. Correct it."
            )
        row = {str(name).strip().lower(): value for name, value in record.items()}
        instances = row.pop("instances", None)
        if not isinstance(instances, list) or not instances:
            yield _case(number, row)
            continue
        # Self-Instruct: an instruction with several inputs.
        for at, instance in enumerate(instances):
            own = instance if isinstance(instance, Mapping) else {}
            ending = f"/{at + 1}" if len(instances) > 1 else ""
            tag = {"tags": [row["motivation_app"]]} if row.get("motivation_app") else {}
            yield _case(number, {**row, **tag, **own, "id": f"{row.get('id', number)}{ending}"})


def _case(number: int, row: Mapping[str, Any]) -> Case:
    try:
        return Case.model_validate(row)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        field = found["loc"][0] if found["loc"] else "case"
        if found["type"] == "missing":
            raise BadRequestError(
                f"Case {number} has no instruction. The fields are {', '.join(_COLUMNS)}, or those "
                "of databricks-dolly-15k."
            ) from error
        if found["type"] == "too_long":
            raise BadRequestError(
                f"Case {number} has more than {MAX_CHECKS} {field}. Remove some."
            ) from error
        raise BadRequestError(f'The "{field}" of case {number} is not text. Correct it.') from error


def _json_value(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    values = []
    # JSON strings may contain line separators at which splitlines() would split.
    for number, line in enumerate(text.split("\n"), 1):
        try:
            values += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise BadRequestError(
                f"Line {number} is not valid JSON. Write one object per line, or one list."
            ) from error
    return values


def _has_header(text: str) -> bool:
    first = text.strip().partition("\n")[0].lower()
    names = [
        part.strip().strip('"') for part in first.replace("\t", ",").replace(";", ",").split(",")
    ]
    return "instruction" in names


def _csv_records(text: str, fallback: str) -> Iterator[dict[str, str]]:
    """Yield the rows that are not empty.

    The delimiter is the most frequent of tab, semicolon and comma in the first line.

    Args:
        fallback: the delimiter if the first line has none, because there is one column.
    """
    first = text.lstrip().partition("\n")[0]
    delimiter = max("\t;,", key=first.count)
    if delimiter not in first:
        delimiter = fallback
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if names:
                yield {name: _unquoted(cell) for name, cell in zip(names, row, strict=False)}
            elif len(row) > 1 or row[0].strip().lower() in ("instruction", "prompt"):
                names = row
            else:  # one column needs no header
                names = ["instruction"]
                yield {"instruction": _unquoted(row[0])}
    except csv.Error as error:
        raise BadRequestError(
            f"Line {reader.line_num} is not valid CSV ({error}). Correct it."
        ) from error


def _plain_instructions(text: str) -> list[str]:
    """Return the instructions, and blank texts that :func:`checked` leaves out."""
    lines = text.splitlines()
    if not any(line.strip() == SEPARATOR for line in lines):
        return [line.strip() for line in lines]
    parts = re.split(rf"(?m)^[^\S\n]*{SEPARATOR}[^\S\n]*$", "\n".join(lines))
    return [part.strip() for part in parts]


def _shown(name: str) -> str:
    printable = "".join(character for character in name if character.isprintable())
    return printable[:80] or "The file"


def _unquoted(cell: str) -> str:
    """Undo :func:`core.metrics.tables.spreadsheet_text`."""
    return cell[1:] if cell.startswith("'") and spreadsheet_text(cell[1:]) == cell else cell


# Writing


def content_of(test_set: TestSet) -> dict[str, Any]:
    """Return the set as a JSON value, for storage."""
    return {"format": FORMAT} | test_set.model_dump(mode="json")


def to_json(test_set: TestSet) -> str:
    """Return the set as JSON that :func:`read_test_set` reads."""
    return json.dumps(content_of(test_set), indent=1, ensure_ascii=False)


def to_csv(test_set: TestSet) -> str:
    """Return the cases as CSV that spreadsheets show and :func:`read_test_set` reads."""
    return csv_text(
        [
            {name: getattr(case, name) for name in _COLUMNS}
            | {"checks": "\n".join(case.checks), "tags": ", ".join(case.tags)}
            for case in test_set.cases
        ]
    )


# Sets that come with Paddock


def preset_set() -> TestSet:
    """Return the example instructions of the Instruct page."""
    cases = [
        Case(instruction=each.instruction, context=each.context, tags=(each.category,))
        for each in presets()
    ]
    return TestSet(name="Examples", cases=tuple(cases), default_checks=("ends", "grounded"))


def held_out_set() -> TestSet:
    """Return the held-out tasks of the tiny demo models, with their rules."""
    cases = [
        Case(
            instruction=task.instruction,
            context=task.context,
            expected=task.answer,
            checks=(f"held-out task: {number}",),
            tags=(task.category,),
        )
        for number, task in enumerate(held_out_tasks(), 1)
    ]
    return TestSet(name="Held-out tasks of the tiny demos", cases=tuple(cases))
