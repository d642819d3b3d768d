"""Test sets: what is read, refused and written."""

from __future__ import annotations

import json

import pytest

from core.errors import BadRequestError
from core.evaluation.cases import (
    MAX_CASES,
    Case,
    TestSet,
    checked,
    held_out_set,
    preset_set,
    read_test_set,
    to_csv,
    to_json,
)


def test_dolly_and_self_instruct_lines_are_understood():
    dolly = '{"instruction": "Who?", "context": "Ann.", "response": "Ann", "category": "closed_qa"}'
    (case,) = read_test_set(dolly, "dolly.jsonl").cases
    assert (case.context, case.expected, case.tags) == ("Ann.", "Ann", ("closed_qa",))
    row = {
        "id": "task_0",
        "motivation_app": "Mail",
        "instruction": "Rewrite.",
        "instances": [{"input": "a", "output": "b"}, {"input": "c", "output": "d"}],
    }
    first, second = read_test_set(json.dumps(row), "self.jsonl").cases
    assert (first.context, first.expected, first.tags) == ("a", "b", ("Mail",))
    assert (first.id, second.id) == ("task_0/1", "task_0/2")


def test_csv_and_json_round_trips_keep_every_case():
    cases = (
        Case(
            instruction="=cmd|' /C calc'!A0",
            context="two\nlines",
            expected="'quoted",
            checks=("regex: a,b", "ends"),
            tags=("x", "y z"),
            id="7",
        ),
        Case(instruction="-1 + 1?", checks=('json: {"type": "array"}',)),
    )
    given = TestSet("Ours", cases, ("ends",))
    text = to_csv(given)
    assert "\n=" not in text and ",=" not in text and ",'=cmd" in text
    assert read_test_set(text, "ours.csv").cases == cases
    assert read_test_set(to_json(given), "other.json") == given


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Say hi.\nSay bye.", ""),
        ("instruction\tchecks\nSay hi.\tends\nSay bye.\tends", ""),
        ('["Say hi.", {"prompt": "Say bye.", "checks": "ends"}]', ""),
        ('{"instruction": "Say hi."}\n\n{"Instruction": "Say bye.", "id": 4}', "x.jsonl"),
    ],
)
def test_pasted_texts_are_recognised(text: str, name: str):
    found = read_test_set(text, name).cases
    assert [case.instruction for case in found] == ["Say hi.", "Say bye."]


def test_one_column_of_a_tsv_may_contain_commas():
    (case,) = read_test_set("instruction\nTranslate this: hello, world", "x.tsv").cases
    assert case.instruction == "Translate this: hello, world"


def test_checks_may_be_objects():
    text = '[{"instruction": "x", "checks": {"json": {"type": "array"}, "words": 5, "ends": null}}]'
    assert read_test_set(text).cases[0].checks == ('json: {"type": "array"}', "words: 5", "ends")


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ("", "x.csv", "has no case"),
        ("question,answer\na,b", "x.csv", "Case 1 has no instruction"),
        ('{"instruction": ["a"]}', "x.jsonl", 'The "instruction" of case 1 is not text'),
        ('{"instruction": "a"}\n{"instr', "x.jsonl", "Line 2 is not valid JSON"),
        ('a,"b', "x.csv", "not valid CSV"),
        ("[1]", "x.json", "Case 1 is not an object"),
        ('{"cases": ["a"], "default_checks": 5}', "x.json", "default_checks is not a list"),
        ('[{"instruction": "a\\u0000"}]', "x.json", "Case 1 is invalid"),
        ("[" * 100_000, "x.json", "nested too deeply"),
        ("\n".join(f"Say {n}." for n in range(150)), "x.pdf", "unsupported format"),
        (
            "instruction\n" + "\n".join(f"Say {n}." for n in range(10_000)),
            "x.csv",
            "has 10,000 cases",
        ),
    ],
)
def test_unreadable_file_is_one_sentence(text: str, name: str, part: str):
    with pytest.raises(BadRequestError, match=part):
        checked(read_test_set(text, name))


def test_equal_cases_get_ids_of_their_own_and_blank_ones_are_left_out():
    case = Case(instruction="Say hi.")
    found = checked(TestSet("x", (case, Case(instruction=" "), case))).cases
    assert len({each.key for each in found}) == 2 and found[0].key == case.key
    named = [Case(instruction="x", id=each) for each in ("a", "a-2", "a", "a", "a-2")]
    keys = [each.key for each in checked(TestSet("x", tuple(named))).cases]
    assert keys == ["a", "a-2", "a-3", "a-4", "a-2-2"]


def test_default_checks_apply_where_they_can():
    given = TestSet(
        "x",
        (Case(instruction="a"), Case(instruction="b", expected="c")),
        ("ends", "f1: 1", "equals", "contains: d"),
    )
    assert given.checks_of(given.cases[0]) == ("ends", "contains: d")
    assert given.checks_of(given.cases[1]) == ("ends", "f1: 1", "equals", "contains: d")
    assert given.checks_of(Case(instruction="a", checks=("words: 1",))) == ("words: 1",)


def test_broken_checks_are_listed_once():
    cases = (
        Case(instruction="a", checks=("regex: (",)),
        Case(instruction="b", checks=("regex: (",)),
    )
    (problem,) = TestSet("x", cases).problems()
    assert "2 cases, the first is 1" in problem
    assert MAX_CASES >= len(checked(held_out_set()).cases) == 200
    assert checked(preset_set()).problems() == held_out_set().problems() == []
