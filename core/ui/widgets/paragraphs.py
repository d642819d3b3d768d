"""Split a growing Markdown text into blocks, so that finished blocks need not be sent again.

A block is finished when a blank line follows it and the next line does not belong to it: that line
must not be indented, as the continuation lines of a list item are, and must not be in fenced code.
A long list is also split between its items without a blank line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from core.ui.widgets.fences import Fences

LONG_LIST = 800
"""Characters from which a list is split between its items. A split list is drawn with more space
between its parts until the answer has finished; in a short list that would be visible without
helping."""

_ITEM = re.compile(r"[-*+] |\d{1,3}[.)] ")
_MAY_BE_ITEM = re.compile(r"[-*+]$|\d{1,3}[.)]?$")
_BLANK = " \t\n"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Paragraphs:
    """Takes a text in pieces and yields it with a None between two blocks.

    Lines must end with line feeds only (:func:`core.markdown.with_line_feeds`).
    """

    def __init__(self) -> None:
        self._held = ""  # the beginning of a line that cannot be classified yet
        self._blanks = ""  # blank lines that belong to the block only if it continues
        self._line = ""  # the part of the current line that was already yielded
        self._length = 0
        self._in_list = False
        self._fences = Fences()

    @property
    def length(self) -> int:
        """Characters of the open block so far."""
        return self._length

    def feed(self, text: str) -> Iterator[str | None]:
        """Take the next piece and yield what can be drawn, with None where a block has ended."""
        text, self._held = self._held + text, ""
        for line in _LINE.findall(text):
            yield from self._take(line)

    def close(self) -> Iterator[str | None]:
        """Yield the rest at the end of the text."""
        held, self._held = self._held, ""
        if held.strip(_BLANK):
            yield from self._begin_line(held)

    def _take(self, line: str) -> Iterator[str | None]:
        """Process one line, or a part of one."""
        if self._line or not self._fences.outside:
            yield self._hand_on(line)
        elif line.strip(_BLANK):
            if not line.endswith("\n") and _MAY_BE_ITEM.match(line):
                self._held = line
            else:
                yield from self._begin_line(line)
        elif line.endswith("\n"):
            self._blanks += line
        else:
            self._held = line

    def _begin_line(self, line: str) -> Iterator[str | None]:
        item = _ITEM.match(line) is not None
        if self._length and not line[0].isspace() and self._ends_before(item=item):
            self._blanks, self._length = "", 0
            yield None
        if not self._length:
            self._in_list = item
            self._blanks = ""  # above the first block
        blanks, self._blanks = self._blanks, ""
        yield blanks + self._hand_on(line)
        self._length += len(blanks)

    def _ends_before(self, *, item: bool) -> bool:
        """Return whether the block ends before a line that is not indented."""
        if self._blanks:
            return True
        return item and self._in_list and self._length > LONG_LIST

    def _hand_on(self, piece: str) -> str:
        self._line += piece
        self._length += len(piece)
        if self._line.endswith("\n"):
            self._fences.take(self._line.removesuffix("\n"))
            self._line = ""
        return piece


class Unsent:
    """The part of a growing text that is not drawn yet: finished blocks and the open block.

    Blocks finished since the last update are joined into one: each message costs the browser a few
    milliseconds, and a fast model finishes dozens of paragraphs per second.
    """

    def __init__(self) -> None:
        self._blocks = Paragraphs()
        self._finished = ""
        self._open = ""

    def __len__(self) -> int:
        return len(self._finished) + len(self._open)

    @property
    def open_length(self) -> int:
        """Characters of the open block, drawn or not."""
        return self._blocks.length

    def feed(self, text: str) -> None:
        """Take the next piece."""
        self._add(self._blocks.feed(text))

    def close(self) -> None:
        """Take the rest at the end of the text."""
        self._add(self._blocks.close())

    def take(self) -> Iterator[str | None]:
        """Yield everything that is not drawn yet, with None where a block ends, and clear it."""
        finished, self._finished = self._finished, ""
        rest, self._open = self._open, ""
        if finished:
            yield finished
            yield None
        if rest:
            yield rest

    def _add(self, pieces: Iterable[str | None]) -> None:
        for piece in pieces:
            if piece is None:
                self._finished += f"{self._open}\n"  # the blank line between two blocks
                self._open = ""
            else:
                self._open += piece
