"""Escaping of model output. What a browser shows is tested in tests/browser."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ui.widgets.paragraphs import Unsent
from core.ui.widgets.safe_text import JOINER, SafeMarkdown, emphasised, safe_inline, safe_markdown
from tests.hostile import active, mix, pieces_of

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
        (":-1: and :- and :-:", f":-1{JOINER}: and :- and :-:"),
        (":red[x] at 10:30, so: yes", f":{JOINER}red&#91;x] at 10:{JOINER}30, so: yes"),
        ("www.a.b and me@a.b", f"www{JOINER}.a.b and me@{JOINER}a.b"),
        ("|a|\n|:-|", "|a|\n|:-|"),
        ("www&#46;a.b, R&D", "www&amp;#46;a.b, R&amp;D"),
        ("`a && b &#46; [c](d)`", f"`a && b &{JOINER}#46; [c]{JOINER}(d)`"),
        ("run `echo $HOME` now", f"run `echo $HOME`{JOINER} now"),
        ("open `code and $x$", r"open `code and \$x\$"),
        ("```\na[0](1) $x$ <b>\n```\n$y$", "```\na[0](1) $x$ <b>\n```\n" + r"\$y\$"),
        ("```py\nx = '$1'", "```py\nx = '$1'"),
        ("- ```\n  ![a](b)\n", "- ```\n  !&#91;a](b)\n"),
        ("~~~\n```\n$\n~~~\n$", "~~~\n```\n$\n~~~\n\\$"),
        # Line endings.
        ("```\r\n$\r\n```\r\n$", "```\n$\n```\n\\$"),
        ("~~~\r$\r~~~\r$\r", "~~~\n$\n~~~\n\\$\n"),
        ("~~~\u2028$\u2029~~~\x85$\v\f$", "~~~\n$\n~~~\n\\$\n\n\\$"),
        # Fences that the browser may see at the top level or in a list.
        (" ~~~\n$\n~~~\n$", "~~~\n$\n~~~\n\\$"),
        ("a\n ~~~\n$\n~~~\n$", "a\n ~~~\n\\$\n~~~\n\\$"),
        ("1. a\n   ~~~\n   $\n   ~~~\n\n~~~\n$", "1. a\n   ~~~\n   \\$\n   ~~~\n\n~~~\n$"),
        (
            "- a\n  ~~~\n\n~~~\n$\n~~~py\n$\n~~~\n$",
            "- a\n  ~~~\n\n~~~\n\\$\n~~~py\n$\n~~~\n\\$",
        ),
        ("~~~~\n~~~\n$\n    ~~~~\n$\n   ~~~~~ \n$", "~~~~\n~~~\n$\n    ~~~~\n$\n   ~~~~~ \n\\$"),
        # Characters at the beginning that the browser drops or changes.
        ("    ~~~\n$\n~~~\n$", "~~~\n$\n~~~\n\\$"),
        ("\ufeff~~~\n$", f"{JOINER}~~~\n\\$"),
        # Info strings that Streamlit does more with than highlighting.
        ("```Mermaid x\n$", f"```{JOINER}Mermaid x\n$"),
        ("- ~~~ math\n  x", f"- ~~~{JOINER} math\n  x"),
        ("~~~c++\nx", "~~~c++\nx"),
        # Code spans that are no code for the browser.
        ("`a\n# $x$\n`b`", "`a\n# \\$x\\$\n`b`"),
        ("|`$x$|`|", "|`\\$x\\$|`|"),
        ("`a | b` `$x$`", "`a | b` `\\$x\\$`"),
    ],
)
def test_active_constructs_are_escaped_and_the_rest_is_kept(text: str, shown: str) -> None:
    assert safe_markdown(text) == shown


@given(PIECES)
def test_streaming_equals_the_complete_text(pieces: list[str]) -> None:
    stream = SafeMarkdown()
    streamed = "".join(stream.feed(piece) for piece in pieces) + stream.close()
    assert streamed == safe_markdown("".join(pieces))


@given(PIECES)
def test_no_character_is_lost(pieces: list[str]) -> None:
    text = "".join(pieces).lstrip()
    visible = safe_markdown(text).replace(JOINER, "").replace("&#91;", "[").replace("&amp;", "&")
    # Only backslashes before a dollar sign or a backslash are added.
    assert visible.replace("\\\\", "\0").replace("\\$", "$").replace("\0", "\\") in (
        text,
        text.replace("\\\\", "\\"),
    ) or visible.replace("\\", "") == text.replace("\\", "")


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


def test_inline_text_has_no_code() -> None:
    assert safe_inline("```![x](y)\r\n~~~\n$") == "\\`\\`\\`!&#91;x](y) \\~\\~\\~ \\$"
    assert not active(f"{safe_inline('`')} and {safe_inline('`$x$`')}")


def test_only_single_line_instructions_are_bold() -> None:
    assert emphasised(" Why [x]? ") == "**Why &#91;x]?**"
    assert emphasised("```py\nx = 1\n```\nExplain.") == "```py\nx = 1\n```\nExplain."
    assert emphasised("one\rtwo") == "one\ntwo"


def test_long_text_without_newline_is_linear() -> None:
    stream = SafeMarkdown()
    shown = "".join(stream.feed("word ` $ ") for _ in range(5_000)) + stream.close()
    assert shown.count("word") == 5_000


def elements(pieces: list[str]) -> list[str]:
    """Return the final texts of the elements of a streamed answer."""
    stream, unsent, found = SafeMarkdown(), Unsent(), [""]

    def draw() -> None:
        for piece in unsent.take():
            if piece is None:
                found.append("")
            else:
                found[-1] += piece

    for piece in pieces:
        unsent.feed(stream.feed(piece))
        draw()
    unsent.feed(stream.close())
    unsent.close()
    draw()
    return found


def test_nothing_in_10_000_mixes_is_active() -> None:
    for seed in range(10_000):
        choose = random.Random(seed)
        text, other = mix(choose), mix(choose)
        pieces = pieces_of(text, choose)
        whole = safe_markdown(text)
        stream = SafeMarkdown()
        assert "".join(map(stream.feed, pieces)) + stream.close() == whole, (seed, text)
        line = f"A · **{safe_inline(text)}** · {safe_inline(other)}"
        for shown in {whole, line, emphasised(text), *elements(pieces)}:
            assert not active(shown), (seed, text, shown)


def test_oracle_detects_active_constructs() -> None:
    choose = random.Random(0)
    assert sum(bool(active(mix(choose))) for _ in range(300)) > 200
    for text in ("[a](b)", "![a](b)", "$x$", ":red[x]", ":-1:", "<b>", "```mermaid\nx", "[r]: x"):
        assert active(text), text
        assert not active(f"```\n{text.replace('`', '')}"), text
