"""Texts are shown, selected and copied as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.browser.conftest import serving
from tests.exact_texts import CODE, PROSE, code_in

OTHERS = {
    "bold": "请记住**「明天」**这个词。",
    "two directions": "מזג האוויר נאה היום.\n\nالطقس جميل اليوم.\n\nThis goes the other way.",
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


@pytest.fixture(scope="module")
def shown(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Shown]]:
    """Draw all texts on one page."""
    query = urlencode([("text", text) for text in TEXTS.values()])
    app, home = "tests/browser/app_with_exact_texts.py", tmp_path_factory.mktemp("texts")
    with serving(app, home) as url:
        page = browser.new_page()
        page.goto(f"{url}/?{query}")
        page.get_by_text("Drawing finished.").wait_for(timeout=60_000)
        # Code blocks are loaded when they are first drawn.
        count, before = page.locator("code").count, -1
        while count() != before:
            before = count()
            page.wait_for_timeout(1500)
        entries = [page.locator(f".st-key-entry_text_{n}") for n in range(len(TEXTS))]
        yield {
            name: Shown(**entry.evaluate(LOOK)) for name, entry in zip(TEXTS, entries, strict=True)
        }
        page.close()


def xfail(reason: str) -> pytest.MarkDecorator:
    """Mark a test of correct behaviour that fails today."""
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)


def some(marked: dict[str, str], names: dict[str, str]) -> list[Any]:
    """Return all names as parameters, with an xfail mark for those that fail today."""
    return [
        pytest.param(name, marks=xfail(marked[name]) if name in marked else ()) for name in names
    ]


# Code

NOT_EXACT = "code in lists, quotations and tables, indented or inline, is escaped like prose"
EXACT_TODAY = ("at the top", "a fence in a fence", "with a title")


@pytest.mark.parametrize(
    "name", some({each: NOT_EXACT for each in CODE if each not in EXACT_TODAY}, CODE)
)
def test_code_is_shown_unchanged(name: str, shown: dict[str, Shown]) -> None:
    wanted = [code.rstrip("\n") for code in code_in(CODE[name])]
    assert [code.rstrip("\n") for code in shown[name].code] == wanted


# Prose

JOINED = "copied text contains an invisible character"
STRUCK = "tildes strike text through or disappear"
REPLACED = "characters are replaced by typographic ones"
ONE_LINE = "line breaks disappear"
MARKS = "marks within words and names are interpreted as Markdown"
OF_ANSWERS = {
    "an address": JOINED,
    "a time": JOINED,
    "an e-mail address": JOINED,
    "a type": JOINED,
    "a path": JOINED,
    "less than": JOINED,
    "about": STRUCK,
    "a formula of chemistry": STRUCK,
    "arrows": REPLACED,
    "comparisons": REPLACED,
    "dashes": REPLACED,
    "lines": ONE_LINE,
}
OF_QUESTIONS = OF_ANSWERS | {"a question about code": MARKS}
WITHOUT_MARKDOWN = {name: text for name, text in PROSE.items() if name != "a question about code"}


@pytest.mark.parametrize("name", some(OF_ANSWERS, WITHOUT_MARKDOWN))
def test_prose_is_shown_and_copied_unchanged(name: str, shown: dict[str, Shown]) -> None:
    assert shown[name].struck == []
    assert PROSE[name] in shown[name].answer
    assert PROSE[name] in shown[name].selected


@pytest.mark.parametrize("name", some(OF_QUESTIONS, PROSE))
def test_question_is_shown_unchanged(name: str, shown: dict[str, Shown]) -> None:
    assert PROSE[name] in shown[name].question


@xfail("emphasis around Chinese brackets is left as asterisks")
def test_emphasis_works_without_spaces(shown: dict[str, Shown]) -> None:
    assert "「明天」" in shown["bold"].bold


@xfail("every paragraph is drawn from left to right")
def test_paragraph_direction_follows_its_text(shown: dict[str, Shown]) -> None:
    assert shown["two directions"].directions[:3] == ["rtl", "rtl", "ltr"]


@xfail("formulas are shown as source text without an explanation")
def test_formulas_are_typeset_or_explained(shown: dict[str, Shown]) -> None:
    found = shown["mathematics"]
    assert found.typeset or "formula" in found.answer.lower()
