r"""Makes a model's output harmless Markdown, as it streams.

A model's text is untrusted: an image in it makes the browser call out, a link may lead anywhere,
``$`` starts LaTeX, ``:name:`` and ``:red[…]`` are directives of Streamlit. Emphasis, lists, tables,
headings and code stay. Everything else is shown as the characters it is made of: invisible word
joiners (U+2060) break each construct, a backslash stands before ``$`` and ``\``, and references
stand for ``[`` and ``&``. Fenced code is left as it is: nothing in it is interpreted, and people
copy from it.

A fence counts only where it opens at the very start of a line: there it cannot belong to a list or
a quotation, whose end would close it for the browser but not for us.
"""

from __future__ import annotations

import html
import re

JOINER = "\u2060"
_FENCE = re.compile(r"(`{3,})[^`\n]*$|(~{3,})[^\n]*$")
_MAX_CODE_SPAN = 2000
"""Characters that a code span may have; held back until it is known to be one."""
_STRETCH = 1024
_PLAIN = re.compile(r"[^`$\\\[\]&<@:.\n]+")
_REFERENCES = {"[": "&#91;", "&": "&amp;"}
"""A bracket so written never begins a link, not even for Streamlit, which completes half a link of
an answer that streams. The ampersand keeps the model from writing characters in that way."""
_HARMLESS_AFTER_COLON = frozenset(["", " ", "\n", "-", "|"])
"""A colon before one of these is punctuation, or the alignment of a table's column."""


def safe_markdown(text: str) -> str:
    """The whole of a text made harmless."""
    stream = SafeMarkdown()
    return stream.feed(text) + stream.close()


def safe_inline(text: str) -> str:
    """A text made harmless that is put within a line, after words of ours say.

    Backticks open no fenced code there, so nothing of it may be left as it is.
    """
    stream = SafeMarkdown(fences=False)
    return stream.feed(text) + stream.close()


def emphasised(text: str) -> str:
    """A text made harmless, in bold where it has one line only."""
    line = text.strip()
    return safe_markdown(text) if "\n" in line else f"**{safe_inline(line)}**"


def safe_html(text: str) -> str:
    """The text for ``st.html``: every character is shown as it is."""
    return html.escape(text)


class SafeMarkdown:
    """The same for text that comes in pieces: the joined results equal the whole's.

    What cannot be judged yet (the beginning of a line that may be a fence, an open code span) is
    held back until it can.
    """

    def __init__(self, *, fences: bool = True) -> None:
        """
        Args:
            fences: whether the text begins at the start of a line, so that it may hold fenced code.
        """
        self._fences = fences
        self._held = ""
        self._fence: str | None = None
        self._tail = "\n"  # the last characters taken

    def feed(self, text: str) -> str:
        """Take the next piece; returns what can be shown now."""
        # In short stretches: each step costs as much as what is held.
        return "".join(
            self._drain(text[at : at + _STRETCH], final=False)
            for at in range(0, len(text), _STRETCH)
        )

    def close(self) -> str:
        """Returns what was still held back; an open fence ends with the text."""
        return self._drain("", final=True)

    def _drain(self, text: str, *, final: bool) -> str:
        self._held += text
        shown: list[str] = []
        while self._held:
            piece = self._next(final=final)
            if piece is None:
                break
            shown.append(piece)
        return "".join(shown)

    def _next(self, *, final: bool) -> str | None:
        """Consume and convert one unit of what is held; None where more text is needed."""
        if self._fences and self._tail.endswith("\n"):
            line, newline, _ = self._held.partition("\n")
            if self._may_be_fence(line):
                if not newline and not final:
                    return None
                if self._is_fence(line):
                    self._fence = None if self._fence else _run_of(line.lstrip(" "))
                    return self._take(len(line) + len(newline))
        if self._fence is not None:
            end = self._held.find("\n") + 1 or len(self._held)
            return self._take(end)
        if self._held[0] == "`":
            return self._code_span(final=final)
        if plain := _PLAIN.match(self._held):
            return self._take(plain.end())
        if self._held == ":" and not final:
            return None  # what follows decides
        return self._escape(self._tail, self._take(1), self._held[:1])

    def _may_be_fence(self, line: str) -> bool:
        if self._fence is not None:
            stripped = line.lstrip(" ")
            return len(line) - len(stripped) <= 3 and (
                not stripped or stripped[0] == self._fence[0]
            )
        return line[:3] in ("`", "``", "```", "~", "~~", "~~~")

    def _is_fence(self, line: str) -> bool:
        if self._fence is None:
            return _FENCE.match(line) is not None
        run = line.strip(" \t")
        return (
            len(line) - len(line.lstrip(" ")) <= 3
            and bool(run)
            and set(run) == {self._fence[0]}
            and len(run) >= len(self._fence)
        )

    def _code_span(self, *, final: bool) -> str | None:
        """Code within a line of text, or backticks that close nothing."""
        run = _run_of(self._held)
        if len(run) == len(self._held) and not final:
            return None
        paragraph = re.split(r"\n[ \t]*\n", self._held, maxsplit=1)[0][:_MAX_CODE_SPAN]
        closing = re.compile(rf"(?<!`){run}(?!`)").search(paragraph, len(run))
        at_edge = closing is not None and closing.end() == len(self._held)
        open_ended = len(paragraph) == len(self._held) and len(paragraph) < _MAX_CODE_SPAN
        if not final and (at_edge or (closing is None and open_ended)):
            return None
        if closing is None:
            return self._take(len(run))
        code = self._take(closing.end())
        return "".join(
            _break(code[max(0, at - 3) : at], character, code[at + 1 : at + 2])
            for at, character in enumerate(code)
        )

    @staticmethod
    def _escape(before: str, character: str, after: str) -> str:
        if character in "$\\":
            return "\\" + character
        if character in _REFERENCES:
            return _REFERENCES[character]
        return character if character == "]" else _break(before, character, after)

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        self._tail = (self._tail + taken)[-3:]
        return taken


def _break(before: str, character: str, after: str) -> str:
    """The character, with a joiner where it could begin or go on with something active."""
    if (
        character in "]<@"
        or (character == "&" and after not in ("", " ", "&"))
        or (character == ":" and after not in _HARMLESS_AFTER_COLON)
    ):
        return character + JOINER
    if character == "." and before.lower().endswith("www"):
        return JOINER + character
    return character


def _run_of(text: str) -> str:
    """The same character repeated, at the beginning of ``text``."""
    return text[: len(text) - len(text.lstrip(text[0]))]
