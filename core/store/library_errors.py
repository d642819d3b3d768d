"""Turns what the conversion libraries raise into sentences for a person."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import ConversionError

log = logging.getLogger(__name__)

LIBRARY_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
)
"""What transformers, Optimum, OpenVINO and NNCF raise when they cannot handle a model."""


@contextmanager
def as_conversion_error(what: str, further: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise ConversionError for what a library raises in this block.

    Args:
        what: subject of the sentence, "Export to OpenVINO".
        further: errors beside :data:`LIBRARY_ERRORS`.
    """
    try:
        yield
    except (*LIBRARY_ERRORS, *further) as error:
        log.debug("%s failed", what, exc_info=True)
        raise ConversionError(
            f"{what} failed ({first_line(error)}); the model may be of a kind that cannot be "
            "converted."
        ) from error


def first_line(error: BaseException) -> str:
    """Kind of an error and the first line of its text, 200 characters at most."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
