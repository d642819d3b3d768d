"""Parsing lists of instructions, and the error messages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.compare.instructions import (
    MAX_BYTES,
    MAX_INSTRUCTIONS,
    Instruction,
    decode_upload,
    parse_instructions,
)
from core.errors import BadRequestError


def read(text: str, name: str = "") -> list[tuple[str, str]]:
    return [(item.instruction, item.context) for item in parse_instructions(text, name)]


def said_of(text: str, name: str = "") -> str:
    with pytest.raises(BadRequestError) as caught:
        parse_instructions(text, name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["", "list.txt", "LIST.TXT"])
def test_each_line_is_an_instruction(name: str):
    assert read("\ufeffWhy?\r\n\r\n  How, then?  \n", name) == [("Why?", ""), ("How, then?", "")]


def test_separators_allow_instructions_of_several_lines():
    text = "Sort these:\n\n- b\n- a\n---\n\n---\nWhy?\n--- \n"
    assert read(text) == [("Sort these:\n\n- b\n- a", ""), ("Why?", "")]


def test_csv_columns_in_any_order_and_case():
    text = 'id,Context,INSTRUCTION\n1,"It rains,\nas ever.","What of ""it""?"\n\n2,,Why?\n3\n'
    with pytest.raises(BadRequestError, match="Line 6 is invalid: The instruction is empty"):
        parse_instructions(text, "a.csv")
    assert read(text.removesuffix("3\n"), "a.csv") == [
        ('What of "it"?', "It rains,\nas ever."),
        ("Why?", ""),
    ]


@pytest.mark.parametrize(("sign", "name"), [(";", "a.csv"), ("\t", "a.tsv"), ("\t", "a.csv")])
def test_csv_with_other_delimiters(sign: str, name: str):
    assert read(f"instruction{sign}context\nWhy, oh why?{sign}It rains.\n", name) == [
        ("Why, oh why?", "It rains.")
    ]


def test_semicolon_wins_a_tie_with_the_comma():
    text = "instruction;context, optional\nWhy, oh why?;It rains.\n"
    assert read(text, "a.csv") == [("Why, oh why?", "")]


def test_one_column_of_a_tsv_may_contain_commas():
    text = "instruction\nTranslate this: hello, world\n"
    assert read(text, "a.tsv") == [("Translate this: hello, world", "")]
    assert read("Why?\nHow, then?\n", "a.TSV") == [("Why?", ""), ("How, then?", "")]


def test_csv_of_one_column_needs_no_header():
    assert read('Why?\n"How, then?"\n', "a.csv") == [("Why?", ""), ("How, then?", "")]


def test_json_lines_of_strings_and_objects():
    lines = ["Why?", {"instruction": "How?", "context": None, "id": 3}]
    lines.append({"instruction": "A\u2028B", "context": "It rains."})
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    assert read(text, "a.jsonl") == [("Why?", ""), ("How?", ""), ("A\u2028B", "It rains.")]


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ("", "", "no instruction"),
        (" \n\t\n", "a.txt", "no instruction"),
        ("---\n---\n", "", "no instruction"),
        ("instruction,context\n", "a.csv", "no instruction"),
        ("Why?\nA\x00B\n", "", "Line 2 is invalid: The instruction contains a control character"),
        ("question,answer\nWhy?,So.\n", "a.csv", 'no column "instruction"'),
        ('instruction\n"open\n', "a.csv", "Line 2 is not valid CSV"),
        ("instruction,context\n,It rains.\n", "a.csv", "Line 2 is invalid: The instruction is"),
        ('"Why?"\nWhy?\n', "a.jsonl", "Line 2 is not valid JSON"),
        ("[" * 100_000, "a.jsonl", "Line 1 is not valid JSON"),
        ('{"prompt": "Why?"}', "a.jsonl", "Line 1 has no instruction"),
        ("7", "a.jsonl", "Line 1 has no instruction"),
        ('{"instruction": 7}', "a.jsonl", '"instruction" in line 1 is not a string'),
        ('{"instruction": "Why?", "context": ["x"]}', "a.jsonl", '"context" in line 1 is not'),
        ("Why?", "a.pdf", "a.pdf has an unsupported format. Use a .txt, .csv or .jsonl file."),
        ("Why?", "a\x1b[31m.exe", "a[31m.exe has an unsupported format"),
    ],
)
def test_invalid_input_is_named(text: str, name: str, part: str):
    sentence = said_of(text, name)
    assert part in sentence and "\n" not in sentence and sentence.endswith(".")


def test_at_most_200_instructions():
    assert len(read("Why?\n" * MAX_INSTRUCTIONS)) == MAX_INSTRUCTIONS
    assert "more than 200" in said_of("Why?\n" * (MAX_INSTRUCTIONS + 1))


def test_uploads_are_utf_8_or_utf_16():
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        assert decode_upload("Grüße?".encode(encoding), "a.txt") == "Grüße?"
    with pytest.raises(BadRequestError, match=r"a\.txt is not UTF-8 text \(byte 3\)"):
        decode_upload("Grüße".encode("latin-1"), "a.txt")
    with pytest.raises(BadRequestError, match=r"the limit is 8\.4 MB"):
        decode_upload(b"x" * (MAX_BYTES + 1), "a.txt")


@given(st.text(), st.sampled_from(["", "a.txt", "a.csv", "a.tsv", "a.jsonl"]))
def test_any_text_gives_instructions_or_an_error(text: str, name: str):
    try:
        found = parse_instructions(text, name)
    except BadRequestError as error:
        assert str(error).endswith(".") and len(str(error)) < 400
    else:
        assert found and all(isinstance(item, Instruction) for item in found)
        assert all(item.instruction.strip() == item.instruction != "" for item in found)
