"""Code blocks of the README and of ``docs/``, for tests that run them exactly as written."""

from __future__ import annotations

import re
from pathlib import Path

from core.settings import CHECKOUT

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """The README and all of ``docs/``."""
    return [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


def blocks(language: str, document: str | None = None) -> list[str]:
    """Code blocks in order.

    Args:
        language: as named by the fence.
        document: path in the checkout, such as ``docs/api.md``; None for all :func:`documents`.
    """
    return [
        code
        for path in (documents() if document is None else [CHECKOUT / document])
        for marked, code in _FENCED.findall(path.read_text(encoding="utf-8"))
        if marked == language
    ]
