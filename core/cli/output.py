"""Tables on the terminal, and files that a command writes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import BadRequestError


def table(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text with aligned columns; the last column may be of any width."""
    widths = [max(map(len, column)) for column in list(zip(*lines, strict=True))[:-1]]
    return "\n".join(
        "  ".join([*map(str.ljust, line, widths), line[-1]]).rstrip() for line in lines
    )


def plain(text: str, most: int = 1000) -> str:
    """Return one printable line: texts come from files and models."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def check_writable(*files: Path | None) -> None:
    """Check before the work that files can be written; None is not checked.

    Raises:
        BadRequestError: the folder of a file does not exist, or the file is a folder.
    """
    for file in files:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise BadRequestError(f"{file} cannot be written. Name a file in an existing folder.")


def write_file(file: Path | None, text: Callable[[], str], remedy: str) -> bool:
    """Write a file unless it is None; print an error and return False if it cannot be written.

    Args:
        remedy: a sentence that is added to the error.
    """
    if file is None:
        return True
    try:
        file.write_text(text(), encoding="utf-8", newline="")
    except OSError as error:  # disk full
        print(f"{file} could not be written ({error.strerror}). {remedy}", file=sys.stderr)
        return False
    return True
