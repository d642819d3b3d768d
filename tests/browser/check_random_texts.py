"""300 random answers in Chromium: code, prose and questions are shown and selected unchanged.

Named in docs/CONTRIBUTING.md; takes two minutes.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.browser.conftest import serving
from tests.exact_texts import code_in
from tests.hostile import ACTIVE
from tests.random_texts import prose, text

COUNT, AT_ONCE = 300, 25
LOOK = """key => {
  const part = document.querySelector(`.st-key-${key}`), body = part.querySelector(
    '[data-testid="stMarkdownContainer"]');
  const range = document.createRange(), selection = getSelection();
  range.selectNodeContents(body);
  selection.removeAllRanges();
  selection.addRange(range);
  const selected = selection.toString();
  selection.removeAllRanges();
  return [[...part.querySelectorAll('code')].map(each => each.textContent), selected];
}"""


def test_random_texts_are_shown_unchanged(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("texts")
    with serving("tests/browser/app_with_random_texts.py", home) as url:
        page = browser.new_page()
        outside: list[str] = []
        page.on("request", lambda request: outside.append(request.url))
        for first in range(0, COUNT, AT_ONCE):
            page.goto(f"{url}/?seed={first}&count={AT_ONCE}")
            page.get_by_text("Drawing finished.").wait_for(timeout=60_000)
            page.wait_for_timeout(1_500)
            page.locator("[data-testid='stSkeleton']").first.wait_for(state="detached")
            within = "[data-testid='stMarkdownContainer']"
            assert page.locator(f"{within} :is({ACTIVE})").count() == 0
            for seed in range(first, first + AT_ONCE):
                source = text(random.Random(seed))
                code, _ = page.evaluate(LOOK, f"answer_{seed}")
                # Streamlit draws no blank lines at the end of a code block.
                wanted = [found.rstrip("\n") for found in code_in(source)]
                assert [found.rstrip("\n") for found in code] == wanted, (seed, source)
                _, selected = page.evaluate(LOOK, f"prose_{seed}")
                assert selected == prose(random.Random(seed)), seed
                _, selected = page.evaluate(LOOK, f"plain_{seed}")
                assert selected == source, seed
        page.close()
    assert all(request.startswith(url) or request.startswith("data:") for request in outside)
