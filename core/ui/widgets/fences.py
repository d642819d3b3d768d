"""Track where fenced code begins and ends at the top level of a Markdown text, line by line."""

from __future__ import annotations

import re

_FENCE = re.compile(r"( {0,3})(`{3,}(?![^\n]*`)|~{3,})([^\n]*)")
_OUTSIDE = 0


class Fences:
    """All states that a CommonMark parser may be in after the lines so far.

    A fence at the very start of a line ends any list or quotation and is therefore certainly at the
    top level. A fence indented by one to three spaces may belong to a list item, and would then end
    with it, or may not. Lists are not parsed, so both states are kept until the following lines
    agree. Fences behind more spaces or a marker are inside a list or a quotation, or are no fences:
    no top-level line can be inside them.
    """

    def __init__(self) -> None:
        # A string is an open fence as written. A number means no open fence at the top level; above
        # zero, the text is in a list item, up to the next line with less indentation.
        self._states: frozenset[str | int] = frozenset([_OUTSIDE])

    @property
    def inside(self) -> bool:
        """Whether the next text is certainly code."""
        return all(isinstance(state, str) for state in self._states)

    @property
    def outside(self) -> bool:
        """Whether the next text is certainly in no top-level fence."""
        return not any(isinstance(state, str) for state in self._states)

    def take(self, line: str) -> bool:
        """Process the next line and return whether it has the form of a fence.

        Args:
            line: the complete line without its line ending. A part is enough if
                :func:`may_be_fence` is False for it and it does not consist of spaces only.
        """
        found = _FENCE.match(line)
        if line.strip(" \t"):
            indent = len(line) - len(line.lstrip(" "))
            self._states = frozenset().union(
                *(_after(state, found, indent) for state in self._states)
            )
        return found is not None


def may_be_fence(line: str) -> bool:
    """Return whether a line with this beginning may be a fence."""
    indent = len(line) - len(line.lstrip(" "))
    rest = line[indent:]
    return indent <= 3 and (not rest or rest[:3] in ("`", "``", "```", "~", "~~", "~~~"))


def _after(state: str | int, found: re.Match[str] | None, indent: int) -> set[str | int]:
    if isinstance(state, str):
        closed = found and found[2].startswith(state) and not found[3].strip(" \t")
        return {_OUTSIDE if closed else state}
    if indent < state:
        state = _OUTSIDE
    if found is None or state:
        return {state}
    return {found[2], indent} if indent else {found[2]}
