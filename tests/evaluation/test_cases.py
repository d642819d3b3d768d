"""Test sets: what is read, refused and written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadRequestError
from core.evaluation.cases import (
    MAX_BYTES,
    MAX_CASES,
    Case,
    TestSet,
    checked,
    decode_upload,
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
    given = TestSet(name="Ours", cases=cases, default_checks=("ends",))
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


def read(text: str, name: str = "", *, plain: bool = False) -> list[tuple[str, str]]:
    cases = checked(read_test_set(text, name, plain=plain)).cases
    return [(case.instruction, case.context) for case in cases]


def test_one_column_of_a_tsv_may_contain_commas_and_needs_no_header():
    text = "instruction\nTranslate this: hello, world\n"
    assert read(text, "x.tsv") == [("Translate this: hello, world", "")]
    assert read("Why?\nHow, then?\n", "x.TSV") == [("Why?", ""), ("How, then?", "")]
    assert read('Why?\n"How, then?"\n', "x.csv") == [("Why?", ""), ("How, then?", "")]


@pytest.mark.parametrize("name", ["", "list.txt", "LIST.TXT"])
def test_each_line_of_a_text_is_an_instruction(name: str):
    text = "\ufeffWhy?\r\n\r\n  How, then?  \n"
    assert read(text, name) == [("Why?", ""), ("How, then?", "")]


def test_separators_allow_instructions_of_several_lines():
    text = "Sort these:\n\n  - b\n  - a\n---\n\n---\nWhy?\n--- \n"
    assert read(text) == [("Sort these:\n\n  - b\n  - a", ""), ("Why?", "")]


@pytest.mark.parametrize("name", ["", "list.txt"])
def test_plain_text_is_not_taken_for_json(name: str):
    expected = [("[INST] Why?", ""), ("{name}, how?", "")]
    assert read("[INST] Why?\n{name}, how?", name, plain=True) == expected


def test_json_in_a_text_file_is_a_test_set():
    assert read('[{"instruction": "Why?"}]', "set.txt") == [("Why?", "")]


@pytest.mark.parametrize(("sign", "name"), [(";", "a.csv"), ("\t", "a.tsv"), ("\t", "a.csv")])
def test_csv_with_other_delimiters(sign: str, name: str):
    text = "id\tContext\tINSTRUCTION\n1\tIt rains.\tWhy, oh why?\n\n2\t\tHow?\n"
    text = text.replace("\t", sign)
    assert read(text, name) == [("Why, oh why?", "It rains."), ("How?", "")]


def test_semicolon_wins_a_tie_with_the_comma():
    text = "instruction;context, optional\nWhy, oh why?;It rains.\n"
    assert read(text, "a.csv") == [("Why, oh why?", "")]


def test_json_lines_of_strings_and_objects():
    lines = ["Why?", {"instruction": "How?", "context": None, "id": 3}]
    lines.append({"instruction": "A\u2028B", "context": "It rains."})
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    assert read(text, "a.jsonl") == [("Why?", ""), ("How?", ""), ("A\u2028B", "It rains.")]


def test_uploads_are_utf_8_or_utf_16():
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        assert decode_upload("Grüße?".encode(encoding), "a.txt") == "Grüße?"
    with pytest.raises(BadRequestError, match=r"a\.txt is not UTF-8 text \(byte 3\)"):
        decode_upload("Grüße".encode("latin-1"), "a.txt")
    with pytest.raises(BadRequestError, match=r"the limit is 8\.4 MB"):
        decode_upload(b"x" * (MAX_BYTES + 1), "a.txt")


@given(st.text(), st.sampled_from(["", "a.txt", "a.csv", "a.tsv", "a.json", "a.jsonl"]))
def test_any_text_gives_cases_or_an_error(text: str, name: str):
    try:
        found = read(text, name)
    except BadRequestError as error:
        assert str(error).endswith(".") and len(str(error)) < 400
    else:
        assert found and all(instruction.strip() for instruction, _ in found)


def test_checks_may_be_objects():
    text = '[{"instruction": "x", "checks": {"json": {"type": "array"}, "words": 5, "ends": null}}]'
    assert read_test_set(text).cases[0].checks == ('json: {"type": "array"}', "words: 5", "ends")


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ("", "x.csv", "There is no case"),
        (" \n\t\n", "x.txt", "There is no case"),
        ("---\n---\n", "", "There is no case"),
        ("Why?\nA\x00B\n", "", "Case 2 is invalid: The instruction contains a control character"),
        ("instruction,context\n,It rains.\n", "x.csv", "Case 1 is invalid: The instruction is"),
        ("question,answer\na,b", "x.csv", "Case 1 has no instruction"),
        ('{"instruction": ["a"]}', "x.jsonl", 'The "instruction" of case 1 is not text'),
        ('{"instruction": "a"}\n{"instr', "x.jsonl", "Line 2 is not valid JSON"),
        ('a,"b', "x.csv", "not valid CSV"),
        ("[1]", "x.json", "Case 1 is not an object"),
        ('{"cases": ["a"], "default_checks": 5}', "x.json", "default_checks is not a list"),
        ('[{"instruction": "a\\u0000"}]', "x.json", "Case 1 is invalid"),
        ("[" * 100_000, "x.json", "Line 1 is not valid JSON"),
        ("7", "x.jsonl", "Case 1 is not an object"),
        ("Say hi.", "x\x1b[31m.pdf", r"x\[31m.pdf has an unsupported format"),
        (
            "instruction\n" + "\n".join(f"Say {n}." for n in range(10_000)),
            "x.csv",
            "There are 10,000 cases. Use at most 2,000",
        ),
    ],
)
def test_unreadable_file_is_one_sentence(text: str, name: str, part: str):
    with pytest.raises(BadRequestError, match=part):
        checked(read_test_set(text, name))


def test_equal_cases_get_ids_of_their_own_and_blank_ones_are_left_out():
    case = Case(instruction="Say hi.")
    found = checked(TestSet(name="x", cases=(case, Case(instruction=" "), case))).cases
    assert len({each.key for each in found}) == 2 and found[0].key == case.key
    named = [Case(instruction="x", id=each) for each in ("a", "a-2", "a", "a", "a-2")]
    keys = [each.key for each in checked(TestSet(name="x", cases=tuple(named))).cases]
    assert keys == ["a", "a-2", "a-3", "a-4", "a-2-2"]


def test_default_checks_apply_where_they_can():
    given = TestSet(
        name="x",
        cases=(Case(instruction="a"), Case(instruction="b", expected="c")),
        default_checks=("ends", "f1: 1", "equals", "contains: d"),
    )
    assert given.checks_of(given.cases[0]) == ("ends", "contains: d")
    assert given.checks_of(given.cases[1]) == ("ends", "f1: 1", "equals", "contains: d")
    assert given.checks_of(Case(instruction="a", checks=("words: 1",))) == ("words: 1",)


def test_broken_checks_are_listed_once():
    cases = (
        Case(instruction="a", checks=("regex: (",)),
        Case(instruction="b", checks=("regex: (",)),
    )
    (problem,) = TestSet(name="x", cases=cases).problems()
    assert "2 cases, the first is 1" in problem
    assert MAX_CASES >= len(checked(held_out_set()).cases) == 200
    assert checked(preset_set()).problems() == held_out_set().problems() == []
