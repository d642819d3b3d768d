"""User names: which are allowed, and which are considered equal.

Names are compared after Unicode's ``toNFKC_Casefold`` (Unicode Standard §3.13, D147), so that
letter case and the encoding of a character make no difference. A name has letters of one script and
no invisible characters, so that it cannot be imitated with look-alikes. For the comparison with
existing names, the few Greek and Cyrillic letters that look like Latin ones, and the digits 0 and
1, are replaced by what they look like (a subset of the "skeleton" of Unicode TS #39).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from core.errors import AccountInputError

MIN_LENGTH = 2
"""Characters; many Chinese names have two."""
MAX_LENGTH = 32
"""Characters; longer names break tables and lists."""
_MAX_INPUT = 4 * MAX_LENGTH
"""Longer input is not normalized, because one character can become up to 18."""

MAX_MARKS = 2
"""Combining marks per letter after composition; Thai and Vietnamese need two."""

RESERVED = frozenset(
    (
        *("admin", "administrator", "anonymous", "everyone", "guest", "moderator", "nobody"),
        *("owner", "paddock", "root", "security", "staff", "support", "system"),
    )
)
"""Names that suggest authority; only the command line can create them."""

_INSIDE = frozenset("._-")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Invisible letters and marks (``Default_Ignorable_Code_Point``); other invisible characters are
neither letters, marks nor digits."""

_COMBINED_SCRIPTS = (
    frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"}),
    frozenset({"CJK", "HANGUL"}),
    frozenset({"CJK", "BOPOMOFO"}),
)
"""Scripts that one language combines (Unicode TS #39, "highly restrictive")."""

_LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһԛԝӏвкмнтѵαβεζικμνορτυχγωıɑɡ01",
    "aeopcyxijsdhqwlbkmhtvabezikmvoptuxywiagol",
)
_PHONETIC = re.compile("[\u1d00-\u1dbf]|LATIN LETTER SMALL CAPITAL")
"""Phonetic letters, and small capitals, which look like a name in capitals."""


@dataclass(frozen=True)
class Name:
    """A valid user name."""

    display: str
    """The name as entered, normalized (NFKC)."""
    key: str
    """Lookup key; equal for names that differ only in letter case or encoding."""
    look: str
    """Equal for names that look alike."""

    @property
    def reserved(self) -> bool:
        """Whether only the command line can create it."""
        return self.look in _RESERVED_LOOKS


def parse_name(text: str) -> Name:
    """Parse a user name.

    Raises:
        AccountInputError: the name is not allowed; the text says what is.
    """
    text = text.strip()
    if len(text) > _MAX_INPUT:
        raise _wrong_length()
    display = unicodedata.normalize("NFKC", text)
    _check_characters(display)
    if not MIN_LENGTH <= len(display) <= MAX_LENGTH:
        raise _wrong_length()
    _check_shape(display)
    _check_script(display)
    key = name_key(display)
    return Name(display, key, _look(key))


def name_key(text: str) -> str:
    """Return the text after ``toNFKC_Casefold``."""
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()
    return unicodedata.normalize("NFKC", folded)


def _look(key: str) -> str:
    """Return the key with look-alike letters and digits replaced."""
    digits = (str(unicodedata.digit(c)) if c.isdecimal() else c for c in key)
    return "".join(digits).translate(_LOOK_ALIKES).replace("i\u0307", "i")  # i with a second dot


_RESERVED_LOOKS = frozenset(_look(word) for word in RESERVED)


def _check_characters(name: str) -> None:
    for character in name:
        category = unicodedata.category(character)
        fine = category[0] == "L" or category in ("Mn", "Mc", "Nd") or character in _INSIDE
        if not fine or _INVISIBLE.match(character) or _is_phonetic(character):
            raise AccountInputError(
                "A user name has letters and digits, and single dots, hyphens or underscores "
                f"between them. Remove {_shown(character)}."
            )


def _is_phonetic(character: str) -> bool:
    named = unicodedata.name(character, "")
    return bool(_PHONETIC.match(character) or _PHONETIC.match(named))


def _check_shape(name: str) -> None:
    if name[0] in _INSIDE or name[-1] in _INSIDE or re.search(r"[._-]{2}", name):
        raise AccountInputError(
            "A user name begins and ends with a letter or digit, and has no two dots, hyphens or "
            "underscores in a row. Remove the others."
        )
    marks, kind = 0, ""
    for character in name:
        before, kind = kind, unicodedata.category(character)[0]
        marks = marks + 1 if kind == "M" else 0
        if marks > MAX_MARKS or (marks and before not in ("L", "M")):
            raise AccountInputError(
                f"A user name has accents only on letters, and at most {MAX_MARKS} per letter. "
                "Remove the others."
            )


def _check_script(name: str) -> None:
    scripts = {_script(character) for character in name if character.isalpha()}
    if len(scripts) > 1 and not any(scripts <= combined for combined in _COMBINED_SCRIPTS):
        raise AccountInputError(
            "The user name mixes letters of several scripts, which can look the same. Use letters "
            "of one script."
        )


def _script(letter: str) -> str:
    """Return a letter's script, the first word of its Unicode name ("LATIN SMALL LETTER A")."""
    return unicodedata.name(letter, "?").partition(" ")[0]


def _shown(character: str) -> str:
    if character.isspace():
        return "the space"
    shown = character if character.isprintable() and not _INVISIBLE.match(character) else ""
    return f"{shown} (U+{ord(character):04X})".strip()


def _wrong_length() -> AccountInputError:
    return AccountInputError(
        f"The user name is too short or too long. Choose one of {MIN_LENGTH} to {MAX_LENGTH} "
        "characters."
    )
