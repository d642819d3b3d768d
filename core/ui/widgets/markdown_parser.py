"""The Markdown of model output: CommonMark with tables, and what of it is taken as written.

What is code is decided by markdown-it-py's CommonMark rules, unchanged. Of the rest, only what
formats text is kept. Links, images, character references and raw HTML are text, and so are marks
that are far more often meant literally: ``2*3*4``, ``x**2``, ``__init__`` and most backslashes.
Emphasis also works beside East Asian characters, which stand without spaces.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable

from markdown_it import MarkdownIt
from markdown_it.parser_block import ParserBlock
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_block import StateBlock, paragraph, reference, table
from markdown_it.rules_block.table import escapedSplit
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, emphasis
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin
from mdit_py_plugins.texmath.index import make_inline_func

_NESTING = 100
"""Deepest nesting of quotations and lists; what is deeper is a paragraph."""
_TAKEN_AS_WRITTEN = ("link", "image", "autolink", "entity")
_ESCAPABLE = frozenset("*_`|#")
"""Characters of which a backslash in front is a mark. Before others, such as in ``C:\\_`` or
``\\(x\\)``, it is text."""
_BRACKETS = {
    "name": "math_inline_double",
    "rex": re.compile(r"\\\[(.+?)\\\]", re.DOTALL),
    "tag": "\\[",
    "tmpl": "",
}
"""``\\[…\\]`` within a line; the plugin knows it as a block only."""
_DIRECTED = ("p", "li", "th", "td")
_DIRECTIONS = {"L": "ltr", "R": "rtl", "AL": "rtl"}
"""By Unicode's bidirectional class of a letter."""
_DUNDER = re.compile(r"__[^\W_](?:\w{0,60}[^\W_])?__(?!\w)")


def parser(*, formulas: bool = False) -> MarkdownIt:
    """Return the parser.

    Args:
        formulas: whether ``$…$``, ``$$…$$``, ``\\(…\\)`` and ``\\[…\\]`` are formulas
            (tokens ``math_inline``, ``math_inline_double`` and ``math_block``).
    """
    made = MarkdownIt("commonmark", {"maxNesting": _NESTING}).enable("table")
    made.disable(_TAKEN_AS_WRITTEN)
    made.block.ruler.at("reference", _reference)
    made.inline.ruler.at("emphasis", _emphasis)
    made.inline.ruler.at("newline", _newline)
    made.inline.ruler.at("escape", _escape)
    made.inline.ruler.before("emphasis", "dunder", _dunder)
    made.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    made.block.ruler.at("paragraph", _paragraph)
    for name, ended in (("blockquote", ["blockquote", "list"]), ("list", ["blockquote"])):
        limited = _limited(_rule(made.block, name))
        made.block.ruler.at(name, limited, {"alt": ["paragraph", "reference", *ended]})
    made.core.ruler.after("block", "numbers", _number_items)
    made.core.ruler.after("block", "directions", _direct)
    if formulas:
        dollarmath_plugin(
            made, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True
        )
        made.inline.ruler.at("math_inline", _apart_from_words(_rule(made.inline, "math_inline")))
        made.block.ruler.at("math_block", _one_formula(_rule(made.block, "math_block")))
        texmath_plugin(made, delimiters="brackets")
        made.inline.ruler.before("escape", "math_inline_bracket", make_inline_func(_BRACKETS))
    return made


def _rule(rules: ParserBlock | ParserInline, name: str) -> Callable[..., bool]:
    return next(rule.fn for rule in rules.ruler.__rules__ if rule.name == name)


