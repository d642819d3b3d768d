"""Values of command-line options; each function raises ``argparse.ArgumentTypeError``."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence

from core.catalogue import Precision
from core.runtimes.spec import (
    ANSWERING_RUNTIMES,
    LOCAL_RUNTIMES,
    RuntimeName,
    Speculation,
    SpeculationMode,
)

_UNITS = {
    **{"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30},
}


def byte_count(text: str) -> int:
    """Parse a size such as ``8GB``, ``512 MiB`` or ``1.5e9`` into bytes."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)\s*", text, re.IGNORECASE)
    try:
        if found is None:
            raise ValueError
        return int(float(found[1]) * _UNITS[found[2].lower()])
    except (ValueError, OverflowError, KeyError):
        raise ArgumentTypeError(f"{text!r} is not a size; write for example 8GB or 512MB") from None


def names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of integers."""
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is not a list of integers; write for example 32,512"
        ) from None


def precisions(text: str) -> tuple[Precision, ...]:
    """Parse a comma-separated list of precisions."""
    return tuple(map(precision, names(text)))


def precision(text: str) -> Precision:
    """Parse a precision."""
    try:
        return Precision(text.lower())
    except ValueError:
        raise ArgumentTypeError(
            f"unknown precision {text!r}; choose {', '.join(Precision)}"
        ) from None


def runtime(text: str, known: Sequence[RuntimeName] = ANSWERING_RUNTIMES) -> RuntimeName:
    """Parse a runtime, by default one that answers."""
    if text.lower() not in known:
        raise ArgumentTypeError(f"unknown runtime {text!r}; choose {', '.join(known)}")
    return RuntimeName(text.lower())


def runtimes(text: str) -> tuple[RuntimeName, ...]:
    """Parse a comma-separated list of runtimes that can be measured."""
    return tuple(runtime(name, LOCAL_RUNTIMES) for name in names(text))


def speculation(text: str) -> Speculation:
    """Parse ``off``, ``on``, ``auto``, ``5`` or ``5x3`` (guessed tokens, n-gram length)."""
    if text in list(SpeculationMode):
        return Speculation(SpeculationMode(text))
    if found := re.fullmatch(r"(\d+)(?:x(\d+))?", text):
        ngram = int(found[2] or Speculation.ngram)
        return Speculation(SpeculationMode.ON, int(found[1]), ngram)
    raise ArgumentTypeError(
        f"{text!r} is not a speculation; write off, on, auto, or guessed tokens and n-gram length "
        "such as 5x3"
    )
