"""Tests of Markdown escaping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from core.markdown import code_span, fenced

TEXT = st.text() | st.text(alphabet="`~ \n\\<>#a")


def test_fence_is_longer_than_any_backtick_run_inside():
    assert fenced("a```b````c") == "`````text\na```b````c\n`````"


@given(TEXT)
def test_code_span_is_one_inline_code_token(text: str):
    tokens = MarkdownIt("commonmark").parse(f"before {code_span(text)} after")
    assert len(tokens) == 3  # one paragraph
    kinds = [(child.type, child.content) for child in tokens[1].children]
    assert [kind for kind, _ in kinds] == ["text", "code_inline", "text"]
    assert (kinds[0][1], kinds[2][1]) == ("before ", " after")
    if text.isprintable() and text.strip():
        assert kinds[1][1] == text


@given(TEXT)
def test_fenced_text_is_one_block(text: str):
    kinds = [token.type for token in MarkdownIt("commonmark").parse(f"a\n\n{fenced(text)}\n\nb")]
    paragraph = ["paragraph_open", "inline", "paragraph_close"]
    assert kinds == [*paragraph, "fence", *paragraph]
