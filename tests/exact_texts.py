"""Texts that are to be shown, selected and copied as they were written."""

from __future__ import annotations

from markdown_it import MarkdownIt

CODE: dict[str, str] = {
    "at the top": "```python\nhead = rows[0]  # $1 & b@c\n```\n",
    "a fence in a fence": "````markdown\n```python\nrows[0]\n```\n````\n",
    "with a title": '```python title="x"\nrows[0] & more\n```\n\nThat is all.',
    "in a numbered list": (
        "1. Read the file:\n\n   ```python\n   head = rows[0]  # $1 & b@c\n"
        '   url = "http://files.example/?q=1&r=<2>"\n   ```\n\n2. Run it.\n'
    ),
    "tildes in a list": '1. Run it:\n\n   ~~~sh\n   echo "$HOME" && ls [a-z]*.py\n   ~~~\n',
    "in a bullet": "- Then:\n\n  ```js\n  const o = {k: v[i], s: `${n}`};\n  ```\n",
    "in a quotation": "> ```\n> quoted = rows[0] & more\n> ```\n",
    "indented": 'Type this:\n\n    ls [a-z]*\n    echo "$HOME" && cat a@b\n\nThat is all.',
    "behind three spaces": "Type this:\n\n   ```\n   rows[0] & more\n   ```\n\nThat is all.",
    "behind a tab": "Type this:\n\n\t```\n\trows[0]\n\t```\n\nThat is all.",
    "inline": "The expression `rows[0] & $b : c@d` is one.",
    "inline with a type": "It is a `Map<K,V>` of lists.",
    "in a table": "| a | b |\n|---|---|\n| `rows[0]` | `c & d` |\n",
}
"""Markdown with code in it."""


def code_in(markdown: str) -> list[str]:
    """The code in a text, block by block and span by span, by the CommonMark parser."""
    parser = MarkdownIt("commonmark").enable("table")
    return [
        each.content
        for token in parser.parse(markdown)
        for each in (token, *(token.children or ()))
        if each.type in ("fence", "code_block", "code_inline")
    ]


PROSE: dict[str, str] = {
    "an address": "See http://files.example/a_b_c?x=1&y=2 now.",
    "a time": "From 10:30 to 11:45, key:value, std::vector, ratio 1:2.",
    "an e-mail address": "Write to someone@mail.example today.",
    "a type": "It takes a List<int> and gives a Vec<u8>.",
    "a path": "It lies in C:\\Users\\new\\x.",
    "about": "It takes ~3~5 minutes, from ~5 to ~10, in ~/bin and ~/lib.",
    "a formula of chemistry": "Water is H~2~O.",
    "less than": "Where c <- d and y <= 4.",
    "arrows": "Where a -> b and e => f.",
    "comparisons": "When x >= 3 and z ~= 5.",
    "dashes": "This -- and that --- too.",
    "lines": "The pond is old\nA frog jumps in\nThen it is quiet",
    "a question about code": "Grep for __init__ but not for 2*3*4 in f(*args, **kwargs).",
}
"""Prose without Markdown in it: what is seen is what was written."""
