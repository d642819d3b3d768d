"""Splitting a growing text into blocks that need not be sent again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from core.ui.widgets.paragraphs import LONG_LIST, Paragraphs, Unsent


def blocks_of(*pieces: str) -> list[str]:
    """Return the blocks of a text that arrives in these pieces."""
    paragraphs, blocks = Paragraphs(), [""]
    for text in pieces:
        for piece in paragraphs.feed(text):
            if piece is None:
                blocks.append("")
            else:
                blocks[-1] += piece
    for piece in paragraphs.close():
        if piece is None:
            blocks.append("")
        else:
            blocks[-1] += piece
    return blocks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo", ["one\ntwo"]),
        ("one\n\ntwo", ["one\n", "two"]),
        ("one\n\n\n \ntwo\n\nthree", ["one\n", "two\n", "three"]),
        ("\n\none", ["one"]),
        ("- one\n\n  more of it\n- two", ["- one\n\n  more of it\n- two"]),
        ("- one\n\nafter it", ["- one\n", "after it"]),
        ("```\na\n\nb\n```\n\nafter", ["```\na\n\nb\n```\n", "after"]),
        ("~~~~\na\n~~~\n\nb\n~~~~\n\nafter", ["~~~~\na\n~~~\n\nb\n~~~~\n", "after"]),
        ("```\nnever closed\n\nmore", ["```\nnever closed\n\nmore"]),
        ("# Title\ntext\n\n| a |\n|---|\n| b |", ["# Title\ntext\n", "| a |\n|---|\n| b |"]),
        ("1. short\n2. list", ["1. short\n2. list"]),
        ("", [""]),
    ],
)
def test_blocks(text: str, expected: list[str]):
    assert blocks_of(text) == expected
    assert blocks_of(*text) == expected, "the same, one character at a time"


def test_long_list_is_split_between_items():
    items = [f"{number}. {'word ' * 40}\n" for number in range(1, 13)]
    blocks = blocks_of(*"".join(items))
    assert "".join(blocks) == "".join(items)
    assert len(blocks) > 2
    assert all(block[0].isdigit() and len(block) < LONG_LIST + 500 for block in blocks)
    paragraph = "many words\n" * 400
    assert blocks_of(paragraph) == [paragraph]


@given(
    st.lists(
        st.sampled_from(
            ["a b", "\n", "\n\n", "- x", "2. y", "```", "~~~", "  z", "# t", "> q", " "]
        ),
        max_size=30,
    ),
    st.integers(1, 7),
)
def test_only_blank_lines_are_dropped(parts: list[str], size: int):
    text = "".join(parts)
    blocks = blocks_of(text)
    assert "".join("".join(blocks).split()) == "".join(text.split())
    assert blocks_of(*(text[at : at + size] for at in range(0, len(text), size))) == blocks


@given(
    st.lists(st.sampled_from(["alpha", "*b*", "# c", "- d\n- e", "```\nx\n\ny\n```"]), max_size=8)
)
def test_blocks_render_as_the_complete_text(parts: list[str]):
    """Except consecutive lists, which a blank line joins to one loose list."""
    text = "\n\n".join(parts).replace("- e\n\n- d", "- e\n\nbetween\n\n- d")
    render = MarkdownIt().render
    assert "".join(render(block) for block in blocks_of(text)) == render(text)


def drawn(parts: list[str], every: int) -> list[str]:
    """Return the final blocks if the text is drawn after each ``every``-th piece."""
    unsent, blocks = Unsent(), [""]

    def draw():
        for piece in unsent.take():
            if piece is None:
                blocks.append("")
            else:
                blocks[-1] += piece
        assert len(unsent) == 0

    for number, part in enumerate(parts, start=1):
        unsent.feed(part)
        if number % every == 0:
            draw()
    unsent.close()
    draw()
    return blocks


def test_blocks_finished_between_updates_are_joined():
    text = "\n\n".join(f"paragraph {number}" for number in range(40))
    unsent = Unsent()
    unsent.feed(text)
    finished, end, rest = unsent.take()
    assert finished.count("\n\n") == 39 and end is None and rest == "paragraph 39"
    assert list(unsent.take()) == []
    unsent.feed(" goes on\n\nand another")
    assert list(unsent.take()) == [" goes on\n\n", None, "and another"]
    assert unsent.open_length == len("and another")


def test_partly_drawn_block_ends_before_the_next():
    assert drawn(["one, ", "begun\n", "\n", "two"], every=1) == ["one, begun\n\n", "two"]


@given(
    st.lists(st.sampled_from(["alpha", "*b*", "# c", "- d\n- e", "```\nx\n\ny\n```"]), max_size=8),
    st.integers(1, 5),
    st.integers(1, 9),
)
def test_text_renders_the_same_for_any_updates(parts: list[str], size: int, every: int):
    """Except consecutive lists, as above."""
    text = "\n\n".join(parts).replace("- e\n\n- d", "- e\n\nbetween\n\n- d")
    blocks = drawn([text[at : at + size] for at in range(0, len(text), size)], every)
    render = MarkdownIt().render
    assert "".join(render(block) for block in blocks) == render(text)
