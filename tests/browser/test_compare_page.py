"""Compare page in a browser."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.browser.screen import Line, Screen, Stagehand, eventually
from tests.hostile import ACTIVE, HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Locator

NEOX, LLAMA = "paddock-neox", "paddock-llama"
TEXTS = {
    NEOX: "Rain is quiet. Rain is clean. Nobody else is there.",
    LLAMA: "Rain is loud. Rain is wet. Everybody is there, and nobody minds.",
}
NAMES = ("Paddock NeoX 3M (tiny demo)", "Paddock Llama 6M (tiny demo)")
QUESTION = "Why walk in the rain?"


class CompareScreen:
    """The Compare page in a browser."""

    def __init__(self, screen: Screen, scripted: Stagehand) -> None:
        self.screen = screen
        self.page = screen.page
        self.scripted = scripted

    def ready(self) -> CompareScreen:
        """Wait for the page to be usable."""
        self.run_button.wait_for()
        return self

    @property
    def run_button(self) -> Locator:
        """Button that starts the comparison."""
        return self.page.get_by_role("button", name=re.compile("Run (both|all)"))

    def side(self, letter: str) -> Locator:
        """Return the card of a side with its answer."""
        return self.page.locator(f".st-key-answer_{letter.lower()}")

    def text(self, letter: str) -> str:
        """Return the text of a side's card."""
        return self.screen.text_of(self.side(letter))

    def look(self) -> tuple[str, str]:
        """Return the texts of both cards."""
        return self.text("A"), self.text("B")

    def ask(self, instruction: str = QUESTION) -> None:
        """Enter an instruction and run it."""
        self.screen.instruction.fill(instruction)
        self.run_button.click()

    def stop(self, name: str) -> None:
        """Click a Stop button."""
        self.page.get_by_role("button", name=name).click()

    def await_end(self) -> None:
        """Wait until all sides have finished."""
        eventually(self.run_button.is_enabled, "it ended")
        for letter in "AB":  # the page is drawn from top to bottom
            self.again(letter).wait_for()
        self.screen.settled()

    def again(self, letter: str) -> Locator:
        """Return the button below a finished side that runs it again."""
        return self.side(letter).get_by_role("button", name=f"Regenerate {letter}", exact=True)


def split(released: dict[str, int | None], scripted: Stagehand, **fields: Any) -> None:
    """Set the scripts of the models with this many released tokens."""
    for model, count in released.items():
        scripted.script(TEXTS[model], model=model, released=count, **fields)


