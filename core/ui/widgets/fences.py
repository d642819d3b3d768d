"""Follows where fenced code begins and ends at the top level of a Markdown text, line by line."""

from __future__ import annotations

import re

_FENCE = re.compile(r"( {0,3})(`{3,}(?![^\n]*`)|~{3,})([^\n]*)")
_OUTSIDE = 0


class Fences:
    """Every state that a CommonMark parser may be in, given the lines so far.

    A fence at the very start of a line ends any list or quotation, so that it is at the top level
    for certain. One behind one to three spaces may belong to a list item, with which it would end,
    or not: without parsing lists both are kept in mind, until the lines that follow agree. Fences
    behind more spaces or a marker are in a list or a quotation, or are none: no line at the top
    level can stand in them.
    """

    def __init__(self) -> None:
        # A text is an open fence, as it was written. A number is no fence at the top level; above
        # zero, the text is in a list item, and stays in it up to a line with less indentation.
        self._states: frozenset[str | int] = frozenset([_OUTSIDE])

    @property
    def inside(self) -> bool:
        """Whether what comes next is certainly code."""
        return all(isinstance(state, str) for state in self._states)

    @property
    def outside(self) -> bool:
        """Whether what comes next is certainly in no fence of the top level."""
        return not any(isinstance(state, str) for state in self._states)

    def take(self, line: str) -> bool:
        """Take the next line; returns whether it looks like a fence.

        Args:
            line: whole, without its end. A part will do of a line that :func:`may_be_fence` denies
                and that does not consist of spaces.
        """
        found = _FENCE.match(line)
        if line.strip(" \t"):
            indent = len(line) - len(line.lstrip(" "))
            self._states = frozenset().union(
                *(_after(state, found, indent) for state in self._states)
            )
        return found is not None


def may_be_fence(line: str) -> bool:
    """Whether a line that begins so may turn out to be a fence."""
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
