"""The cases that ``evaluate`` takes from a file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from core.cli.evaluate import _test_set


def keys_of(file: Path, **options: Any) -> list[str]:
    given = {"first": None, "context_only": False, "check": None, **options}
    return [case.key for case in _test_set(Namespace(set=str(file), **given)).cases]


def test_blank_lines_are_not_among_the_first_cases(tmp_path: Path):
    file = tmp_path / "cases.txt"
    file.write_text("\na\n\nb\n\nc\n")
    assert keys_of(file, first=2) == keys_of(file)[:2]
    assert len(keys_of(file)) == 3


def test_selected_cases_keep_the_ids_that_they_have_in_the_whole_set(tmp_path: Path):
    file = tmp_path / "cases.csv"
    file.write_text("id,instruction,context\nq1,Why?,\nq1,How?,It rains.\n")
    assert keys_of(file) == ["q1", "q1-2"]
    assert keys_of(file, context_only=True) == ["q1-2"]
