"""The sampling lab and the tokens of an answer in a browser, with a real tiny model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from core.catalogue import Precision
from core.catalogue.presets import presets
from core.db import Origin, RunStore
from core.settings import Settings
from tests.browser.conftest import serving
from tests.browser.screen import Line, Screen, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Locator

MODEL = "paddock-neox"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Those of the app."""
    return Settings(home=tmp_path_factory.mktemp("lab") / "paddock")


@pytest.fixture(scope="module")
def url(browser: Any, settings: Settings, put_demo: Callable[..., None]) -> Iterator[str]:
    """The app, with the tiny model in two precisions."""
    put_demo(settings.home, Precision.INT8, Precision.INT4)
    with serving("streamlit_app.py", settings.home.parent) as served:
        yield served


@pytest.fixture
def open_lab(url: str, open_screen: Callable[..., Screen]) -> Callable[..., Screen]:
    def open_it(query: str = "", **options: Any) -> Screen:
        screen = open_screen(f"{url}/lab{query}", **options)
        screen.page.get_by_text("of the probability").first.wait_for()
        return screen

    return open_it


def labels(screen: Screen, side: int = 0) -> list[str]:
    """Return the tokens with a bar, the likeliest first."""
    ticks = screen.page.locator(f".st-key-lab_side_{side} .yaxislayer-above text")
    return [text.strip() for text in ticks.all_text_contents()]


def beside_bar(screen: Screen, number: int) -> tuple[float, float]:
    """Return a place in the row of a bar, right of a short bar."""
    tick = screen.settled().page.locator(".st-key-lab_side_0 .yaxislayer-above text").nth(number)
    tick.scroll_into_view_if_needed()
    place = screen.at_rest(tick)
    return place["x"] + place["width"] + 120, place["y"] + place["height"] / 2


def path(screen: Screen) -> list[str]:
    """Return the tokens that can be walked back to; the first is the beginning."""
    group = screen.page.get_by_role("radiogroup", name="Walk back to")
    return [
        re.sub("[\u200b\u200c]", "", text) for text in group.get_by_role("radio").all_inner_texts()
    ]


def card(token: Locator) -> str:
    """Return what is shown beside a token that is hovered or has the focus; empty if nothing is."""
    content, inside = token.evaluate(
        """(token) => {
          const card = getComputedStyle(token, '::after'), box = token.getBoundingClientRect();
          const [left, top] = [parseFloat(card.left), parseFloat(card.top)];
          const [width, height] = [parseFloat(card.width), parseFloat(card.height)];
          const near = Math.min(Math.abs(top - box.bottom), Math.abs(top + height - box.top)) < 30;
          return [card.content, near && left >= 0 && left + width <= innerWidth];
        }"""
    )
    return content if inside and content not in ("none", "normal") else ""


def test_the_cat_a_branch_the_keyboard_and_two_precisions(open_lab: Callable[..., Screen]):
    screen = open_lab("?top_p=1")
    assert screen.page.get_by_role("textbox", name="Text").input_value() == "The cat is"
    first = eventually(lambda: labels(screen), "bars")
    assert first[0] == "␣on" and len(first) == 12
    screen.page.mouse.click(*beside_bar(screen, 1))
    eventually(lambda: len(path(screen)) == 2, "the token that was clicked")
    assert path(screen)[1] == first[1]
    eventually(lambda: labels(screen) not in ([], first), "the next distribution")
    # Walked back, and a branch drawn with the keyboard.
    screen.page.get_by_role("radiogroup", name="Walk back to").get_by_role("radio").first.click()
    eventually(lambda: path(screen) == [], "the beginning")
    screen.settled().page.keyboard.press("d")
    eventually(lambda: len(path(screen)) == 2, "a token that was drawn")
    screen.button("Draw 1,000").first.click()
    screen.page.get_by_text("of 1,000 draws").first.wait_for()
    # Two precisions
    screen.page.get_by_text("Second model").click()
    screen.page.get_by_text("KL divergence", exact=True).wait_for()
    eventually(lambda: labels(screen, 1) == labels(screen), "the same tokens for both")
    nats = screen.page.get_by_test_id("stMetricValue").first.inner_text()
    assert 0 < float(nats.split()[0]) < 1
    eventually(lambda: "other_precision=int4" in screen.url, "it is in the link")


def test_the_lab_on_a_phone(open_lab: Callable[..., Screen]):
    screen = open_lab(viewport={"width": 390, "height": 844}, has_touch=True)
    first = eventually(lambda: labels(screen), "bars")
    wide = screen.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    screen.page.touchscreen.tap(*beside_bar(screen, 0))  # shows the label, as hovering does
    screen.page.locator(".hoverlayer text").first.wait_for()
    screen.page.touchscreen.tap(*beside_bar(screen, 0))
    eventually(lambda: path(screen)[1:] == first[:1], "the token that was tapped")


