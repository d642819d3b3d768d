"""HTML of answers and instructions. What a browser makes of it is tested in tests/browser."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ui.widgets.answer_text import (
    CURSOR,
    StreamedAnswer,
    answer_html,
    has_formulas,
    plain_html,
)
from tests.exact_texts import CODE, PROSE, code_in
from tests.hostile import mix, pieces_of
from tests.random_texts import LITERAL

TAGS = {
    *("div", "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "em", "strong"),
    *("ul", "ol", "li", "blockquote", "pre", "code"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = re.compile(
    r'dir="auto"|start="\d+"|class="language-(?!math|mermaid)[\w+#.-]+"'
    r'|style="(?:white-space:pre-wrap;)?text-align:(?:start|left|center|right)"'
)
TEXT_THAT_STREAMLIT_CHANGES = re.compile(r"[$\n]|:(?!pre-wrap;|start\"|left\"|center\"|right\")")


class Seen(HTMLParser):
    """What a browser shows of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.code: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self._within: list[str] = []
        self.feed(html)
        self.close()
        assert not self._within, "each tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)
        self.attributes += [f'{name}="{value}"' for name, value in attrs]
        if tag == "br":
            self.text += "\n"
        elif tag != "hr":
            self._within.append(tag)
        if tag == "code":
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        """Note the end of an element."""
        assert self._within.pop() == tag
        if tag == "code" and "pre" in self._within and self.code[-1].startswith("\n"):
            self.code[-1] = self.code[-1][1:]  # as Streamlit does

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data
        if "code" in self._within:
            self.code[-1] += data


def assert_safe(html: str) -> Seen:
    """Check that a browser finds only known tags and attributes, and Streamlit nothing."""
    seen = Seen(html)
    assert set(seen.tags) <= TAGS
    assert all(map(ATTRIBUTES.fullmatch, seen.attributes)), seen.attributes
    assert not TEXT_THAT_STREAMLIT_CHANGES.search(html)
    return seen


class Place:
    """A container that records what is drawn in it."""

    def __init__(self) -> None:
        self.slots: list[str] = []

    def empty(self) -> Slot:
        """Return a place for one element."""
        self.slots.append("")
        return Slot(self.slots, len(self.slots) - 1)


class Slot:
    """An element of a container."""

    def __init__(self, slots: list[str], at: int) -> None:
        self._slots, self._at = slots, at

    def markdown(self, body: str, **_: object) -> None:
        """Draw the element."""
        self._slots[self._at] = body


def streamed(pieces: list[str]) -> list[str]:
    """Return the elements of a text that was drawn after each piece; check each state."""
    place = Place()
    answer = StreamedAnswer(place)  # type: ignore[arg-type]
    for piece in pieces:
        answer.feed(piece)
        answer.draw()
        for element in place.slots:
            assert_safe(element.replace(CURSOR, ""))
    answer.finish()
    return place.slots


# Code


@pytest.mark.parametrize("name", CODE)
def test_code_is_not_changed(name: str) -> None:
    assert assert_safe(answer_html(CODE[name])).code == code_in(CODE[name])


@pytest.mark.parametrize("name", CODE)
def test_code_is_not_changed_while_it_streams(name: str) -> None:
    assert Seen("".join(streamed(list(CODE[name])))).code == code_in(CODE[name])


def test_streamlit_icons_and_leading_blank_lines_in_code_are_kept() -> None:
    code = "\n\n:material/home: :wave:\n"
    assert ":" not in answer_html(f"```\n{code}```").replace("white-space:", "").replace(
        "text-align:", ""
    )
    assert Seen(answer_html(f"```\n{code}```")).code == [code]


@pytest.mark.parametrize("language", ["math", "Mermaid", "mermaid x"])
def test_languages_that_streamlit_draws_are_not_passed_on(language: str) -> None:
    assert "class" not in answer_html(f"```{language}\nx\n```")


def test_hostile_texts_are_safe_and_their_code_is_exact() -> None:
    for seed in range(500):
        text = mix(random.Random(seed))
        assert assert_safe(answer_html(text)).code == code_in(text), (seed, text)


def test_hostile_texts_are_safe_and_their_code_is_exact_while_they_stream() -> None:
    for seed in range(100):
        choose = random.Random(seed)
        text = mix(choose)
        elements = streamed(pieces_of(text, choose))
        assert Seen("".join(elements)).code == code_in(text), (seed, text)


