"""Random texts with code and prose in them, for checks of what is shown."""

from __future__ import annotations

import random

from tests.hostile import PAYLOADS

LITERAL = [
    *["http://a.example/b_c?d=1&e=2", "www.a.example", "me@a.example", "10:30", "fs::path"],
    *["->", "<-", "=>", ">=", "<=", "~=", "--", "---", "~5", "~~", "~/notes", "H~2~O", "..."],
    *[":red[x]", ":wave:", ":material/home:", ":streamlit:", ":-1:", "$x$", "$$", "\\(y\\)"],
    *["<b>", "</b>", "<!-- c -->", "List<int>", "&amp;", "&", "[a](b)", "![i](j)", "[r][r]"],
    *["2*3*4", "x**2", "2 * 3", "f(*args, **kwargs)", "*.py", "__init__.py", "a_b", "C:\\new\\x"],
    *["\\\\server", "\\d+\\.", "  ", "\t", "\u3000", "#tag", "(c)", "\xa0", "^", "|"],
]
"""Texts that are not Markdown and are shown as they are, within a line."""
_CODE = ["x[0]", "a & b", "$HOME", "<T>", "*p", "~~", ":material/home:", "me@a.b", "\\n", "\t"]
_FENCES = ["```", "~~~", "````", "```python", "~~~ sh"]
_INDENTS = ["", "   ", "- ", "1. ", "> ", "- - "]


def prose(choose: random.Random) -> str:
    """Return a paragraph of a few lines without Markdown in it."""
    lines = [
        " ".join(["word", *choose.choices(LITERAL, k=choose.randint(0, 6)), "word"])
        for _ in range(choose.randint(1, 4))
    ]
    return "\n".join(lines)


def code_block(choose: random.Random) -> str:
    """Return a code block, possibly in lists or quotations."""
    marker = choose.choice(_INDENTS)
    inner = marker if marker.strip() == ">" else " " * len(marker)
    fence = choose.choice(_FENCES)
    lines = [" ".join(choose.choices(_CODE, k=choose.randint(0, 5))) for _ in range(4)]
    run = fence[: len(fence) - len(fence.lstrip("`~"))]
    block = [marker + fence, *(inner + line for line in lines), inner + run]
    return "\n".join(block)


def text(choose: random.Random) -> str:
    """Return an answer: paragraphs, code blocks, code spans and hostile constructs."""
    kinds = (prose, code_block, lambda c: f"A `{c.choice(_CODE)}` and {c.choice(PAYLOADS)}.")
    return "\n\n".join(choose.choice(kinds)(choose) for _ in range(choose.randint(1, 6)))
