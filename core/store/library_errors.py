"""Convert exceptions of the conversion libraries to errors for the user."""

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
"""Exceptions of transformers, Optimum, OpenVINO and NNCF for a model that they do not support."""


@contextmanager
def as_conversion_error(what: str, further: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise ConversionError for exceptions that a library raises in this block.

    Args:
        what: subject of the message: "Export to OpenVINO".
        further: exceptions besides :data:`LIBRARY_ERRORS`.
    """
    try:
        yield
    except (*LIBRARY_ERRORS, *further) as error:
        log.debug("%s failed", what, exc_info=True)
        raise ConversionError(
            f"{what} failed ({first_line(error)}). The model may not be supported; choose another "
            "model or precision."
        ) from error


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