def test_an_answer_by_its_tokens_goes_on_from_another_one(
    url: str, open_screen: Callable[..., Screen]
):
    screen = open_screen(f"{url}/instruct?pace=full&greedy=true&model={MODEL}")
    line = Line(screen.page)
    screen.ready().ask("Give me three advantages of being a cat.")
    screen.await_answer()
    before = screen.answer_text()
    by_token = screen.page.get_by_text("Tokens and prompt")
    screen.open(screen.button("Details"), by_token)
    by_token.click()
    screen.page.keyboard.press("Escape")
    screen.page.get_by_text("Select a token").wait_for()
    prompt = screen.settled().page.get_by_test_id("stPopoverBody")
    screen.open(
        screen.page.get_by_role("button", name=re.compile(r"Prompt · \d+ tokens")),
        prompt.get_by_text("advantages of being a cat"),
    )
    assert "### Instruction:" in prompt.inner_text()
    screen.page.keyboard.press("Escape")
    tokens = screen.page.get_by_role("radiogroup", name="Tokens of the answer").get_by_role("radio")
    assert before.split()[0] in "".join(tokens.all_inner_texts())
    sent = line.sent

    def pointed_at(number: int) -> bool:
        tokens.nth(number).hover()
        return card(tokens.nth(number)).count(" ") >= 10

    for number in (0, 3):
        eventually(lambda number=number: pointed_at(number), "five tokens")
        assert not card(tokens.nth(1))
    screen.page.mouse.move(0, 0)
    tokens.nth(1).focus()
    screen.page.keyboard.press("ArrowRight")
    eventually(lambda: card(tokens.nth(2)), "the same for the keyboard")
    assert not card(tokens.nth(3)) and line.sent == sent, "without the server"
    screen.page.keyboard.press("Space")
    chosen = screen.page.get_by_text(re.compile(r"Token 3 of \d+: .+ had \d"))
    chosen.wait_for()
    others = screen.settled().page.locator("[class*=st-key-alternatives_] button:not([disabled])")
    token = others.first.inner_text().split(" · ")[0].replace("␣", " ")
    others.first.click()
    screen.await_answer(2)
    assert token.strip() in screen.answer_text() and screen.answer_text() != before
    assert screen.entries.count() == 2, "the answer before is kept"


@pytest.mark.long
def test_a_side_of_a_comparison_goes_on_from_another_token(
    url: str, settings: Settings, open_screen: Callable[..., Screen]
):
    sides = f"left_model={MODEL}&right_model={MODEL}&left_precision=int8&right_precision=int4"
    screen = open_screen(f"{url}/compare?{sides}&greedy=true&tokens=40")
    page = screen.page
    second = page.locator(".st-key-answer_b")
    screen.instruction.wait_for()
    screen.instruction.fill("Give me three advantages of being a cat.")
    screen.button("Run both").click()
    second.get_by_text("Tokens B").click()
    page.locator(".st-key-divergence").get_by_text("The reference is A").wait_for()
    tokens = second.get_by_role("radiogroup", name="Tokens of the answer").get_by_role("radio")
    tokens.nth(3).click()
    second.get_by_text(re.compile(r"Token 4 of \d+: .+ had \d")).wait_for()
    screen.settled()
    others = second.locator("[class*=st-key-alternatives_] button:not([disabled])")
    beginning = [re.sub("[\u200b\u200c]", "", text) for text in tokens.all_inner_texts()[:3]]
    token = others.first.inner_text().split(" · ")[0].replace("␣", " ")
    runs = RunStore.open(settings)
    answers = runs.count(origin=Origin.COMPARE)
    others.first.click()
    second.get_by_text("from another token").wait_for()
    page.get_by_text("You cannot vote").wait_for()
    assert runs.count(origin=Origin.COMPARE) == answers + 1, "A did not run again"
    page.get_by_text("The answer of B was continued from another token").wait_for()
    screen.settled()
    assert page.locator(".st-key-divergence").count() == 0, "the choice was not the model's own"
    page.locator("[class*=st-key-show_] button").first.click()
    page.get_by_role("button", name="A is better").wait_for()
    screen.settled()  # the other comparison has its button now
    page.locator("[class*=st-key-show_] button").first.click()
    second.get_by_text("from another token").wait_for()
    popover = page.get_by_test_id("stPopoverBody")
    screen.settled().open(second.get_by_role("button", name="Copy"), popover)
    copied = eventually(popover.inner_text, "the text to copy")
    chosen = "".join([*beginning, token]).replace("⏎", "")
    assert "".join(copied.split()).startswith("".join(chosen.split()))


@pytest.mark.long
def test_accepted_guesses_of_an_answer_are_marked(url: str, open_screen: Callable[..., Screen]):
    query = f"pace=full&greedy=true&model={MODEL}&speculation=on"
    screen = open_screen(f"{url}/instruct?{query}").ready()
    (sorting,) = (each for each in presets() if each.title == "Fruit or vegetable?")
    screen.ask(sorting.instruction)  # the answer repeats its words
    screen.await_answer()
    screen.page.reload()  # the stored answer knows its guesses, too
    screen.ready()
    by_token = screen.page.get_by_text("Tokens and prompt")
    screen.open(screen.button("Details"), by_token)
    by_token.click()
    screen.page.keyboard.press("Escape")
    screen.page.get_by_text("Guesses", exact=True).click()
    screen.page.get_by_text(re.compile(r"[\d.]+ tokens per step, \d+ % of guesses")).wait_for()
    tokens = screen.page.get_by_role("radiogroup", name="Tokens of the answer").get_by_role("radio")

    def marked() -> bool:
        style = "all => all.map(each => getComputedStyle(each).borderBottomStyle)"
        lines = tokens.evaluate_all(style)
        return 0 < lines.count("solid") < len(lines)

    eventually(marked, "some tokens with a line")
