"""Texts are shown, selected and copied as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest

from core.compare.export import to_html
from tests.browser.conftest import serving
from tests.browser.screen import eventually
from tests.compare.answers import answer, report
from tests.exact_texts import CODE, PROSE, code_in
from tests.waiting import PATIENCE_S

OTHERS = {
    "bold": "请记住**「明天」**这个词。",
    "two directions": "מזג האוויר נאה היום.\n\nالطقس جميل اليوم.\n\nThis goes the other way.",
    "code in Hebrew": "- הרץ את `ls -l [x];` עכשיו:\n\n  ```\n  x[0] = f(1);\n  ```\n- Then this",
    "countdown": "3. Three\n2. Two\n1. One",
    "mathematics": "Take $\\sqrt{2}$ of it, then $$\\sum_{n=1}^9 n^3$$ in all.",
}
TEXTS = CODE | PROSE | OTHERS
LOOK = """entry => {
  const [question, answer] = entry.querySelectorAll('[data-testid="stChatMessageContent"]');
  const selected = part => {
    const range = document.createRange(), selection = getSelection();
    range.selectNodeContents(part);
    selection.removeAllRanges();
    selection.addRange(range);
    const text = selection.toString();
    selection.removeAllRanges();
    return text;
  };
  const texts = selector => [...answer.querySelectorAll(selector)].map(each => each.textContent);
  return {
    question: question.innerText,
    answer: answer.innerText,
    selected: selected(answer),
    code: texts('code'),
    struck: texts('del'),
    bold: texts('strong'),
    typeset: texts('.katex, math'),
    directions: [...answer.querySelectorAll('p')].map(each => getComputedStyle(each).direction),
    code_directions: [...answer.querySelectorAll('code')].map(
      each => getComputedStyle(each).direction),
    item_directions: [...answer.querySelectorAll('li')].map(
      each => getComputedStyle(each).direction),
    numbers: [...answer.querySelectorAll('li')].map(each => each.value),
  };
}"""


@dataclass(frozen=True)
class Shown:
    """One instruction and its answer in the browser."""

    question: str
    answer: str
    selected: str
    """Text of a selection of the whole answer."""
    code: list[str]
    struck: list[str]
    bold: list[str]
    typeset: list[str]
    directions: list[str]
    """Text directions of the answer's paragraphs."""
    code_directions: list[str]
    item_directions: list[str]
    numbers: list[int]
    """Numbers of the items of its lists."""


@pytest.fixture(scope="module")
def shown(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Shown]]:
    """Draw all texts on one page."""
    query = urlencode([("text", text) for text in TEXTS.values()])
    app, home = "tests/browser/app_with_exact_texts.py", tmp_path_factory.mktemp("texts")
    with serving(app, home) as url:
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.goto(f"{url}/?{query}")
        page.get_by_text("Drawing finished.").wait_for()
        # Streamlit loads what draws HTML and code when it is first needed.
        blocks = sum(len(code_in(text)) for text in TEXTS.values())
        eventually(lambda: page.locator("code").count() == blocks, "all code is drawn")
        entries = [page.locator(f".st-key-entry_text_{n}") for n in range(len(TEXTS))]
        yield {
            name: Shown(**entry.evaluate(LOOK)) for name, entry in zip(TEXTS, entries, strict=True)
        }
        page.close()


# Code


@pytest.mark.parametrize("name", CODE)
def test_code_is_shown_unchanged(name: str, shown: dict[str, Shown]) -> None:
    wanted = [code.rstrip("\n") for code in code_in(CODE[name])]
    assert [code.rstrip("\n") for code in shown[name].code] == wanted


# Prose

WITHOUT_MARKDOWN = {name: text for name, text in PROSE.items() if name != "a question about code"}


@pytest.mark.parametrize("name", WITHOUT_MARKDOWN)
def test_prose_is_shown_and_copied_unchanged(name: str, shown: dict[str, Shown]) -> None:
    assert shown[name].struck == []
    assert PROSE[name] in shown[name].answer
    assert PROSE[name] in shown[name].selected


@pytest.mark.parametrize("name", PROSE)
def test_question_is_shown_unchanged(name: str, shown: dict[str, Shown]) -> None:
    assert PROSE[name] in shown[name].question


def test_emphasis_works_without_spaces(shown: dict[str, Shown]) -> None:
    assert "「明天」" in shown["bold"].bold


def test_paragraph_direction_follows_its_text(shown: dict[str, Shown]) -> None:
    assert shown["two directions"].directions[:3] == ["rtl", "rtl", "ltr"]


def test_code_in_a_text_from_right_to_left_is_not_reordered(shown: dict[str, Shown]) -> None:
    assert shown["code in Hebrew"].code_directions == ["ltr", "ltr"]
    assert shown["code in Hebrew"].item_directions == ["rtl", "ltr"]


def test_items_of_a_list_have_their_numbers(shown: dict[str, Shown]) -> None:
    assert shown["countdown"].numbers == [3, 2, 1]


SIDES = """() => {
  const box = document.querySelector('.side .text'), inside = box.getBoundingClientRect();
  const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT), text = walker.nextNode();
  return text.data.split("\\n").filter(line => line).map(line => {
    const range = document.createRange(), start = text.data.indexOf(line);
    range.setStart(text, start);
    range.setEnd(text, start + line.length);
    const drawn = range.getBoundingClientRect();
    return drawn.left - inside.left > inside.right - drawn.right ? "right" : "left";
  });
}"""
"""The side of its box at which each paragraph of an exported answer begins."""


def test_exported_paragraphs_begin_at_the_side_of_their_script(browser: Any) -> None:
    page = browser.new_page()
    page.set_content(to_html(report([answer(OTHERS["two directions"]), answer()])))
    assert page.evaluate(SIDES) == ["right", "right", "left"]
    page.close()


def test_formulas_are_typeset_or_explained(shown: dict[str, Shown]) -> None:
    found = shown["mathematics"]
    assert found.typeset or "formula" in found.answer.lower()
