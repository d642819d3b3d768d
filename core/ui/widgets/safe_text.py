r"""Escape untrusted text for Markdown, also while it streams.

A model's text is untrusted: an image makes the browser send a request, a link may lead anywhere,
``$`` starts LaTeX, ``:name:`` and ``:red[…]`` are Streamlit directives. Emphasis, lists, tables,
headings and code are kept. Everything else is shown character for character: invisible word joiners
(U+2060) break each construct, ``$`` and ``\`` get a backslash, and ``[`` and ``&`` are written as
character references. Fenced code is not changed, because nothing in it is interpreted and users
copy it.

Only text that is certainly code in the browser is left unchanged: fenced code at the top level
(:class:`core.ui.widgets.fences.Fences`), and code spans that neither an earlier backtick of the
paragraph nor the end of the line or of a table cell can break. All other code is escaped like
prose.
"""

from __future__ import annotations

import html
import re

from core.markdown import with_line_feeds
from core.ui.widgets.fences import Fences, may_be_fence

JOINER = "\u2060"
_BOM = "\ufeff"
_MAX_CODE_SPAN = 2000
"""Most characters of a code span; it is held back until it is certain to be one."""
_STRETCH = 1024
_PLAIN = re.compile(r"[^`~$\\\[\]&<@:.\n]+")
_INFO = re.compile(r"[ \t]*(\S+)")
_LANGUAGE = re.compile(r"(?!(?:math|mermaid)\b)[a-z0-9_][a-z0-9_+#.-]*", re.ASCII | re.IGNORECASE)
"""Allowed info strings of a fence: Streamlit typesets ``math`` and draws ``mermaid``."""
_REFERENCES = {"[": "&#91;", "&": "&amp;"}
"""A bracket written as a reference never begins a link, not even in Streamlit, which completes
unfinished links while an answer streams. Escaping the ampersand keeps a model from writing such
references itself."""
_HARMLESS_AFTER_COLON = frozenset(["", " ", "\n", "-", "|"])
"""A colon before one of these is punctuation or the alignment of a table column."""


def safe_markdown(text: str) -> str:
    """Escape a complete text that is drawn as an element of its own."""
    stream = SafeMarkdown()
    return stream.feed(text) + stream.close()


def safe_inline(text: str) -> str:
    """Escape a text that is inserted into a line of Markdown.

    The result is one line without code, because a backtick could pair with one next to it.
    """
    line = with_line_feeds(text).replace("\n", " ").replace(_BOM, JOINER)
    return "".join(
        "\\" + character
        if character in "`~"
        else _escape(line[max(0, at - 3) : at], character, line[at + 1 : at + 2])
        for at, character in enumerate(line)
    )


def emphasised(text: str) -> str:
    """Escape a text and make it bold if it has only one line."""
    line = with_line_feeds(text).strip()
    return safe_markdown(text) if "\n" in line else f"**{safe_inline(line)}**"


def safe_html(text: str) -> str:
    """Escape a text for ``st.html``, so that every character is shown as it is."""
    return html.escape(text)


