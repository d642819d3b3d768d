"""Model output as harmless Markdown. What a browser makes of it: tests/browser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ui.safe_text import JOINER, SafeMarkdown, emphasised, safe_inline, safe_markdown

SPECIAL = [
    "`",
    "``",
    "```",
    "~~~",
    "$",
    "\\",
    "[",
    "]",
    "(",
    ")",
    "!",
    "<",
    ":",
    ".",
    "@",
    "&",
    "|",
]
WORDS = ["img", "red", "www", "https://a.b/c", "word", "```py\n"]
SPACES = ["\n", "\n\n", " ", "    ", "- ", "> "]
PIECES = st.lists(st.sampled_from([*SPECIAL, *WORDS, *SPACES]), max_size=60)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain *text*, **bold**\n- item", "plain *text*, **bold**\n- item"),
        ("![x](http://h/i.png)", f"!&#91;x](http:{JOINER}//h/i.png)"),
        ("[x][1]\n\n[1]: y", "&#91;x]&#91;1]\n\n&#91;1]: y"),
        ("<script>", f"<{JOINER}script>"),
        ("costs $x$", r"costs \$x\$"),
        (r"\$x$", r"\\\$x\$"),
        (":red[x] at 10:30, so: yes", f":{JOINER}red&#91;x] at 10:{JOINER}30, so: yes"),
        ("www.a.b and me@a.b", f"www{JOINER}.a.b and me@{JOINER}a.b"),
        ("|a|\n|:-|", "|a|\n|:-|"),
        ("www&#46;a.b, R&D", "www&amp;#46;a.b, R&amp;D"),
        ("`a && b &#46; [c](d)`", f"`a && b &{JOINER}#46; [c]{JOINER}(d)`"),
        ("run `echo $HOME` now", "run `echo $HOME` now"),
        ("open `code and $x$", r"open `code and \$x\$"),
        ("```\na[0](1) $x$ <b>\n```\n$y$", "```\na[0](1) $x$ <b>\n```\n" + r"\$y\$"),
        ("```py\nx = '$1'", "```py\nx = '$1'"),
        ("- ```\n  ![a](b)\n", "- ```\n  !&#91;a](b)\n"),
        ("~~~\n```\n$\n~~~\n$", "~~~\n```\n$\n~~~\n\\$"),
    ],
)
def test_active_constructs_are_broken_and_the_rest_is_left(text: str, shown: str) -> None:
    assert safe_markdown(text) == shown


@given(PIECES)
def test_streaming_gives_what_the_whole_gives(pieces: list[str]) -> None:
    stream = SafeMarkdown()
    streamed = "".join(stream.feed(piece) for piece in pieces) + stream.close()
    assert streamed == safe_markdown("".join(pieces))


@given(PIECES)
def test_nothing_is_lost(pieces: list[str]) -> None:
    text = "".join(pieces)
    visible = safe_markdown(text).replace(JOINER, "").replace("&#91;", "[").replace("&amp;", "&")
    # What is added is a backslash before a dollar or a backslash, nothing else.
    assert visible.replace("\\\\", "\0").replace("\\$", "$").replace("\0", "\\") in (
        text,
        text.replace("\\\\", "\\"),
    ) or visible.replace("\\", "") == text.replace("\\", "")


def active(markdown: str) -> set[str]:
    """What a browser would follow, fetch or run."""
    from markdown_it import MarkdownIt

    parsed = MarkdownIt("commonmark").enable(["table"]).parse(markdown)
    kinds = {child.type for token in parsed for child in token.children or ()}
    kinds |= {token.type for token in parsed}
    return kinds & {"image", "link_open", "html_inline", "html_block"}


@given(PIECES)
def test_no_construct_survives_outside_code(pieces: list[str]) -> None:
    assert not active(safe_markdown("".join(pieces)))


@given(PIECES, PIECES)
def test_no_construct_survives_within_a_line(pieces: list[str], others: list[str]) -> None:
    text = safe_inline("".join(pieces))
    assert not active(f"A · **{text}** · {safe_inline(''.join(others))}") and not active(text)


@given(PIECES)
def test_no_construct_survives_in_bold(pieces: list[str]) -> None:
    assert not active(emphasised("".join(pieces)))


def test_within_a_line_nothing_is_fenced() -> None:
    hostile = "```![x](http://h/i.png) [y](http://h)"
    assert safe_markdown(hostile) == hostile, "at the start of a line it opens fenced code"
    assert active(f"From {safe_markdown(hostile)}") == {"image", "link_open"}
    assert not active(f"From {safe_inline(hostile)}")


def test_an_instruction_is_in_bold_unless_it_has_several_lines() -> None:
    assert emphasised(" Why [x]? ") == "**Why &#91;x]?**"
    assert emphasised("```py\nx = 1\n```\nExplain.") == "```py\nx = 1\n```\nExplain."


def test_long_text_without_newline_is_linear() -> None:
    stream = SafeMarkdown()
    shown = "".join(stream.feed("word ` $ ") for _ in range(5_000)) + stream.close()
    assert shown.count("word") == 5_000
