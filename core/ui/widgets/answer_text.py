"""Show model output and instructions as untrusted text, character for character.

A model's text is untrusted: an image would make the browser send a request, a link may lead
anywhere. It is parsed here (:mod:`core.ui.widgets.markdown_parser`) and drawn as HTML of a few
tags, in which every character of the text is escaped. The HTML is passed through ``st.markdown``,
which gives it the theme's fonts, and code blocks a copy button; it is one line, of which
Streamlit's Markdown parser changes nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cache

import streamlit as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from streamlit.delta_generator import DeltaGenerator

from core.ui.widgets.formulas import mathml
from core.ui.widgets.markdown_parser import parser

CURSOR = " ▌"
"""Behind the text of a running answer."""
_TYPESET = "typeset_formulas"
"""Key of the latest choice in the session state."""
_LANGUAGE = re.compile(r"(?!(?:math|mermaid)\b)\w[\w+#.-]*", re.ASCII | re.IGNORECASE)
"""Languages that are passed on; of ``math`` and ``mermaid`` Streamlit draws more than code."""
_REFERENCES = {":": "&#58;", "$": "&#36;", "\n": "&#10;", "\t": "&#9;"}
"""Streamlit searches the source for ``:material/``, ``:name:`` and ``$…$``, and a blank line would
end the HTML."""
# Of table columns.
_ALIGNMENTS = frozenset(f"text-align:{side}" for side in ("left", "center", "right"))
_FORMULAS = {
    "math_inline": ("$", "$"),
    "math_inline_double": ("$$", "$$"),
    "math_block": ("$$", "$$"),
}
"""Tokens of formulas, with their marks unless these are brackets."""
_BRACKETS = {"\\(": "\\)", "\\[": "\\]"}
_LAST_TAGS = re.compile(r"(?:</(?!pre|code|table)\w+>)*\Z")
"""The cursor is put before these; not into code, whose text it would change."""
_MARKS_ONLY = re.compile(r"(?:[-+*_=#>|~:` \t]+| {0,3}\d{1,9}[.)]?[ \t]*)\Z")


def draw_answer(text: str, key: str) -> None:
    """Draw a model's text, and a switch for its formulas, with this key, if it has any."""
    if not has_formulas(text):
        _draw(answer_html(text))
        return
    switch = f"formulas_{key}"
    st.session_state.setdefault(switch, st.session_state.get(_TYPESET, False))
    typeset = bool(st.session_state[switch])
    _draw(answer_html(text, formulas=typeset))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.toggle("Typeset formulas", key=switch, on_change=_keep_choice, args=(switch,))
        if not typeset:
            st.caption("The formulas of this answer are shown as written.", width="content")


def _keep_choice(switch: str) -> None:
    """Callback: the latest choice is the default for other answers."""
    st.session_state[_TYPESET] = st.session_state[switch]


def draw_growing_answer(text: str) -> None:
    """Draw the text that a running answer has so far."""
    answer = StreamedAnswer(st.container())
    answer.feed(text)
    answer.draw()


def draw_plain(text: str, *, bold: bool = False) -> None:
    """Draw a text without formatting, with its line breaks."""
    _draw(plain_html(text, bold=bold))


def _draw(safe_html: str, place: DeltaGenerator | None = None) -> None:
    (st if place is None else place).markdown(safe_html, unsafe_allow_html=True, anchors=False)


def answer_html(text: str, *, formulas: bool = False) -> str:
    """Return a model's text as one line of safe HTML, with formulas typeset or as written."""
    return _block(_html(_parser(formulas).parse(text)))


def plain_html(text: str, *, bold: bool = False) -> str:
    """Return a text as one line of safe HTML without formatting."""
    inner = _escape(_line_feeds(text.strip("\r\n")))
    return _block(f'<p dir="auto">{f"<strong>{inner}</strong>" if bold else inner}</p>')


def has_formulas(text: str) -> bool:
    """Return whether a model's text contains formulas."""
    ends = ((text.find(mark), text.rfind(_BRACKETS[mark])) for mark in _BRACKETS)
    if "$" not in text and not any(0 <= first < last for first, last in ends):
        return False
    tokens = _parser(formulas=True).parse(text)
    return any(
        each.type in _FORMULAS for token in tokens for each in (token, *(token.children or ()))
    )


