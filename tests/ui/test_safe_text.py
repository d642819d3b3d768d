"""Escaping of texts within Streamlit's Markdown. Tests in tests/browser look at what is shown."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from core.ui.widgets.safe_text import DIVIDER, safe_inline
from tests.hostile import active, mix

SPECIAL = ["``", "```", "~~~", *"`$\\[]()!<:.@&|"]
WORDS = ["img", "red", "www", "https://a.b/c", "word", "```py\n", ":wave:", "-1", "material/", "+"]
SPACES = ["\n", "\n\n", " ", "    ", "- ", "> ", "1. "]
PIECES = st.lists(st.sampled_from([*SPECIAL, *WORDS, *SPACES]), max_size=60)
REPLACED = re.compile(
    r"https?://|www\.|[-.\w+]@[-\w]|:[\w+-]+:|:material/|<->|->|<-|--|>=|<=|~=", re.IGNORECASE
)
"""What Streamlit replaces after it has parsed the Markdown."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![x](http://h/i.png)", f"!&#91;x\\](http\\:{DIVIDER}//h/i.png)"),
        ("<script>", "\\<script>"),
        ("costs $x$", r"costs \$x\$"),
        (":red[x] at 10:30, so: yes", "\\:red&#91;x\\] at 10\\:30, so: yes"),
        (":wave:", f"\\:{DIVIDER}wave:"),
        ("www.a.b and me@a.b", f"www{DIVIDER}.a.b and me@{DIVIDER}a.b"),
        ("R&D &amp;", "R&amp;D &amp;amp;"),
        ("a -> b -- c >= d", f"a -{DIVIDER}> b -{DIVIDER}- c >{DIVIDER}= d"),
        ("a_b __init__ *x*", "a_b \\_\\_init\\_\\_ \\*x\\*"),
        ("- item", "\\- item"),
        ("1. FC", "1\\. FC"),
        ("# 2\r\n3", "\\# 2 3"),
        ("```![x](y)\r\n~~~\n$", "\\`\\`\\`!&#91;x\\](y) \\~\\~\\~ \\$"),
    ],
)
def test_active_constructs_are_escaped_and_the_rest_is_kept(text: str, shown: str) -> None:
    assert safe_inline(text) == shown


def shown_texts(markdown: str) -> list[str]:
    """Return the texts between dividers, as a browser shows them."""
    tokens = MarkdownIt("commonmark").enable(["strikethrough", "table"]).parse(markdown.strip())
    assert [token.type for token in tokens] in (
        ["paragraph_open", "inline", "paragraph_close"],
        [],
    )
    children = tokens[1].children or () if tokens else ()
    assert all(child.type in ("text", "softbreak") for child in children)
    return "".join(child.content for child in children).split(DIVIDER)


@given(PIECES)
def test_every_character_is_shown_and_none_is_added(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert "".join(shown_texts(safe_inline(text))) == " ".join(text.split("\n")).strip()


@given(PIECES)
def test_nothing_is_left_that_streamlit_replaces(pieces: list[str]) -> None:
    assert not any(map(REPLACED.search, shown_texts(safe_inline("".join(pieces)))))


@given(st.text())
def test_no_invisible_character_is_added(text: str) -> None:
    added = set(safe_inline(text)) - set(text)
    assert all(unicodedata.category(character) != "Cf" for character in added)


@given(PIECES, PIECES)
def test_no_construct_survives_within_a_line(pieces: list[str], others: list[str]) -> None:
    text = safe_inline("".join(pieces))
    assert not active(f"A · **{text}** · {safe_inline(''.join(others))}") and not active(text)


def test_hostile_texts_are_not_active() -> None:
    for seed in range(300):
        choose = random.Random(seed)
        text, other = mix(choose), mix(choose)
        line = f"A · **{safe_inline(text)}** · {safe_inline(other)}"
        assert not active(line), (seed, text, line)


def test_oracle_detects_active_constructs() -> None:
    choose = random.Random(0)
    assert sum(bool(active(mix(choose))) for _ in range(300)) > 200
    for text in ("[a](b)", "![a](b)", "$x$", ":red[x]", ":-1:", "<b>", "```mermaid\nx", "[r]: x"):
        assert active(text), text
        assert not active(f"```\n{text.replace('`', '')}"), text
