r"""Escape untrusted text that stands within Streamlit's Markdown: labels, captions, errors.

Nothing in it is interpreted, and nothing is added to it that would be copied with it. Characters
with a meaning get a backslash or are written as references. That is not enough for what Streamlit
replaces after it has parsed the Markdown, such as ``->``, ``:wave:`` and addresses: an empty
directive, which is drawn as an element without text, divides these.

Whole answers and instructions are drawn by :mod:`core.ui.widgets.answer_text`.
"""

from __future__ import annotations

import html
import re

from core.markdown import with_line_feeds

DIVIDER = ":small[]"
"""Drawn as an empty ``span``."""
_BOM = "\ufeff"
_REPLACED = re.compile(
    r"(?i:(?<=http:)|(?<=https:))(?=//)"  # links
    r"|(?i:(?<=www))(?=\.)"
    r"|(?<=[-.\w+]@)(?=[-\w])"
    r"|(?<=:)(?=[\w+-]+:)"  # emoji, icons
    r"|(?<=:)(?=material/)"
    r"|(?<=<)(?=[-=])|(?<=-)(?=[->])|(?<=[>~])(?==)"  # arrows, dashes and comparisons
)
"""Places within a text that Streamlit replaces."""
_MARKS = re.compile(
    r"[\\`*~$<\]]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # not within a name
    r"|:(?![ |-]|\Z)"  # a directive; otherwise it is punctuation, or the alignment of a column
)
"""Characters that get a backslash. A bracket is written as a reference, because Streamlit completes
links in unfinished texts, and an ampersand, so that there are no others."""
_BEGINNING = re.compile(r"( *(?:\d{1,9}(?=[.)]))?)([-+=#>.)])")
"""The beginning of a list, a heading or a quotation."""


def safe_inline(text: str) -> str:
    """Escape a text that is inserted into a line of Markdown; the result is one line."""
    line = with_line_feeds(text).replace("\n", " ").lstrip(_BOM)
    *parts, last = _REPLACED.split(line)
    shown = "".join(_escape(part, divided=True) + DIVIDER for part in parts) + _escape(last)
    begins = _BEGINNING.match(shown)
    return f"{begins[1]}\\{shown[begins.start(2) :]}" if begins else shown


def safe_html(text: str) -> str:
    """Escape a text for ``st.html``, so that every character is shown as it is."""
    return html.escape(text)


def unseen(text: str) -> str:
    """Return a part of a button's label that only screen readers tell, such as its model's name.

    Buttons that look alike get names of their own so: "Delete Paddock NeoX INT8". Coloured text in
    a label is hidden by ``theme.css``.
    """
    return f" :gray[{safe_inline(text)}]"


def _escape(part: str, *, divided: bool = False) -> str:
    escaped = _MARKS.sub(r"\\\g<0>", part.replace("&", "&amp;").replace("[", "&#91;"))
    return f"{escaped[:-1]}\\:" if divided and escaped.endswith(":") else escaped