def _limited(rule: Callable[..., bool]) -> Callable[..., bool]:
    """Begin no quotation or list so deep that markdown-it-py would drop its text."""

    def checked(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
        return state.level < _NESTING - 2 and rule(state, start_line, end_line, silent)

    return checked


def _paragraph(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """Parse a paragraph, and keep the white space at its ends."""
    found = paragraph(state, start_line, end_line, silent)
    lines = state.getLines(start_line, state.line, state.blkIndent, False)
    state.tokens[-2].content = lines.strip("\n")
    return found


def _number_items(state: StateCore) -> None:
    """Give the items of a list their numbers as written, unless all have the same number."""
    lists: list[list[Token]] = []
    for token in state.tokens:
        if token.type == "ordered_list_open":
            lists.append([])
        elif token.type == "list_item_open" and token.info:
            lists[-1].append(token)
        elif token.type == "ordered_list_close":
            items = lists.pop()
            numbers = [int(item.info) for item in items]
            counted = range(numbers[0], numbers[0] + len(numbers))
            if len(set(numbers)) > 1 and numbers != [*counted]:
                for item, number in zip(items, numbers, strict=True):
                    item.attrSet("value", number)


def _direct(state: StateCore) -> None:
    """Set the direction of items, paragraphs and cells that differ from the block around them.

    The outermost block has ``dir="auto"``, which looks at the first letter, except of blocks within
    that have a direction of their own.
    """
    opened: list[tuple[Token, str | None]] = []
    first: dict[int, str] = {}
    for token in state.tokens:
        if token.nesting > 0:
            opened.append((token, None))
        elif token.nesting < 0:
            opened.pop()
        elif token.type == "inline" and (direction := _direction(token.content)):
            for block, _ in opened:
                first.setdefault(id(block), direction)
    for token in state.tokens:
        if token.nesting < 0:
            opened.pop()
        elif token.nesting > 0:
            around = opened[-1][1] if opened else first.get(id(token))
            own = first.get(id(token), around)
            if own != around and token.tag in _DIRECTED and not token.hidden:
                token.attrSet("dir", own)
                around = own
            opened.append((token, around))


def _direction(text: str) -> str | None:
    """Return the direction of the first letter, or None if there is none."""
    kinds = map(unicodedata.bidirectional, text)
    return next((_DIRECTIONS[kind] for kind in kinds if kind in _DIRECTIONS), None)


def _apart_from_words(rule: Callable[..., bool]) -> Callable[..., bool]:
    """Take dollar signs beside a letter as text, such as in ``$HOME/$USER``."""

    def checked(state: StateInline, silent: bool) -> bool:
        start, tokens, pending = state.pos, len(state.tokens), state.pending
        if not rule(state, silent):
            return False
        around = state.src[max(start - 1, 0) : start] + state.src[state.pos : state.pos + 1]
        if not re.search("[A-Za-z0-9]", around):
            return True
        state.pos, state.pending = start, pending
        del state.tokens[tokens:]
        return False

    return checked


def _one_formula(rule: Callable[..., bool]) -> Callable[..., bool]:
    """Take a line with several formulas, ``$$a$$ and $$b$$``, as a paragraph."""

    def checked(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
        line = state.src[state.bMarks[start_line] : state.eMarks[start_line]]
        return line.count("$$") <= 2 and rule(state, start_line, end_line, silent)

    return checked


def _table(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """Parse a table, and lose no cell of a row with more cells than the head.

    GitHub's rule drops the last ones. Here cells that a code span spreads over are joined, and what
    is still too much joins the last one.
    """
    first = len(state.tokens)
    if not table(state, start_line, end_line, silent):
        return False
    cells: list[Token] = []
    for token in state.tokens[first:]:
        if token.type == "tr_open":
            cells = []
        elif token.type == "inline":
            cells.append(token)
        elif token.type == "tr_close" and cells and cells[0].map:
            line = cells[0].map[0]
            source = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
            for cell, content in zip(cells, _cells(source, len(cells)), strict=False):
                cell.content = content
    return True


def _cells(row: str, count: int) -> list[str]:
    found = escapedSplit(row.strip())
    found = found[not found[0] : len(found) - (not found[-1])]
    joined: list[str] = []
    for cell in found:
        if len(found) > count and joined and joined[-1].count("`") % 2:
            joined[-1] += f"|{cell}"
        else:
            joined.append(cell)
    return [each.strip() for each in (*joined[: count - 1], "|".join(joined[count - 1 :]))]


def _reference(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """Take the target of links, which CommonMark does not show, as text."""
    if silent or not reference(state, start_line, end_line, False):
        return False
    token = state.push("definition", "p", 0)
    token.content = state.getLines(start_line, state.line, state.blkIndent, False)
    token.map = [start_line, state.line]
    return True


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Process a run of ``*`` or ``_``.

    CommonMark's rule for flanking delimiters, with two changes: East Asian characters beside a run
    of asterisks count as a boundary, as in https://github.com/tats-u/markdown-cjk-friendly, and
    asterisks in the place of an operator, or of a file name's wildcard, begin nothing.
    """
    start = state.pos
    if not emphasis.tokenize(state, silent):
        return False
    before = state.src[start - 1] if start else " "
    after = state.src[state.pos] if state.pos < state.posMax else " "
    if state.src[start] == "_":
        return True
    run = state.delimiters[start - state.pos :]
    operator = (before.isalnum() or before in ")]}") and (after.isalnum() or after in "([{")
    for each in run:
        if _is_wide(before) or _is_wide(after):
            each.open, each.close = not after.isspace(), not before.isspace()
        elif operator:
            each.open, each.close = False, each.close and len(run) > 1 and not after.isdigit()
        if after in "./":
            each.open = False
    return True


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _newline(state: StateInline, silent: bool) -> bool:
    """End a line; unlike CommonMark, keep the spaces around the line ending."""
    if state.src[state.pos] != "\n":
        return False
    if not silent:
        state.push("softbreak", "br", 0)
    state.pos += 1
    return True


def _escape(state: StateInline, silent: bool) -> bool:
    """Take a character behind a backslash as text, and the backslash too unless it is a mark."""
    escaped = state.src[state.pos : state.pos + 2]
    if escaped[0] != "\\" or escaped[1:] not in string.punctuation or len(escaped) < 2:
        return False
    if not silent:
        token = state.push("text_special", "", 0)
        token.content = escaped[1] if escaped[1] in _ESCAPABLE else escaped
        token.markup, token.info = escaped, "escape"
    state.pos += 2
    return True


def _dunder(state: StateInline, silent: bool) -> bool:
    """Take a name such as ``__init__`` as text."""
    found = _DUNDER.match(state.src, state.pos)
    before = state.src[state.pos - 1 : state.pos]
    if found is None or before.isalnum() or before == "_":
        return False
    if not silent:
        state.pending += found[0]
    state.pos = found.end()
    return True