class StreamedAnswer:
    """Draws an answer that grows: a finished block once, the last block with every change."""

    def __init__(self, place: DeltaGenerator) -> None:
        """
        Args:
            place: container for the blocks.
        """
        self._place = place
        self._slot: DeltaGenerator | None = None
        self._source = ""  # of the blocks that are not finished
        self._drawn = 0
        self.unsent = 0
        """Characters that are not drawn yet."""
        self._return = ""  # a carriage return at the end of a piece: a line feed may follow

    @property
    def open_length(self) -> int:
        """Characters that the next change sends again, about."""
        return self._drawn

    def feed(self, text: str) -> None:
        """Take the next piece."""
        self.unsent += len(text)
        text, self._return = self._return + text, ""
        if text.endswith("\r"):
            text, self._return = text[:-1], "\r"
        self._source += _line_feeds(text)

    def draw(self) -> None:
        """Draw what has changed."""
        self.unsent = 0
        finished, rest = self.take()
        self._drawn = len(rest)
        if self._slot is None:
            self._slot = self._place.empty()
        if finished:
            _draw(finished, self._slot)
            self._slot = self._place.empty()
        if rest:
            _draw(rest, self._slot)

    def finish(self) -> None:
        """Draw the last block without the cursor."""
        self._source += "\n" if self._return else ""
        rest = answer_html(self._source)
        _draw(rest, self._place.empty() if self._slot is None else self._slot)

    def take(self) -> tuple[str, str]:
        """Return the HTML of the blocks that have finished since the last call, and of the rest.

        A block has finished when the next one has begun: behind a blank line, or with a complete
        line.
        """
        complete, _, line = self._source.rpartition("\n")
        # A line of marks alone may become anything.
        shown = complete if _MARKS_ONLY.match(line) else self._source
        tokens = _parser().parse(shown)
        lines = self._source.split("\n")
        begun = [
            (at, token.map[0])
            for at, token in enumerate(tokens)
            if token.level == 0 and token.nesting >= 0 and token.map and token.map[0] > 0
            if token.map[0] < len(lines) - 1 or not lines[token.map[0] - 1].strip()
        ]
        at, first_line = begun[-1] if begun else (0, 0)
        self._source = "\n".join(lines[first_line:])
        finished, rest = tokens[:at], tokens[at:]
        _complete(rest)
        inner = _html(rest)
        with_cursor = _LAST_TAGS.sub(lambda found: CURSOR + found[0], inner, count=1)
        return _block(_html(finished)) if finished else "", _block(with_cursor)


@cache
def _parser(formulas: bool = False) -> MarkdownIt:
    return parser(formulas=formulas)


def _complete(tokens: Sequence[Token]) -> None:
    """Close code spans and emphasis that are open at the end of a growing block."""
    if not tokens or (len(tokens) > 1 and tokens[-1].type in ("fence", "code_block")):
        return
    inline = next((token for token in reversed(tokens) if token.type == "inline"), None)
    if inline is None:
        return
    for mark, kind in (("`", "code_inline"), ("**", "strong_open"), ("*", "em_open")):
        if mark not in inline.content:
            continue
        closed = inline.content.rstrip().rstrip(mark[0]) + mark
        children = _parser().parseInline(closed)[0].children or []
        if _count(children, kind) > _count(inline.children or [], kind):
            inline.content, inline.children = closed, children
            return


def _count(tokens: Sequence[Token], kind: str) -> int:
    return sum(token.type == kind for token in tokens)


def _block(inner: str) -> str:
    # Streamlit aligns all text to the left; ``start`` is the right in a Hebrew paragraph.
    return f'<div style="white-space:pre-wrap;text-align:start">{inner}</div>'


def _html(tokens: Sequence[Token]) -> str:
    return "".join(map(_tag, tokens))


def _tag(token: Token) -> str:
    """Return the HTML of one token."""
    match token.type:
        case "inline":
            return _html(token.children or ())
        case "softbreak":
            return "<br>"
        case "hr":
            return "<hr>"
        case "code_inline":
            return f"<code>{_escape(token.content)}</code>"
        case "fence" | "code_block":
            language = _LANGUAGE.match(token.info)
            kind = f' class="language-{language[0]}"' if language else ""
            # Streamlit drops a line feed at the beginning of the code.
            leading = "&#10;" if token.content.startswith("\n") else ""
            return f"<pre><code{kind}>{leading}{_escape(token.content)}</code></pre>"
        case "html_block" | "definition":
            raw = token.content.rstrip("\n")
            return f'<p dir="auto">{_escape(raw)}</p>'
        case "math_inline" | "math_inline_double" | "math_block":
            return _formula(token)
    if token.nesting == 0:  # text
        return _escape(token.content)
    if token.hidden:
        return ""
    if token.nesting < 0:
        return f"</{token.tag}>"
    attributes = ' dir="auto"' if token.block and token.level == 0 else ""
    if (direction := token.attrGet("dir")) in ("ltr", "rtl"):
        attributes = f' dir="{direction}"'
    for name in ("start", "value"):
        if isinstance(number := token.attrGet(name), int):
            attributes += f' {name}="{number}"'
    if (style := token.attrGet("style")) in _ALIGNMENTS:
        attributes += f' style="{style}"'
    return f"<{token.tag}{attributes}>"


def _formula(token: Token) -> str:
    block = token.type != "math_inline" or token.markup == "\\["
    if made := mathml(token.content.strip(), block=block):
        return f"<p>{made}</p>" if token.block else made
    begin, end = _FORMULAS[token.type]
    if token.markup in _BRACKETS:
        begin, end = token.markup, _BRACKETS[token.markup]
    shown = _escape(f"{begin}{token.content}{end}")
    return f"<p>{shown}</p>" if token.block else shown


def _escape(text: str) -> str:
    escaped = html.escape(text)
    for character, reference in _REFERENCES.items():
        escaped = escaped.replace(character, reference)
    return escaped


def _line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