class SafeMarkdown:
    """Escapes text that arrives in pieces; the joined results equal those of the whole text.

    What cannot be classified yet (the beginning of a line that may be a fence, an open code span)
    is held back until it can.
    """

    def __init__(self) -> None:
        self._fences = Fences()
        self._return = ""  # a carriage return at the end of a piece: a line feed may follow
        self._held = ""
        self._tail = ""  # the last characters processed
        self._line_begins = True
        self._verbatim = False  # whether the current line is fenced code
        self._backtick = False  # whether a backtick of the paragraph may begin or end a code span

    def feed(self, text: str) -> str:
        """Take the next piece and return what can be shown now."""
        text, self._return = self._return + text, ""
        if text.endswith("\r"):
            text, self._return = text[:-1], "\r"
        text = with_line_feeds(text)
        # In short stretches, because the cost of each step grows with the text held.
        return "".join(
            self._drain(text[at : at + _STRETCH], final=False)
            for at in range(0, len(text), _STRETCH)
        )

    def close(self) -> str:
        """Return the rest at the end of the text; an open fence ends there."""
        return self._drain("\n" if self._return else "", final=True)

    def _drain(self, text: str, *, final: bool) -> str:
        # The browser drops a byte order mark at the beginning of an element and would interpret
        # the text after it.
        self._held += text.replace(_BOM, JOINER)
        if not self._tail:
            # Streamlit drops leading spaces in the same way: the first line is not indented.
            self._held = self._held.lstrip()
        shown: list[str] = []
        while self._held:
            piece = self._next(final=final)
            if piece is None:
                break
            shown.append(piece)
        return "".join(shown)

    def _next(self, *, final: bool) -> str | None:
        """Consume and escape one unit of the held text; None if more text is needed."""
        line, newline, _ = self._held.partition("\n")
        if self._line_begins:
            if not (newline or final) and (not line.strip(" \t") or may_be_fence(line)):
                return None
            return self._begin_line(line)
        if not line:
            self._line_begins = True
            return self._take(1)
        if self._verbatim:
            return self._take(len(line))
        if self._held[0] == "`":
            return self._code_span(line, whole=bool(newline) or final)
        if self._held[0] == "~":
            return self._tildes(line, whole=bool(newline) or final)
        if plain := _PLAIN.match(self._held):
            return self._take(plain.end())
        if self._held == ":" and not final:
            return None  # depends on the next character
        return _escape(self._tail, self._take(1), self._held[:1])

    def _begin_line(self, line: str) -> str:
        self._line_begins = False
        inside = self._fences.inside
        is_fence = self._fences.take(line)
        self._verbatim = inside and self._fences.inside
        if is_fence or not line.strip(" \t"):
            self._backtick = False  # the paragraph ends here
        if not is_fence or self._verbatim:
            return ""
        indent = len(line) - len(line.lstrip(" "))
        return self._take(indent) + self._fence_run(line[indent:])

    def _code_span(self, line: str, *, whole: bool) -> str | None:
        """Process a code span, or backticks that do not form one."""
        line = line[: _MAX_CODE_SPAN + 1]
        run = _run_of(line)
        closing = re.compile(rf"(?<!`){run}(?!`)").search(line, len(run))
        at_edge = closing is None or closing.end() == len(line)
        if not whole and at_edge and len(line) <= _MAX_CODE_SPAN:
            return None
        code = line[: closing.end()] if closing is not None else ""
        unsure = self._backtick or "|" in code
        # Joiners alone break neither a formula nor a link that Streamlit completes.
        prose = not code or len(code) > _MAX_CODE_SPAN or (unsure and ("$" in code or "[" in code))
        self._backtick |= prose or "|" in code
        if prose:
            return self._fence_run(line)
        self._take(len(code))
        shown = "".join(
            _break(code[max(0, at - 3) : at], character, code[at + 1 : at + 2])
            for at, character in enumerate(code)
        )
        # Keeps apart the backticks that Streamlit appends to complete a streaming answer.
        return shown + JOINER if "$" in code else shown

    def _tildes(self, line: str, *, whole: bool) -> str | None:
        line = line[: _MAX_CODE_SPAN + 1]
        run = _run_of(line)
        info = _INFO.match(line, len(run))
        open_ended = len(run) == len(line) or (
            len(run) >= 3 and (info is None or info.end() == len(line))
        )
        if not whole and open_ended and len(line) <= _MAX_CODE_SPAN:
            return None
        return self._fence_run(line)

    def _fence_run(self, line: str) -> str:
        """Consume backticks or tildes; break an info string that Streamlit does more with than
        highlighting."""
        run = self._take(len(_run_of(line)))
        info = _INFO.match(line, len(run))
        harmless = len(run) < 3 or info is None or _LANGUAGE.fullmatch(info[1])
        return run if harmless else run + JOINER

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        self._tail = (self._tail + taken)[-3:]
        return taken


def _escape(before: str, character: str, after: str) -> str:
    if character in "$\\":
        return "\\" + character
    if character in _REFERENCES:
        return _REFERENCES[character]
    return character if character == "]" else _break(before, character, after)


def _break(before: str, character: str, after: str) -> str:
    """Return the character with joiners where it could begin or continue an active construct."""
    begins = (
        character in "]<@"
        or (character == "&" and after not in ("", " ", "&"))
        or (character == ":" and after not in _HARMLESS_AFTER_COLON)
    )
    goes_on = (character == "." and before.lower().endswith("www")) or (
        character == ":" and before.endswith(":-1")  # an emoji
    )
    return JOINER * goes_on + character + JOINER * begins


def _run_of(text: str) -> str:
    """Return the run of the same character at the beginning of ``text``."""
    return text[: len(text) - len(text.lstrip(text[0]))]
