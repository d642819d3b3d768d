"""Helpers for composing sentences."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any


@cache
def data(name: str) -> dict[str, Any]:
    """Return the content of the data file ``data/<name>.toml``."""
    path = Path(__file__).with_name("data") / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def upper_first(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    """Return the text with its first letter in lower case, except for acronyms and "I"."""
    if text[:2].isupper() or text.startswith("I "):
        return text
    return text[:1].lower() + text[1:]


def an(noun: str) -> str:
    """Return the noun with its indefinite article; not for mass nouns and proper names."""
    return ("an " if noun[:1].lower() in "aeiou" else "a ") + noun


def joined(parts: Sequence[str], last: str = "and") -> str:
    """Join parts as ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def fill(template: str, **slots: str) -> str:
    """Fill the slots of a template in one pass; unknown slots stay."""
    return re.sub(r"\{(\w+)\}", lambda match: slots.get(match.group(1), match.group(0)), template)
