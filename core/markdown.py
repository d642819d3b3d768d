"""Text that stays what it is in a Markdown document."""

from __future__ import annotations

import re

_LINE_ENDS = re.compile(r"\r\n?|\n|\N{LINE SEPARATOR}|\N{PARAGRAPH SEPARATOR}|\v|\f|\x85")


def with_line_feeds(text: str) -> str:
    """The text with a line feed for whatever ends a line somewhere: programs differ in that."""
    return _LINE_ENDS.sub("\n", text)


def fenced(text: str) -> str:
    """The text as a fenced code block that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def code_span(text: str) -> str:
    """The text as code within a line; its line ends become spaces."""
    line = with_line_feeds(text).replace("\n", " ")
    runs = {len(run) for run in re.findall(r"`+", line)}
    ticks = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    if not line.strip():
        return "` `"
    # A space inside each end belongs to the syntax: it parts the ticks from the text's own.
    pad = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"
