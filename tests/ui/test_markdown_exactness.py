"""Code in a model's answer is not changed. What a browser shows is tested in tests/browser."""

from __future__ import annotations

import pytest

from core.ui.widgets.safe_text import JOINER, SafeMarkdown, safe_markdown
from tests.exact_texts import CODE, PROSE, code_in

EXACT_TODAY = ("at the top", "a fence in a fence", "with a title")
NOT_EXACT = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="code in lists, quotations and tables, indented or inline, is escaped like prose",
)


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in EXACT_TODAY else NOT_EXACT) for each in CODE]
)
def test_code_is_not_changed(name: str) -> None:
    assert code_in(safe_markdown(CODE[name])) == code_in(CODE[name])


@pytest.mark.parametrize("name", CODE)
def test_streamed_code_equals_the_complete_text(name: str) -> None:
    stream = SafeMarkdown()
    streamed = "".join(map(stream.feed, CODE[name])) + stream.close()
    assert streamed == safe_markdown(CODE[name])


INVISIBLE = ("an address", "a time", "an e-mail address", "a type", "a path", "less than")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            each,
            marks=pytest.mark.xfail(
                strict=True,
                raises=AssertionError,
                reason="an invisible character stands within what a person copies",
            )
            if each in INVISIBLE
            else (),
        )
        for each in PROSE
    ],
)
def test_prose_gets_no_invisible_characters(name: str) -> None:
    assert JOINER not in safe_markdown(PROSE[name])
