"""Passwords that are tried first: a list of words, and the rules by which people vary them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from core.auth.names import name_key

COMMON_FILE = Path(__file__).with_name("common_passwords.txt")

SUBSTITUTES = str.maketrans("0134578@$!€+|", "oleastbasietl")
"""Digits and signs that stand for a letter, and the letter."""
_FEW_DIGITS = 11
"""Digits alone up to this many are telephone numbers, dates and account numbers."""
_EDGE = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_LONGEST_EDGE = 6
"""Digits and signs around a common word that do not make it less common: a date, ``123456``."""
_ROWS = (
    "01234567890",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "yxcvbnm",
    "azertyuiop",
    "qsdfghjklm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "1q2w3e4r5t6y7u8i9o0p",
    "йцукенгшщзхъ",
    "фывапролджэ",
)
_BOTH_WAYS = _ROWS + tuple(row[::-1] for row in _ROWS)
_SHORTEST_RUN = 3


def is_common(password: str) -> bool:
    """Whether a password is among the first that are tried.

    That is a common word, in any letter case, with the usual substitutes (``p@ssw0rd``), with a
    few digits or signs around it, doubled or reversed; or a single pattern: one group of
    characters over and over, runs along the alphabet or a keyboard, a date.
    """
    folded = name_key(password)
    if _is_pattern(folded):
        return True
    return any(_is_common_word(form) for form in _forms(folded))


def _forms(folded: str) -> Iterator[str]:
    """The ways to read a password: as it is, without its edges, with substitutes undone."""
    core = _without_edges(folded)
    for text in dict.fromkeys((folded, core)):
        yield text
        yield text.translate(SUBSTITUTES)
        yield text.replace("1", "i").translate(SUBSTITUTES)
    yield _without_edges(folded.translate(SUBSTITUTES))


def _without_edges(text: str) -> str:
    """The text without digits and signs around it, as far as those are few or a pattern."""
    for edge in (found.group() for found in _EDGE.finditer(text)):
        if len(edge) > _LONGEST_EDGE and not _is_pattern(edge):
            return text
    return _EDGE.sub("", text)


def _is_common_word(text: str) -> bool:
    plain = re.sub(r"[\W_]+", "", text)
    words = common_words()
    if plain in words or plain[::-1] in words:
        return True
    half, odd = divmod(len(plain), 2)
    if not odd and plain[:half] == plain[half:] and plain[:half] in words:
        return True
    return any(plain[:cut] in words and plain[cut:] in words for cut in range(2, len(plain) - 1))


def _is_pattern(text: str) -> bool:
    if not text:
        return True
    return (
        (text.isdigit() and len(text) <= _FEW_DIGITS)
        or re.fullmatch(r"(.{1,4}?)\1+.{0,3}", text, re.DOTALL) is not None
        or _is_all_runs(text)
        or re.fullmatch(r"(19|20)\d\d\W?[01]?\d\W?[0-3]?\d", text) is not None
        or re.fullmatch(r"[0-3]?\d\W?[01]?\d\W?(19|20)\d\d", text) is not None
    )


def _is_all_runs(text: str) -> bool:
    """Whether the text is nothing but runs along a row, forwards or backwards."""
    place = 0
    while place < len(text):
        length = max(_run(text, place, row) for row in _BOTH_WAYS)
        if length < _SHORTEST_RUN:
            return False
        place += length
    return True


def _run(text: str, place: int, row: str) -> int:
    """Length of the longest piece of ``row`` that ``text`` has at ``place``."""
    length = 0
    while place + length < len(text) and text[place : place + length + 1] in row:
        length += 1
    return length


@cache
def common_words() -> frozenset[str]:
    """The words of :data:`COMMON_FILE`, folded."""
    lines = COMMON_FILE.read_text(encoding="utf-8").splitlines()
    return frozenset(
        name_key(word) for line in lines if not line.startswith("#") for word in line.split()
    )
