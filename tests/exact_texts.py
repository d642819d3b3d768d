"""Texts that are to be shown, selected and copied as they were written."""

from __future__ import annotations

from markdown_it import MarkdownIt

CODE: dict[str, str] = {
    "at the top": "```python\nhead = rows[0]  # $2 & d@e\n```\n",
    "a fence in a fence": "````markdown\n```python\nrows[0]\n```\n````\n",
    "with a title": '```python title="x"\nrows[0] & more\n```\n\nThat is all.',
    "in a numbered list": (
        "1. Read the file:\n\n   ```python\n   head = rows[0]  # $2 & d@e\n"
        '   url = "http://files.example/?part=1&to=<9>"\n   ```\n\n2. Run it.\n'
    ),
    "tildes in a list": '1. Run it:\n\n   ~~~sh\n   cd "$TMP" && rm [0-9]*.txt\n   ~~~\n',
    "in a bullet": "- Then:\n\n  ```js\n  send({to: list[n], as: `${name}`});\n  ```\n",
    "in a quotation": "> ```\n> quoted = rows[0] & more\n> ```\n",
    "indented": 'Type this:\n\n    cp [0-9]* /tmp\n    test -d "$TMP" && mail me@home\n\nDone.',
    "behind three spaces": "Type this:\n\n   ```\n   rows[0] & more\n   ```\n\nThat is all.",
    "behind a tab": "Type this:\n\n\t```\n\trows[0]\n\t```\n\nThat is all.",
    "inline": "The expression `rows[0] & $n : d@e` is one.",
    "inline with a type": "It is a `Pair<A,B>` of lists.",
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
    "a time": "Open 9:15 to 12:45, name:text, fs::path, mixed 3:4.",
    "an e-mail address": "Write to someone@mail.example today.",
    "a type": "It takes a Set<str> and gives a Box<f32>.",
    "a path": "It lies in C:\\Users\\new\\x.",
    "about": "Bake it ~20~25 minutes at ~180, then see ~/notes and ~/old.",
    "a formula of chemistry": "Soda is Na~2~CO~3~.",
    "less than": "Where c <- d and y <= 4.",
    "arrows": "Where a -> b and e => f.",
    "comparisons": "When x >= 3 and z ~= 5.",
    "dashes": "This -- and that --- too.",
    "lines": "The pond is old\nA frog jumps in\nThen it is quiet",
    "a question about code": "Grep for __init__ but not for 2*3*4 in f(*args, **kwargs).",
}
"""Prose without Markdown in it: what is seen is what was written."""
