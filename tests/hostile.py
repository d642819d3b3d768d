"""Hostile texts, one by hand and others at random, and what a browser must not make of them."""

from __future__ import annotations

import random
import re
import textwrap

from markdown_it import MarkdownIt

from core.ui.widgets.safe_text import DIVIDER

HOSTILE = (
    """First ![a](http://evil.example/i.png) and ![b][r] and [![c](http://evil.example/c.png)](x).

<img src="http://evil.example/h.png" onerror="alert(1)"><script>alert(2)</script>
<svg onload="alert(3)"></svg> <iframe src="http://evil.example/f"></iframe>

[click](javascript:alert(4)) <http://evil.example/auto> http://evil.example/bare www.evil.example
me@evil.example [ref][r] and `code ![d](http://evil.example/d.png)` and
\\![e](http://evil.example/e)

It costs $x^2$ or $$y$$, \\(z\\), :red[colour] :material/home: :blue-badge[badge] :streamlit: :wave:

www&#46;evil.example/e1 http&#58;//evil.example/e2 me&#64;evil.example &#58;material/home&#58;

> ![q](http://evil.example/q.png)
> [r]: http://evil.example/r.png

| a | b |
|---|--:|
| $1$ | ![t](http://evil.example/t.png) |

[r]: http://evil.example/r.png

"""
    + "long" * 400
)

ACTIVE = (
    "img, a[href]:not([href^='#']), script, iframe, svg:not(button *, a *), object, embed, form, "
    "input, .katex, math, [data-testid='stMermaidChart']"
)
"""A heading has a link to itself, by Streamlit."""

LINE_ENDS = ["\n", "\n", "\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\v", "\f", "\n\n", "\r\r"]
BEGINNINGS = [
    *["", "", "", " ", "  ", "   ", "    ", "     ", "\t", " \t", "- ", "* ", "1. ", "10) ", "> "],
    *[">", "- - ", "-\n", "# ", "\ufeff", "\u3000", "\x00", "\x1c", "|", "[^1]: ", "[r]: ", ":::"],
]
FENCES = ["```", "~~~", "````", "~~~~", "```py", "~~~ js", "```math", "~~~mermaid", "``` a`b"]
PAYLOADS = [
    "[link](http://evil.example/x)",
    "![image](http://evil.example/i.png)",
    "[r][r]",
    "[r]: http://evil.example/r",
    "[^1]",
    "<http://evil.example/auto>",
    "http://evil.example/bare",
    "www.evil.example",
    "me@evil.example",
    "<b onclick='alert(1)'>bold</b>",
    "<!-- comment",
    "<script>",
    "$x^2$",
    "$$y$$",
    "$$",
    "$",
    ":red[colour]",
    ":material/home:",
    ":streamlit:",
    ":wave:",
    ":-1:",
    ":small[s",
    ":help[x]",
    "&#91;e](http://evil.example/e)",
    "&#36;z&#36;",
]
TEXT = ["word", "x", " ", "", "`", "``", "`c`", "`$c$`", "`a | $x$ b`", "\\", "|", "|-|"]
LANGUAGE = re.compile(r"(?i)math|mermaid")
DIRECTIVE = re.compile(r":[a-z]", re.IGNORECASE)
REPLACED = re.compile(r":\+?\w[\w-]*:|:-1:|https?://|www\.\w|[\w.+-]@\w", re.IGNORECASE)
"""Streamlit replaces these after the Markdown was parsed, so a backslash does not prevent it."""


_PARSER = MarkdownIt("commonmark").enable("table").disable("text_join")


def mix(choose: random.Random) -> str:
    """A text of a few lines."""
    parts = []
    for _ in range(choose.randint(2, 12)):
        if choose.random() < 0.35:
            kinds = [BEGINNINGS, FENCES]
        else:
            kinds = [BEGINNINGS, *choose.choices([PAYLOADS, TEXT], k=choose.randint(1, 3))]
        parts += [choose.choice(kind) for kind in [*kinds, LINE_ENDS]]
    return "".join(parts[: choose.randint(1, len(parts))])


def pieces_of(text: str, choose: random.Random) -> list[str]:
    """The text, cut at random."""
    found = []
    while text:
        size = choose.randint(1, 9)
        found.append(text[:size])
        text = text[size:]
    return found


def active(markdown: str) -> set[str]:
    """What a browser would follow, fetch, run, typeset or colour, given one element's text."""
    markdown = markdown.replace(f"\\:{DIVIDER}", "&#58;\0").replace(DIVIDER, "\0")
    known: dict[str, object] = {}
    shown = textwrap.dedent(markdown).strip().removeprefix("\ufeff")  # as Streamlit and micromark
    found = set()
    for token in _PARSER.parse(shown, known):
        if token.type == "html_block":
            found.add(token.type)
        if token.type == "fence" and LANGUAGE.match(token.info.strip()):
            found.add(token.info)
        children = token.children or ()
        found |= {child.type for child in children} & {"image", "link_open", "html_inline"}
        # A text that is no ``text_special`` was not escaped.
        raw = "".join(child.content if child.type == "text" else "\0" for child in children)
        found |= {mark for mark in "$[" if mark in raw} | set(DIRECTIVE.findall(raw))
        text = "".join(
            child.content if child.type.startswith("text") else "\n" for child in children
        )
        found |= set(REPLACED.findall(text))
    return found | set(known.get("references", ()))
