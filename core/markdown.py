"""Quote untrusted text in Markdown documents so that it is shown unchanged."""

from __future__ import annotations

import re

_LINE_ENDS = re.compile(r"\r\n?|\n|\N{LINE SEPARATOR}|\N{PARAGRAPH SEPARATOR}|\v|\f|\x85")


def with_line_feeds(text: str) -> str:
    """Return the text with every kind of line ending replaced by a line feed.

    Programs differ in which characters end a line, so all of them are normalised.
    """
    return _LINE_ENDS.sub("\n", text)


def fenced(text: str) -> str:
    """Return the text as a fenced code block that no text inside it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def code_span(text: str) -> str:
    """Return the text as an inline code span; line endings become spaces."""
    line = with_line_feeds(text).replace("\n", " ")
    runs = {len(run) for run in re.findall(r"`+", line)}
    ticks = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    if not line.strip():
        return "` `"
    # CommonMark strips one space at each end: it separates the delimiters from backticks in the
    # text.
    pad = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"