# Prose


@given(st.lists(st.lists(st.sampled_from(LITERAL), max_size=8), min_size=1, max_size=4))
def test_text_without_marks_is_shown_character_for_character(lines: list[list[str]]) -> None:
    text = "\n".join(" ".join(["word", *line, "word"]) for line in lines)
    assert assert_safe(answer_html(text)).text == text


@pytest.mark.parametrize("name", PROSE)
def test_prose_is_not_changed(name: str) -> None:
    assert assert_safe(answer_html(PROSE[name])).text == PROSE[name]


@given(st.text())
def test_plain_text_is_not_changed(text: str) -> None:
    shown = assert_safe(plain_html(text)).text
    assert shown == text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("这是**重要**的", "strong"),
        ("请记住**「明天」**这个词", "strong"),
        ("**注意：**请看", "strong"),
        ("한국어**강조**입니다", "strong"),
        ("**N**ational", "strong"),
        ("__very bold__ and", "strong"),
        ("_so_", "em"),
        ("*so*", "em"),
        ("***both***", "em strong"),
        ("`a*b*`", "code"),
        ("\\*no\\* \\_no\\_", ""),
        ("2*3*4 a*b*c", ""),
        ("文件*.py和*.js", ""),
        ("**重要**。", "strong"),
        ("x**2 + y**2 = z**2", ""),
        ("2**n + 2**m", ""),
        ("__init__ __name__", ""),
        ("*.py and **/*.txt, f(*args, **kwargs)", ""),
        ("snake_case_name", ""),
        ("~~kept~~", ""),
        ("&lt;b&gt;", ""),
    ],
)
def test_emphasis(text: str, tags: str) -> None:
    assert " ".join(Seen(answer_html(text)).tags) == f"div p {tags}".strip()


def test_formatting_stays() -> None:
    text = "# Title\n\n- **bold**\n- b\n\n5. five\n\n> q\n\n|a|b|\n|-|-:|\n|1|2|\n\n---\n"
    assert answer_html(text) == (
        '<div style="white-space:pre-wrap;text-align:start"><h1 dir="auto">Title</h1>'
        '<ul dir="auto"><li><strong>bold</strong></li><li>b</li></ul>'
        '<ol dir="auto" start="5"><li>five</li></ol>'
        '<blockquote dir="auto"><p>q</p></blockquote>'
        '<table dir="auto"><thead><tr><th>a</th>'
        '<th style="text-align:right">b</th></tr></thead><tbody><tr>'
        '<td>1</td><td style="text-align:right">2</td></tr></tbody></table>'
        "<hr></div>"
    )


def test_cells_beyond_the_head_of_a_table_are_not_lost() -> None:
    rows = "| `ls | wc` | `2|3` |\n| 1 | 2 | 3 |\n|| a \\| b |\n"
    html = answer_html("| a | b |\n|---|---|\n" + rows)
    cells = re.findall(r"<td>(.*?)</td>", html)
    code = ["<code>ls | wc</code>", "<code>2|3</code>"]
    assert cells == [*code, "1", "2 | 3", "", "a | b"]


@pytest.mark.parametrize("deep", [">" * 120 + " deep", "- " * 55 + "deep\nsecond"])
def test_text_nested_too_deeply_is_not_lost(deep: str) -> None:
    shown = assert_safe(answer_html(f"{deep}\n\nafter")).text
    assert "deep" in shown and "after" in shown and ("second" in shown) == ("second" in deep)


@pytest.mark.parametrize(
    "text", ["\u3000\u3000床前明月光，\n\u3000\u3000疑是地上霜。", "  indented\n  again", "\xa0 x"]
)
def test_white_space_that_begins_a_paragraph_stays(text: str) -> None:
    assert Seen(answer_html(text)).text == text


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3. c\n2. b\n1. a", "3 2 1"),
        ("1. a\n3. c", "1 3"),
        ("1. a\n1. b", ""),
        ("5. e\n6. f", ""),
        ("2. b\n   1. x\n   9. y\n3. c", "1 9"),
    ],
)
def test_items_have_the_numbers_that_were_written(text: str, numbers: str) -> None:
    assert " ".join(re.findall(r' value="(\d+)"', answer_html(text))) == numbers


