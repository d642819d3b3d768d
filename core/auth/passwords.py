"""Which passwords are good enough.

As NIST SP 800-63B-4 §3.1.1 asks: by length and by a list of those that are tried first, without
rules about kinds of characters.
"""

from __future__ import annotations

import re
import unicodedata

from core.auth.common_passwords import SUBSTITUTES, is_common
from core.auth.names import Name, name_key
from core.errors import AccountInputError

SHORTEST = 8
"""Characters, the least that NIST SP 800-63B-4 allows where it is not the only factor."""
LONGEST = 256
"""Characters; NIST asks for 64 at least, and something must bound the work."""


def checked_password(password: str, name: Name | None) -> str:
    """A new password, if it is good enough for this name's account.

    Args:
        password: as the person typed it.
        name: of the account; None where it is not known yet.

    Raises:
        AccountInputError: it is not; the text says why.
    """
    text = prepared(password)
    if not SHORTEST <= len(text) <= LONGEST:
        raise AccountInputError(
            f"A password has {SHORTEST} to {LONGEST} characters; choose one of that length."
        )
    if name is not None and _is_the_name(text, name):
        raise AccountInputError("The password is the name; choose one that says nothing of it.")
    if is_common(text):
        raise AccountInputError(
            "This password is among the first that others would try; choose a longer or a less "
            "usual one, such as four words that have nothing to do with each other."
        )
    return text


def prepared(password: str) -> str:
    """The password in one form, however it was typed (RFC 8265, OpaqueString).

    Composed characters (NFC), any space an ASCII space; nothing else is changed.

    Raises:
        AccountInputError: it has control or unassigned characters, or far too many of any.
    """
    if len(password) > 4 * LONGEST:
        raise AccountInputError(
            f"A password has {SHORTEST} to {LONGEST} characters; choose one of that length."
        )
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    if any(unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in spaced):
        raise AccountInputError(
            "The password has a character that cannot be part of one, such as a line break; take "
            "it out."
        )
    return unicodedata.normalize("NFC", spaced)


def _is_the_name(password: str, name: Name) -> bool:
    """Whether it is the name: in any case, reversed, doubled, or with digits and signs around."""
    folded = name_key(password)
    plain = re.sub(r"[\W_]+", "", folded)
    mine = re.sub(r"[\W_]+", "", name.key)
    core = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", folded)
    forms = {folded, plain, core, plain.translate(SUBSTITUTES), core.translate(SUBSTITUTES)}
    return bool(forms & {name.key, mine, mine[::-1], mine + mine})
