"""Names of accounts: which are allowed, and when two of them are the same.

A name is compared as Unicode's ``toNFKC_Casefold`` leaves it (Unicode Standard §3.13, D147), so
that neither letter case nor the way a character was typed makes another person. Letters of one
script only, and none that cannot be seen, so that a name cannot be forged out of look-alikes; the
few letters of Greek and Cyrillic that look like Latin ones, and the digits 0 and 1, are taken for
what they look like when a name is compared with those that are taken (after Unicode TS #39,
"skeleton", kept to what people try).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from core.errors import AccountInputError

SHORTEST = 2
"""Characters; many names in Chinese have two."""
LONGEST = 32
"""Characters; longer ones break tables and lists."""
_LONGEST_INPUT = 4 * LONGEST
"""Normalising makes up to 18 characters of one: what is longer is not normalised at all."""

MOST_MARKS = 2
"""Combining marks on one letter after composition: Thai and Vietnamese need no more."""

RESERVED = frozenset(
    {
        "admin",
        "administrator",
        "anonymous",
        "everyone",
        "guest",
        "moderator",
        "nobody",
        "owner",
        "paddock",
        "root",
        "security",
        "staff",
        "support",
        "system",
    }
)
"""Names that others would trust for what they say; the command line alone gives them out."""

_INSIDE = frozenset("._-")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that show nothing (``Default_Ignorable_Code_Point``); what else shows nothing
is neither letter, mark nor digit."""

_TOGETHER = (
    frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"}),
    frozenset({"CJK", "HANGUL"}),
    frozenset({"CJK", "BOPOMOFO"}),
)
"""Scripts that one language writes together (Unicode TS #39, "highly restrictive")."""

_LOOKS = str.maketrans(
    "аеорсухіјѕԁһԛԝӏвкмнтѵαβεζικμνορτυχγωıɑɡ01",
    "aeopcyxijsdhqwlbkmhtvabezikmvoptuxywiagol",
)
_PHONETIC = re.compile("[\u1d00-\u1dbf]|LATIN LETTER SMALL CAPITAL")
"""Letters of phonetic notation, and the capitals in small that look like a name in capitals."""


@dataclass(frozen=True)
class Name:
    """A name that an account can have."""

    display: str
    """As the person wrote it, in one normal form (NFKC)."""
    key: str
    """What the account is found by; equal for names that differ in letter case or typing only."""
    look: str
    """Equal for names that look alike."""

    @property
    def reserved(self) -> bool:
        """Whether the command line alone may give it to somebody."""
        return self.look in _RESERVED_LOOKS


def parse_name(text: str) -> Name:
    """The name that a person wrote.

    Raises:
        AccountInputError: no account can have this name; the text says what is allowed.
    """
    text = text.strip()
    if len(text) > _LONGEST_INPUT:
        raise _wrong_length()
    display = unicodedata.normalize("NFKC", text)
    _check_characters(display)
    if not SHORTEST <= len(display) <= LONGEST:
        raise _wrong_length()
    _check_shape(display)
    _check_script(display)
    key = name_key(display)
    return Name(display, key, _look(key))


def name_key(text: str) -> str:
    """The text as ``toNFKC_Casefold`` leaves it."""
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()
    return unicodedata.normalize("NFKC", folded)


def _look(key: str) -> str:
    """The key with each letter and digit that looks like another one replaced by that."""
    digits = (str(unicodedata.digit(c)) if c.isdecimal() else c for c in key)
    return "".join(digits).translate(_LOOKS).replace("i\u0307", "i")  # a dotted dot


_RESERVED_LOOKS = frozenset(_look(word) for word in RESERVED)


def _check_characters(name: str) -> None:
    for character in name:
        category = unicodedata.category(character)
        fine = category[0] == "L" or category in ("Mn", "Mc", "Nd") or character in _INSIDE
        if not fine or _INVISIBLE.match(character) or _is_phonetic(character):
            raise AccountInputError(
                "A name is made of letters and digits, with single dots, hyphens or underscores "
                f"between them; take {_shown(character)} out."
            )


def _is_phonetic(character: str) -> bool:
    named = unicodedata.name(character, "")
    return bool(_PHONETIC.match(character) or _PHONETIC.match(named))


def _check_shape(name: str) -> None:
    if name[0] in _INSIDE or name[-1] in _INSIDE or re.search(r"[._-]{2}", name):
        raise AccountInputError(
            "A name begins and ends with a letter or a digit, and has one dot, hyphen or "
            "underscore at a time; change where they stand."
        )
    marks, kind = 0, ""
    for character in name:
        before, kind = kind, unicodedata.category(character)[0]
        marks = marks + 1 if kind == "M" else 0
        if marks > MOST_MARKS or (marks and before not in ("L", "M")):
            raise AccountInputError(
                "A name has accents on letters only, and at most "
                f"{MOST_MARKS} on one; take the others away."
            )


def _check_script(name: str) -> None:
    scripts = {_script(character) for character in name if character.isalpha()}
    if len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER):
        raise AccountInputError(
            "A name has the letters of one script, since those of several can look the same; "
            "write it in one."
        )


def _script(letter: str) -> str:
    """The script of a letter, by the first word of its Unicode name ("LATIN SMALL LETTER A")."""
    return unicodedata.name(letter, "?").partition(" ")[0]


def _shown(character: str) -> str:
    if character.isspace():
        return "the space"
    shown = character if character.isprintable() and not _INVISIBLE.match(character) else ""
    return f"{shown} (U+{ord(character):04X})".strip()


def _wrong_length() -> AccountInputError:
    return AccountInputError(
        f"A name has {SHORTEST} to {LONGEST} characters; choose one of that length."
    )
