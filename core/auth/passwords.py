"""Validation of new passwords.

Follows NIST SP 800-63B-4 §3.1.1: minimum length and a list of common passwords, without rules
about kinds of characters. The list has words; their usual variations are common, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path

from core.auth.names import Name, name_key
from core.errors import AccountInputError

MIN_LENGTH = 8
"""Characters; the minimum of NIST SP 800-63B-4 for a password with other factors."""
MAX_LENGTH = 256
"""Characters; NIST requires at least 64, and the work must be bounded."""

COMMON_FILE = Path(__file__).with_name("common_passwords.txt")

_SUBSTITUTES = str.maketrans("0134578@$!€+|", "oleastbasietl")
"""Digits and symbols that replace a letter, and the letter."""
_MAX_COMMON_DIGITS = 11
"""Passwords of up to this many digits are phone numbers, dates and account numbers."""
_EDGE = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_MAX_EDGE = 6
"""A common word with up to this many digits and symbols before or after it (a date, ``123456``)
is still common."""
_ROWS = (
    *("01234567890", "abcdefghijklmnopqrstuvwxyz", "йцукенгшщзхъ", "фывапролджэ"),
    *("qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm"),
    *("1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p", "q1w2e3r4t5y6u7i8o9p0", "1q2w3e4r5t6y7u8i9o0p"),
)
_BOTH_WAYS = _ROWS + tuple(row[::-1] for row in _ROWS)
_MIN_RUN = 3


def checked_password(password: str, name: Name | None) -> str:
    """Validate a new password and return it normalized.

    Args:
        password: the password as entered.
        name: the account's name, or None if it is not known yet.

    Raises:
        AccountInputError: the password is not allowed; the text says why.
    """
    text = prepared(password)
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        raise _wrong_length()
    if name is not None and resembles(text, {plain_word(name.key)}):
        raise AccountInputError(
            "The password is the same as the user name. Choose a different password."
        )
    if is_common(text):
        raise AccountInputError(
            "This password is too common. Choose a longer or less common one, such as four "
            "unrelated words."
        )
    return text


def prepared(password: str) -> str:
    """Return the password normalized, independent of how it was entered (RFC 8265, OpaqueString).

    Characters are composed (NFC) and spaces become ASCII spaces; nothing else is changed.

    Raises:
        AccountInputError: it has control or unassigned characters, or is far too long.
    """
    if len(password) > 4 * MAX_LENGTH:
        raise _wrong_length()
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    if any(unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in spaced):
        raise AccountInputError(
            "The password has a character that is not allowed, such as a line break. Remove it."
        )
    return unicodedata.normalize("NFC", spaced)


def _wrong_length() -> AccountInputError:
    return AccountInputError(
        f"The password is too short or too long. Choose one of {MIN_LENGTH} to {MAX_LENGTH} "
        "characters."
    )


def is_common(password: str) -> bool:
    """Whether a password is common and among the first that are guessed.

    It is common if it is a common word, in any letter case, with the usual substitutions
    (``p@ssw0rd``), with a few digits or symbols around it, doubled or reversed; or a pattern: a
    repeated group of characters, runs of the alphabet or a keyboard row, or a date.
    """
    return _is_pattern(name_key(password)) or resembles(password, common_words())


def resembles(password: str, words: Set[str]) -> bool:
    """Whether a password is one of these words in a usual variation, or two of them together."""
    return any(_is_word(form, words) for form in _forms(name_key(password)))


def plain_word(text: str) -> str:
    """Return a text without spaces and punctuation."""
    return re.sub(r"[\W_]+", "", text)


def _forms(folded: str) -> Iterator[str]:
    """Yield the password as it is, without its edges, and with substitutions undone."""
    core = _without_edges(folded)
    for text in dict.fromkeys((folded, core)):
        yield text
        yield text.translate(_SUBSTITUTES)
        yield text.replace("1", "i").translate(_SUBSTITUTES)
    yield _without_edges(folded.translate(_SUBSTITUTES))


def _without_edges(text: str) -> str:
    """Return the text without leading and trailing digits and symbols, if few or a pattern."""
    for edge in (found.group() for found in _EDGE.finditer(text)):
        if len(edge) > _MAX_EDGE and not _is_pattern(edge):
            return text
    return _EDGE.sub("", text)


def _is_word(text: str, words: Set[str]) -> bool:
    plain = plain_word(text)
    if plain in words or plain[::-1] in words:
        return True
    return any(plain[:cut] in words and plain[cut:] in words for cut in range(2, len(plain) - 1))


def _is_pattern(text: str) -> bool:
    if not text:
        return True
    return (
        (text.isdigit() and len(text) <= _MAX_COMMON_DIGITS)
        or re.fullmatch(r"(.{1,4}?)\1+.{0,3}", text, re.DOTALL) is not None
        or _is_all_runs(text)
        or re.fullmatch(r"(19|20)\d\d\W?[01]?\d\W?[0-3]?\d", text) is not None
        or re.fullmatch(r"[0-3]?\d\W?[01]?\d\W?(19|20)\d\d", text) is not None
    )


def _is_all_runs(text: str) -> bool:
    """Whether the text consists of runs along the rows, forwards or backwards."""
    start = 0
    while start < len(text):
        length = max(_run(text, start, row) for row in _BOTH_WAYS)
        if length < _MIN_RUN:
            return False
        start += length
    return True


def _run(text: str, start: int, row: str) -> int:
    """Return the length of the longest part of ``row`` that ``text`` contains at ``start``."""
    length = 0
    while start + length < len(text) and text[start : start + length + 1] in row:
        length += 1
    return length


@cache
def common_words() -> frozenset[str]:
    """Return the words of :data:`COMMON_FILE`, case-folded."""
    lines = COMMON_FILE.read_text(encoding="utf-8").splitlines()
    return frozenset(
        name_key(word) for line in lines if not line.startswith("#") for word in line.split()
    )
