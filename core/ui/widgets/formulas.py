"""Typeset LaTeX formulas of a model's text as MathML, which browsers draw by themselves."""

from __future__ import annotations

import html
import logging
import re
from xml.etree.ElementTree import Element

_LONGEST = 2000
_DEFINITIONS = re.compile(r"\\(?:\w*newcommand|providecommand|\w*def|let)\b")
"""Macros are not expanded: a few of them can make a formula of any size."""
_ENVIRONMENTS = {"{aligned}": "{align*}", "{gathered}": "{gather*}", "{split}": "{align*}"}
"""Environments that the library does not know, and what it has for them."""
_ATTRIBUTES = frozenset(
    [
        *("accent", "accentunder", "columnalign", "columnlines", "columnspacing", "display"),
        *("displaystyle", "fence", "form", "frame", "largeop", "linethickness", "lspace"),
        *("mathcolor", "mathvariant", "maxsize", "minsize", "movablelimits", "notation"),
        *("rowlines", "rowspacing", "rspace", "scriptlevel", "separator", "stretchy"),
        *("symmetric", "width"),
    ]
)
"""Attributes that are kept; ``href``, ``style`` and ``class`` are not among them."""
_VALUE = re.compile(
    r"[a-z# -]*|-?\d?(?:\.\d+)?(?:em|ex|pt|px)?( -?\d(?:\.\d+)?em)*|#[\da-fA-F]{3,6}"
)
"""Words, colours and small lengths."""

logger = logging.getLogger(__name__)


def mathml(latex: str, *, block: bool) -> str | None:
    """Return a formula as safe MathML, or None if it cannot be typeset.

    Args:
        block: whether it stands on a line of its own.
    """
    if len(latex) > _LONGEST or _DEFINITIONS.search(latex):
        return None
    for unknown, known in _ENVIRONMENTS.items():
        latex = latex.replace(unknown, known)
    from latex2mathml.converter import Converter

    try:
        tree = Converter(display="block" if block else "inline").convert_to_element(latex)
        return _serialised(tree)
    except Exception as error:  # noqa: BLE001 - raises errors of many kinds for malformed formulas
        logger.debug("A formula cannot be typeset: %r", error)
        return None


def _serialised(element: Element) -> str:
    """Return MathML elements and their text; of everything else, only what is inside it."""
    inner = _text(element.text) + "".join(
        _serialised(child) + _text(child.tail) for child in element
    )
    if not re.fullmatch(r"m[a-z]+", element.tag):
        return inner
    kept = "".join(
        f' {name}="{value}"'
        for name, value in element.attrib.items()
        if name in _ATTRIBUTES and _VALUE.fullmatch(value)
    )
    return f"<{element.tag}{kept}>{inner}</{element.tag}>"


def _text(text: str | None) -> str:
    # The library writes symbols as references.
    shown = html.escape(html.unescape(text or ""))
    return shown.replace(":", "&#58;").replace("$", "&#36;").replace("\n", " ")