def test_search_for_formulas_takes_no_time_without_their_ends() -> None:
    assert not has_formulas("\\(a " * 8000)
    assert has_formulas("\\(a\\)") and has_formulas("\\[a\\]") and has_formulas("$a$")


def test_item_in_another_direction_than_its_list_has_its_own() -> None:
    assert answer_html("- שלום\n- Hello\n\n> שלום\n>\n> Hello")[51:-6] == (
        '<ul dir="auto"><li>שלום</li><li dir="ltr">Hello</li></ul>'
        '<blockquote dir="auto"><p>שלום</p><p dir="ltr">Hello</p></blockquote>'
    )


# Growing answers


def test_finished_blocks_are_not_drawn_again() -> None:
    answer = StreamedAnswer(Place())  # type: ignore[arg-type]
    answer.feed("# Title\n\none\ntwo\n\n- three\n")
    finished, rest = answer.take()
    assert Seen(finished).text == "Titleone\ntwo" and Seen(rest).text == f"three{CURSOR}"
    answer.feed("- four\n\nfi")
    finished, rest = answer.take()
    assert Seen(finished).text == "threefour" and Seen(rest).text == f"fi{CURSOR}"
    answer.feed("ve\n# Si")
    finished, rest = answer.take()
    assert finished == "", "the first line of the next block is not complete"
    answer.feed("x\n")
    finished, rest = answer.take()
    assert Seen(finished).text == "five" and Seen(rest).text == f"Six{CURSOR}"


@pytest.mark.parametrize(
    ("begun", "tags"),
    [
        ("Some **bold te", "p strong"),
        ("Some `co", "p code"),
        ("Some *em ", "p em"),
        ("**done** and **mo", "p strong strong"),
        ("text\n-", "p"),
        ("text\n\n1", "p"),
        ("```py\nx = '**'", "pre code"),
    ],
)
def test_marks_that_are_not_closed_yet_do_not_flicker(begun: str, tags: str) -> None:
    answer = StreamedAnswer(Place())  # type: ignore[arg-type]
    answer.feed(begun)
    finished, rest = answer.take()
    assert Seen(finished + rest).tags == ["div", *tags.split()]


def test_long_lines_do_not_take_long() -> None:
    for text in ("word ` $ " * 2_000, "**a " * 2_000, "__a" * 2_000, "[a" * 2_000, "<a " * 2_000):
        assert_safe(answer_html(text))


# Formulas


@pytest.mark.parametrize(
    ("text", "typeset"),
    [
        ("Take $\\pi r^2$ of it", True),
        ("Take \\(a^2\\) of it", True),
        ("$$\n\\int_0^1 x\n$$", True),
        ("It is \\[x = \\begin{aligned} a &= b \\end{aligned}\\] then", True),
        ("\\[\nx\n- y\n\\]", True),
        ("$$a$$ is the square of $$b$$", True),
        ("It costs $5 or $10.", False),
        ("In $HOME/$USER or a$b$c", False),
        ("`$x$` and ```$y$```", False),
        ("$\\newcommand{\\a}{\\b}$", False),
        ("$\\frac$", False),
        ("$" + "x" * 3000 + "$", False),
    ],
)
def test_formulas(text: str, typeset: bool) -> None:
    as_written, html = answer_html(text), answer_html(text, formulas=True)
    assert "<math" not in as_written
    assert ("<math" in html) is typeset
    assert typeset <= has_formulas(text)
    assert typeset or assert_safe(html).text.strip() == assert_safe(as_written).text.strip()


@pytest.mark.parametrize(
    "formula",
    [
        "\\href{javascript:alert(1)}{x}",
        "\\class{evil}{x}",
        "\\style{position:fixed}{x}",
        "\\text{<script>alert(1)</script>}",
        "\\hspace{9999em}",
        "\\color{red;position:fixed}{x}",
        "&lt;script&gt;",
    ],
)
def test_formulas_are_safe(formula: str) -> None:
    html = answer_html(f"$${formula}$$", formulas=True)
    seen = Seen(html)
    assert all(tag in TAGS or re.fullmatch(r"m[a-z]+", tag) for tag in seen.tags)
    assert not re.search(r"href|class=|fixed|9999|javascript|[\n$]", " ".join(seen.attributes))