@pytest.fixture
def compare(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> Callable[..., CompareScreen]:
    """Return a function that opens the Compare page with these URL parameters."""

    def open_it(options: dict[str, Any] | None = None, **link: str) -> CompareScreen:
        query = "&".join(f"{name}={quote(value)}" for name, value in link.items())
        screen = open_screen(f"{scripted.url}/compare?{query}", **(options or {}))
        return CompareScreen(screen, scripted).ready()

    return open_it


def rows(scripted: Stagehand, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query of the server's database."""
    with closing(sqlite3.connect(scripted.database)) as database:
        return database.execute(query).fetchall()


def visible(page: CompareScreen, element: Locator) -> bool:
    """Return whether a whole element is inside the window."""
    box, window = element.bounding_box(), page.page.viewport_size
    return bool(box and window) and 0 <= box["y"] <= window["height"] - box["height"]


def tab_to(page: CompareScreen, element: Locator) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(60):
        page.page.keyboard.press("Tab")
        if element.evaluate("(element) => element.contains(document.activeElement)"):
            return
    raise AssertionError("the element is not reached")


def test_race_from_start_to_vote_with_the_keyboard(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    split({NEOX: 6, LLAMA: 6}, scripted)
    page = compare({"viewport": {"width": 1366, "height": 768}}, mode="race")
    assert visible(page, page.run_button)
    tab_to(page, page.screen.instruction)
    page.page.keyboard.type(QUESTION)
    page.page.keyboard.press("Control+Enter")
    for letter in "AB":
        line = page.side(letter).get_by_text("Rain")
        line.wait_for()
        eventually(lambda line=line: visible(page, line), "the first line is in view")
        side = page.side(letter)
        eventually(lambda side=side: side.bounding_box()["y"] <= 320, "near the top")
    first = page.look()
    for _ in range(2):
        for model in (NEOX, LLAMA):
            scripted.release(5, model)
        before = first
        eventually(
            lambda before=before: all(
                len(now) > len(then) for now, then in zip(page.look(), before, strict=True)
            ),
            "both grow between two looks",
        )
        first = page.look()
    figures = re.compile(r"tokens/s · \d+ tokens · TTFT .+ · [\d.]+ s")
    eventually(lambda: all(map(figures.search, page.look())), "the figures of both")
    assert scripted.state(NEOX)["running"] == scripted.state(LLAMA)["running"] == 1
    scripted.release(model=LLAMA)
    page.side("B").get_by_text("1st").wait_for()
    assert scripted.state(NEOX)["running"] == 1, "the mark is there while the other side runs"
    scripted.release(model=NEOX)
    page.await_end()
    assert TEXTS[NEOX] in page.text("A") and TEXTS[LLAMA] in page.text("B")
    assert "2nd" in page.text("A")
    for letter in "AB":
        assert "measured while busy" in page.text(letter)
    page.page.locator(".st-key-result").get_by_text("; measured while busy, so not").wait_for()
    better = page.page.get_by_role("button", name="B is better")
    eventually(lambda: visible(page, better), "the vote is directly below the answers")
    tab_to(page, better)
    page.page.keyboard.press("Enter")
    page.page.get_by_text("You chose B.").wait_for()


def test_fair_mode_runs_one_side_at_a_time(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    split({NEOX: 6, LLAMA: None}, scripted)
    page = compare()
    page.ask()
    page.side("A").get_by_text("Rain").wait_for()
    page.side("B").get_by_text("Waiting for its turn.").wait_for()
    assert scripted.state(LLAMA)["prompts"] == []
    scripted.release(model=NEOX)
    page.await_end()
    assert TEXTS[LLAMA] in page.text("B")
    assert "measured while busy" not in page.text("A") + page.text("B")
    chart = page.page.get_by_test_id("stPlotlyChart")
    chart.get_by_text("Tokens over time").wait_for()


def test_stopping_one_side_does_not_stop_the_other(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    split({NEOX: 8, LLAMA: 8}, scripted)
    page = compare(mode="race")
    page.ask()
    for letter in "AB":
        page.side(letter).get_by_text("Rain").wait_for()
    page.stop("Stop A")
    eventually(lambda: scripted.state(NEOX)["running"] == 0, "A stopped")
    page.side("A").get_by_text("ended: cancelled").wait_for()
    before = page.text("B")
    scripted.release(4, LLAMA)
    eventually(lambda: len(page.text("B")) > len(before), "B goes on")
    scripted.release(model=LLAMA)
    page.await_end()
    assert TEXTS[LLAMA] in page.text("B") and "Nobody" not in page.text("A")


def test_stop_interrupts_prefill_and_skips_waiting_sides(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    scripted.script(TEXTS[NEOX], model=NEOX, hold_prefill=True)
    page = compare()
    page.ask()
    page.side("A").get_by_text("Reading the prompt.").wait_for()
    page.stop("Stop both")
    eventually(lambda: scripted.state(NEOX)["interrupted"] == 1, "the prefill was interrupted")
    page.await_end()
    assert "ended: cancelled" in page.text("A") and "Not started." in page.text("B")
    assert scripted.state(LLAMA)["prompts"] == []


@pytest.mark.long
def test_runtime_error_does_not_affect_the_other_side(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    scripted.script(TEXTS[NEOX], model=NEOX, fail_after=5)
    split({LLAMA: 8}, scripted)
    page = compare(mode="race")
    page.ask()
    page.side("A").get_by_text("scripted fault").wait_for()
    before = page.text("B")
    scripted.release(4, LLAMA)
    eventually(lambda: len(page.text("B")) > len(before), "B goes on")
    scripted.release(model=LLAMA)
    page.await_end()
    assert TEXTS[LLAMA] in page.text("B")
    assert page.page.get_by_role("button", name="A is better").count() == 0


def test_page_switch_and_changed_setting_do_not_affect_a_run(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    split({NEOX: 6, LLAMA: 6}, scripted)
    page = compare(mode="race")
    page.ask("Leave the page?")
    for letter in "AB":
        page.side(letter).get_by_text("Rain").wait_for()
    page.page.get_by_role("slider", name="Top-k").press("ArrowRight")
    eventually(lambda: "top_k=" in page.screen.url, "the page followed")
    page.screen.go_to("Account")
    page.screen.instruction.wait_for(state="detached")
    for model in (NEOX, LLAMA):
        scripted.release(5, model)
    eventually(lambda: scripted.state(NEOX)["tokens"] == 11, "it goes on without the page")
    page.screen.go_to("Compare")
    page.ready()
    eventually(lambda: all("11 tokens" in text for text in page.look()), "it shows them again")
    for model in (NEOX, LLAMA):
        scripted.release(model=model)
    page.await_end()
    assert TEXTS[NEOX] in page.text("A") and TEXTS[LLAMA] in page.text("B")
    for model in (NEOX, LLAMA):
        assert len(scripted.state(model)["prompts"]) == 1
    found = rows(
        scripted,
        "SELECT origin, state, new_tokens > 0 FROM runs WHERE instruction = 'Leave the page?'",
    )
    assert found == [("compare", "done", 1)] * 2


def told(page: CompareScreen) -> list[str]:
    """Return the secrets of a blind comparison in the text, links and address of the page."""
    links = page.page.get_by_role("link").evaluate_all("(all) => all.map((each) => each.href)")
    shown = " ".join([page.page.inner_text("body"), page.screen.url, *map(str, links)])
    return [word for word in (*NAMES, NEOX, LLAMA, "tokens/s", "TTFT", "INT8") if word in shown]


def test_blind_list_tells_no_name_before_the_last_vote(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    split({NEOX: 6, LLAMA: 6}, scripted)
    link = {"left_model": LLAMA, "right_model": NEOX, "list": "Blind once?\nBlind twice?"}
    page = compare(ask="list", mode="race", blind="true", **link)
    page.run_button.click()
    for letter in "AB":
        page.side(letter).get_by_text("Rain").wait_for()
    eventually(lambda: not told(page), "names are hidden while it runs")
    for model in (NEOX, LLAMA):
        scripted.release(model=model)
    page.await_end()
    page.page.get_by_text("2 of 2 instructions completed.").wait_for()
    page.screen.settled()
    assert not told(page) and page.page.locator(".st-key-result").count() == 0
    assert page.page.get_by_text("Tokens A").count() == 0, "the prompt would tell the model"
    page.page.get_by_role("button", name="Tie").click()
    page.page.get_by_text("tie 1").wait_for()
    page.screen.settled()
    assert not told(page)
    page.page.reload()
    page.page.get_by_placeholder("Why?").wait_for()
    page.screen.settled()
    assert not told(page), "not after a reload either"
    page.page.get_by_placeholder("Why?").fill("it is kinder")
    page.page.get_by_role("button", name="B is better").click()
    for letter in "AB":
        page.side(letter).get_by_text("Paddock").wait_for()
    page.screen.settled()
    shown = {letter: next(name for name in NAMES if name in page.text(letter)) for letter in "AB"}
    for letter, name in shown.items():
        assert TEXTS[NEOX if name == NAMES[0] else LLAMA] in page.text(letter), "no mix-up"
    assert rows(
        scripted,
        "SELECT left_title, right_title, verdict, blind, comment FROM votes "
        "WHERE comment = 'it is kinder'",
    ) == [(shown["A"], shown["B"], "right", 1, "it is kinder")]
    page.page.get_by_role("combobox", name="Model of A").wait_for()


def controls(page: CompareScreen) -> dict[str, list[str]]:
    """Return the values of the controls."""
    found = {
        name: page.page.get_by_role("combobox", name=name).evaluate_all(
            "(all) => all.map((each) => each.value)"
        )
        for name in ("Model", "Precision")
    }
    modes = page.page.get_by_role("radiogroup", name="How they run")
    found["How they run"] = modes.get_by_role("radio", checked=True).all_inner_texts()
    found["Blind"] = [str(page.page.get_by_role("switch", name="Blind", exact=True).is_checked())]
    found["Instruction"] = [page.screen.instruction.input_value()]
    return found


@pytest.mark.long
def test_link_reproduces_the_settings(
    compare: Callable[..., CompareScreen],
    scripted: Stagehand,
    open_screen: Callable[..., Screen],
) -> None:
    page = compare()
    page.page.get_by_role("button", name="Add a model").click()
    page.page.get_by_role("button", name="Run all").wait_for()  # drawn below the third side
    page.screen.choose(
        page.page.locator(".st-key-side_b").get_by_role("combobox", name="Model"),
        page.page.get_by_role("option", name="Paddock NeoX"),
    )
    eventually(lambda: "right_model=" in page.screen.url, "the model is taken")
    page.page.get_by_role("radio", name="Race").click()
    eventually(lambda: "mode=" in page.screen.url, "the mode, too")
    page.page.get_by_text("Blind", exact=True).click()
    eventually(lambda: "blind=" in page.screen.url, "the switch, too")
    page.screen.instruction.fill("When? 50% + 1 = ?")
    page.screen.instruction.press("Tab")
    wanted = ("sides=", "right_model=", "right_precision=", "mode=", "blind=", "instruction=")
    eventually(lambda: all(name in page.screen.url for name in wanted), "it is in the link")
    eventually(lambda: len(set(controls(page)["Precision"][:2])) == 2, "the precisions differ")
    settings = controls(page)
    assert len(settings["Model"]) == 3
    assert all(model.startswith(NAMES[0]) for model in settings["Model"][:2])
    other = CompareScreen(open_screen(page.screen.url, fresh=True), scripted).ready()
    eventually(lambda: controls(other) == settings, "the other page is set up the same")


def test_back_leaves_the_page_at_the_first_press(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    page = compare()
    page.screen.go_to("Account")
    # A page that is left before it is drawn is not in the history.
    page.page.get_by_role("heading", name="Account").wait_for()
    page.screen.go_to("Compare")
    page.ready().page.get_by_role("radio", name="Race").click()
    eventually(lambda: "mode=race" in page.screen.url, "the setting is in the link")
    page.page.get_by_text("Blind", exact=True).click()
    eventually(lambda: "blind=" in page.screen.url, "the next one, too")
    page.page.go_back()
    eventually(lambda: "/account" in page.screen.url, "it is the page before")
    page.page.get_by_role("heading", name="Account").wait_for()


def test_quick_next_click_does_not_undo_a_changed_precision(
    compare: Callable[..., CompareScreen],
) -> None:
    page = compare()
    line = Line(page.page)
    models = page.ready().page.locator(".st-key-side_b").get_by_role("combobox", name="Model")
    page.screen.settled()
    option = page.page.get_by_role("option", name="Paddock NeoX")
    page.screen.open(models, option)
    sent = line.sent
    line.hold()
    option.click()
    line.await_sent(sent + 1)
    page.page.get_by_role("radio", name="Race").click()
    line.await_sent(sent + 2)
    line.release()
    eventually(lambda: "mode=race" in page.screen.url, "the second click arrived")
    eventually(lambda: len(set(controls(page)["Precision"][:2])) == 2, "the precisions differ")
    assert controls(page)["How they run"] == ["Race"]
    # It is not the model's own default.
    eventually(lambda: "right_precision=int4" in page.screen.url, "it is in the link")


def stacked(elements: list[Locator]) -> bool:
    """Return whether elements are one below the other and as wide as a phone."""
    boxes = [element.bounding_box() for element in elements]
    return all(box and box["width"] > 300 and box["x"] + box["width"] <= 390 for box in boxes) and (
        all(upper["y"] + upper["height"] <= lower["y"] for upper, lower in pairwise(boxes))
    )


def test_four_sides_are_level_and_stacked_on_a_phone(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    split({NEOX: None, LLAMA: None}, scripted)
    page = compare({"viewport": {"width": 1440, "height": 900}}, sides="4")
    page.ask()
    page.await_end()
    for letter in "CD":
        page.again(letter).wait_for()

    def measured() -> list[dict[str, float]]:
        return [page.side(letter).bounding_box() or {} for letter in "ABCD"]

    def level() -> bool:
        return len({(box.get("y"), box.get("height")) for box in measured()}) == 1

    page.page.locator(".st-key-judge").wait_for()
    eventually(level, "side by side and level")

    def below() -> bool:
        box, vote = measured()[0], page.page.locator(".st-key-judge").bounding_box()
        return box["y"] <= 320 and 0 <= vote["y"] - box["y"] - box["height"] <= 32

    eventually(below, "the vote is below them")
    assert measured()[0]["height"] >= 300
    page.page.set_viewport_size({"width": 390, "height": 844})
    # What is drawn by a script, such as a chart, takes its new width later than the rest.
    wide = "document.documentElement.scrollWidth"
    eventually(lambda: page.page.evaluate(wide) <= 390, "nothing sticks out")
    for stack in (".st-key-answer_{}", ".st-key-side_{}"):
        each = [page.page.locator(stack.format(letter)) for letter in "abcd"]
        eventually(lambda each=each: stacked(each), "one below the other")


def test_hostile_answers_are_escaped_in_columns_and_export(
    compare: Callable[..., CompareScreen], scripted: Stagehand, tmp_path: Path
) -> None:
    for model in (NEOX, LLAMA):
        scripted.script(HOSTILE, model=model)
    page = compare(tokens="1000")
    page.ask("<img src=x onerror=alert(1)> ![x](http://evil.example/x.png)")
    page.await_end()
    for letter in "AB":
        texts = page.side(letter).locator('[data-testid="stMarkdownContainer"]')
        assert texts.locator(ACTIVE).count() == 0
    as_page = page.page.get_by_role("button", name="Web page (HTML)")
    page.screen.open(page.page.get_by_role("button", name="Export"), as_page)
    with page.page.expect_download() as download:
        as_page.click()
    file = tmp_path / "comparison.html"
    download.value.save_as(file)
    saved = file.read_text(encoding="utf-8")
    assert "&lt;img src" in saved and "<img" not in saved and "<script" not in saved


@pytest.mark.long
def test_regenerating_one_side_keeps_the_other_and_the_history(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    split({NEOX: None, LLAMA: None}, scripted)
    page = compare()
    page.ask()
    page.await_end()
    scripted.script("Another answer.", model=LLAMA)
    page.page.get_by_role("button", name="Regenerate B", exact=True).click()
    page.side("B").get_by_text("Another answer.").wait_for()
    page.await_end()
    assert TEXTS[NEOX] in page.text("A")
    assert len(scripted.state(NEOX)["prompts"]) == 1, "A did not run again"
    page.page.get_by_role("button", name="Show", exact=False).first.click()
    page.side("B").get_by_text("Everybody is there").wait_for()


def test_list_runs_and_can_be_stopped(
    compare: Callable[..., CompareScreen], scripted: Stagehand
) -> None:
    split({NEOX: 6, LLAMA: None}, scripted)
    page = compare()
    page.page.get_by_role("radio", name="List").click()
    box = page.page.get_by_role("textbox", name="Instructions, one per line")
    box.fill("First?\nSecond?\nThird?")
    page.run_button.click()
    page.page.get_by_text("Instruction 1 of 3").wait_for()
    page.side("A").get_by_text("Rain").wait_for()
    scripted.release(30, model=NEOX)
    page.page.get_by_text("Instruction 2 of 3").wait_for()
    page.stop("Stop both")
    page.page.get_by_text("The run was stopped.").wait_for()
    asked = [prompt for prompt in scripted.state(NEOX)["prompts"] if "Third?" in prompt]
    assert asked == []
