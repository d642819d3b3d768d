"""Test sets: cases from CSV, JSON and JSON lines, and back."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, ClassVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from core.catalogue.presets import presets
from core.compare.instructions import csv_rows, json_lines, parse_instructions
from core.embedded.tasks import held_out_tasks
from core.errors import BadRequestError
from core.evaluation.checks import applies, problem_of
from core.inference.request import GenerationRequest, check_text
from core.metrics.tables import CSV_MARK, csv_text, spreadsheet_text
from core.units import counted

MAX_CASES = 2000
MAX_CHECKS = 20
"""Per case."""
MAX_NAME = 100
DEFAULT_CHECKS = ("ends", "f1: 0.3")
"""Checks of cases without their own; one that needs an expected answer or a context is left out
where there is none."""
FORMAT = "paddock-test-set"
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


@dataclass(frozen=True)
class TestSet:
    """A named table of cases."""

    __test__: ClassVar[bool] = False  # not a class of tests

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


def read_test_set(text: str, name: str = "") -> TestSet:
    """Parse a pasted text or the content of a file.

    Args:
        text: CSV with a header, a JSON list, the JSON of :func:`to_json`, JSON lines, or one
            instruction per line.
        name: name of the file; empty for pasted text.

    Raises:
        BadRequestError: no case, too many, or an invalid one; the text says which.
    """
    text = text.removeprefix(CSV_MARK)
    title, checks = PurePath(name).stem[:MAX_NAME] or "Pasted", DEFAULT_CHECKS
    begins, suffix = text.lstrip()[:1], PurePath(name).suffix.lower()
    if suffix in (".csv", ".tsv") or (not suffix and _has_header(text)):
        records: Iterable[Any] = _csv_records(text, "\t" if suffix == ".tsv" else ",")
    elif begins in ("[", "{") or suffix in (".json", ".jsonl", ".ndjson"):
        value = _json_value(text)
        if isinstance(value, Mapping) and "cases" in value:
            title = str(value.get("name") or title)[:MAX_NAME]
            default = _lines(value.get("default_checks", DEFAULT_CHECKS))
            if not isinstance(default, list):
                raise BadRequestError("default_checks is not a list. Correct it.")
            checks = tuple(map(str, default))
            value = value["cases"]
        elif isinstance(value, Mapping):  # JSON lines with one line
            value = [value]
        if not isinstance(value, list):
            raise BadRequestError(
                "The file is not a list of cases. Write a JSON list of objects with an "
                '"instruction".'
            )
        records = value
    else:
        records = [
            {"instruction": each.instruction, "context": each.context}
            for each in parse_instructions(text, name)
        ]
    return checked(TestSet(title, tuple(_cases(records)), checks))


def checked(test_set: TestSet) -> TestSet:
    """Return the set without blank cases and with unique ids, after checking its texts and size.

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
        raise BadRequestError("The test set has no case. Add an instruction.")
    if len(cases) > MAX_CASES:
        raise BadRequestError(
            f"The test set has {len(cases):,} cases. Use a part of it: at most {MAX_CASES:,}."
        )
    name = " ".join(test_set.name.split())[:MAX_NAME] or "Test set"
    return TestSet(name, tuple(cases), test_set.default_checks)


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
    try:
        return json.loads(text)
    except RecursionError:
        raise BadRequestError("The file is nested too deeply. Write a list of cases.") from None
    except ValueError:
        pass
    remedy = "Write one object per line, or one list."
    return [value for _, value in json_lines(text, remedy)]


def _has_header(text: str) -> bool:
    first = text.strip().partition("\n")[0].lower()
    names = [
        part.strip().strip('"') for part in first.replace("\t", ",").replace(";", ",").split(",")
    ]
    return "instruction" in names


def _csv_records(text: str, fallback: str) -> Iterable[dict[str, str]]:
    rows = (row for _, row in csv_rows(text, fallback))
    names = next(rows, [])
    for row in rows:
        yield {name: _unquoted(cell) for name, cell in zip(names, row, strict=False)}


def _unquoted(cell: str) -> str:
    """Undo :func:`core.metrics.tables.spreadsheet_text`."""
    return cell[1:] if cell.startswith("'") and spreadsheet_text(cell[1:]) == cell else cell


# Writing


def content_of(test_set: TestSet) -> dict[str, Any]:
    """Return the set as a JSON value, for storage."""
    return {
        "format": FORMAT,
        "name": test_set.name,
        "default_checks": list(test_set.default_checks),
        "cases": [case.model_dump(mode="json") for case in test_set.cases],
    }


def of_content(content: Mapping[str, Any]) -> TestSet:
    """Return the set that :func:`content_of` returned."""
    return TestSet(
        content["name"],
        tuple(map(Case.model_validate, content["cases"])),
        tuple(content["default_checks"]),
    )


def to_json(test_set: TestSet) -> str:
    """Return the set as JSON that :func:`read_test_set` reads."""
    return json.dumps(content_of(test_set), indent=1, ensure_ascii=False)


def to_csv(test_set: TestSet) -> str:
    """Return the cases as CSV that spreadsheets show and :func:`read_test_set` reads."""
    return csv_text(
        [
            {
                "id": case.id,
                "instruction": case.instruction,
                "context": case.context,
                "expected": case.expected,
                "checks": "\n".join(case.checks),
                "tags": ", ".join(case.tags),
            }
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
    return TestSet("Examples", tuple(cases), ("ends", "grounded"))


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
    return TestSet("Held-out tasks of the tiny demos", tuple(cases))


def with_context(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Return the cases that have a context passage."""
    return tuple(case for case in cases if case.context)
