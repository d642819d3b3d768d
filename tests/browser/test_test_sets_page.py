"""Test sets page in a browser: the matrix by keyboard, editing, a reload during a run."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.browser.screen import Screen, Stagehand, eventually


def test_matrix_by_keyboard_after_a_reload_during_the_run(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    models = "t1_model=paddock-neox&t2_model=paddock-llama"
    screen = open_screen(f"{scripted.url}/tests?{models}", fresh=True)
    page = screen.page
    screen.button("An empty set").click()
    scripted.script("It is Paris, of course.", released=1)
    scripted.script("It is Rome.", model="paddock-llama")
    page.get_by_role("button", name="Run 1 case on 2 candidates").click()
    page.get_by_text(re.compile("0 of 2 answers")).wait_for()
    page.reload()
    page.get_by_text(re.compile("0 of 2 answers")).wait_for()
    scripted.release()
    page.get_by_role("button", name="Pin as baseline").wait_for()
    screen.settled()
    assert page.get_by_text("Cannot be told apart with 1 case (").count() == 1

    # By keyboard only: the first cell, the verdict of A, then that of B.
    page.locator("canvas[tabindex='0']:visible").last.focus()
    case = page.locator(".st-key-test_case")
    page.keyboard.press("ArrowRight")
    case.get_by_text("It is Paris, of course.").wait_for()
    page.keyboard.press("ArrowRight")
    case.get_by_text("It is Rome.").wait_for()
    screen.settled()
    assert case.get_by_text("✗ fail").count() == 1
    eventually(lambda: case.get_by_text("It is Paris").count() == 0, "only the selected answer")
