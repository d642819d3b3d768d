"""What the README shows, for tests that do it exactly as it is written there."""

from __future__ import annotations

import re

from core.settings import CHECKOUT

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, heading: str | None = None) -> list[str]:
    """Code blocks of the README, in order.

    Args:
        language: as their fence names it.
        heading: of the second level, of the only section that is looked at; None for all.
    """
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    if heading is not None:
        _, begin, rest = text.partition(f"\n## {heading}\n")
        assert begin, f"the README has no section {heading!r}"
        text = rest.partition("\n## ")[0]
    return [code for marked, code in _FENCED.findall(text) if marked == language]
