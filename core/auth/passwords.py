"""Validation of new passwords.

Follows NIST SP 800-63B-4 §3.1.1: minimum length and a list of common passwords, without rules
about kinds of characters.
"""

from __future__ import annotations

import unicodedata

from core.auth.common_passwords import is_common, plain_word, resembles
from core.auth.names import Name
from core.errors import AccountInputError

MIN_LENGTH = 8
"""Characters; the minimum of NIST SP 800-63B-4 for a password with other factors."""
MAX_LENGTH = 256
"""Characters; NIST requires at least 64, and the work must be bounded."""


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
