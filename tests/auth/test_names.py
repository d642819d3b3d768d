"""User names: which are allowed, and which are equal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.auth.names import MAX_LENGTH, MIN_LENGTH, RESERVED, Name, name_key, parse_name
from core.errors import AccountInputError
from tests.auth.samples import HOSTILE, hostile_texts


@pytest.mark.parametrize(
    ("text", "display", "key"),
    [
        ("Ada", "Ada", "ada"),
        ("  ada.lovelace ", "ada.lovelace", "ada.lovelace"),
        ("Nguyễn", "Nguyễn", "nguyễn"),
        ("Nguye\u0302\u0303n", "Nguyễn", "nguyễn"),
        ("Straße", "Straße", "strasse"),
        ("ＡＤＡ", "ADA", "ada"),
        ("ﬁona", "fiona", "fiona"),
        ("Анна", "Анна", "анна"),
        ("ΣΟΦΟΣ", "ΣΟΦΟΣ", "σοφοσ"),
        ("李明", "李明", "李明"),
        ("田中さん", "田中さん", "田中さん"),
        ("カード", "カード", "カード"),
        ("김철수", "김철수", "김철수"),
        ("สมชาย", "สมชาย", "สมชาย"),
        ("राम", "राम", "राम"),
        ("محمد", "محمد", "محمد"),
        ("x-1_2.3", "x-1_2.3", "x-1_2.3"),
        ("42", "42", "42"),
    ],
)
def test_real_names_are_allowed(text: str, display: str, key: str):
    name = parse_name(text)
    assert (name.display, name.key) == (display, key)


@pytest.mark.parametrize(
    "same",
    [
        ("ada", "ADA", "Ada", " aDa\t", "ａｄａ", "𝐚𝐝𝐚"),
        ("STRASSE", "straße", "ſtraße", "STRAẞE"),
        ("é1", "e\u03011", "É1"),
        ("ΣΟΦΟΣ", "σοφος", "σοφοσ"),
    ],
)
def test_letter_case_and_encoding_make_no_difference(same: tuple[str, ...]):
    assert len({parse_name(text).key for text in same}) == 1


@pytest.mark.parametrize(
    "alike",
    [
        ("роса", "poca"),
        ("АННА", "ahha"),
        ("b0b", "bob"),
        ("al1ce", "alice".replace("i", "l")),
        ("ada\u0661", "ada1"),
        ("ıda", "ida", "İda"),
        ("ɑda", "ada"),
    ],
)
def test_names_that_look_alike_have_the_same_look(alike: tuple[str, ...]):
    names = [parse_name(text) for text in alike]
    assert len({name.look for name in names}) == 1
    assert len({name.key for name in names}) == len(names)


def test_different_names_stay_different():
    names = ("ada", "ida", "all", "ali", "bail", "ball", "a.b", "a_b", "ab", "ádá", "anna", "anne")
    assert len({parse_name(name).look for name in names}) == len(names)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:20]))
def test_hostile_texts_are_not_names(text: str):
    with pytest.raises(AccountInputError) as raised:
        parse_name(text)
    assert_short_text(str(raised.value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "2 to 32 characters"),
        ("a" * 33, "2 to 32 characters"),
        ("two words", "Remove the space"),
        ("a<b", r"Remove < \(U\+003C\)"),
        ("a\u200bb", r"Remove \(U\+200B\)"),
        ("-a", "begins and ends"),
        ("a-.b", "no two dots, hyphens or underscores in a row"),
        ("1\u0301", "accents only on letters"),
        ("a\u0331\u0332\u0333b", "at most 2 per letter"),
        ("аda", "one script"),
        ("ada中", "one script"),
    ],
)
def test_error_says_what_is_wrong(text: str, words: str):
    with pytest.raises(AccountInputError, match=words):
        parse_name(text)


def test_reserved_names_are_reserved_in_any_spelling():
    for text in (*RESERVED, "Admin", "ROOT", "r00t", "ѕуѕтем", "paddоck".replace("о", "0")):
        assert parse_name(text).reserved, text
    assert not parse_name("administratrix").reserved


@settings(max_examples=1000)
@given(hostile_texts)
def test_hostile_text_is_an_error_or_a_safe_name(text: str):
    try:
        name = parse_name(text)
    except AccountInputError as error:
        assert_short_text(str(error))
    else:
        assert_safe(name)


@settings(max_examples=1000)
@given(st.text(alphabet=st.characters(categories=["L", "M", "N"]), min_size=2, max_size=12))
def test_random_letters_are_an_error_or_a_safe_name(text: str):
    try:
        name = parse_name(text)
    except AccountInputError as error:
        assert_short_text(str(error))
    else:
        assert_safe(name)
        assert name_key(name.key) == name.key == name_key(text.casefold().strip())


def assert_safe(name: Name) -> None:
    assert MIN_LENGTH <= len(name.display) <= MAX_LENGTH
    assert parse_name(name.display) == name, "parsing is idempotent"
    for character in name.display + name.key + name.look:
        assert unicodedata.category(character)[0] in "LMN" or character in "._-"
        assert character not in "<>&\"'/\\%;`$ \x00"
    assert name.display.isprintable() and ".." not in name.display
    name.display.encode()


def assert_short_text(text: str) -> None:
    assert text[0].isupper() and text.endswith(".") and len(text) < 200
    assert text.isprintable() and "\n" not in text
