"""Text from a model or a link is shown, and nothing in it becomes active."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from core.remotes import RemoteRegistry
from core.settings import Settings
from tests.browser.conftest import serving
from tests.browser.screen import Screen, Stagehand, eventually
from tests.browser.test_compare_page import CompareScreen
from tests.hostile import ACTIVE, HOSTILE
from tests.remotes.scripted_server import KEY
from tests.remotes.scripted_server import serving as serving_answers

ENDINGS = {
    "unclosed fence": "\n\n```python\nprint('$x$ <b> ![f](http://evil.example/f.png)')",
    "unclosed backtick": "\n\nan `open tick ![g](http://evil.example/g.png) $x$",
    "unclosed link": "\n\n![h](http://evil.example/h",
}
VISIBLE = (
    "![a](http://evil.example/i.png)",
    '<img src="http://evil.example/h.png" onerror="alert(1)">',
    "<script>alert(2)</script>",
    "[click](javascript:alert(4))",
    "$x^2$ or $$y$$",
    ":red[colour] :material/home: :blue-badge[badge]",
)

COLOURED = (
    "[class*='stMarkdown'], [role='img'], streamlit-help-icon, [style*='color'], "
    "[style*='font']:not(:empty)"
)
"""An empty element is the divider of :mod:`core.ui.widgets.safe_text`."""
DIRECTIVES = ", ".join(f"{one}:not(pre *)" for one in COLOURED.split(", "))
EMOJIS = "👋", "👎"


def watch(selector: str) -> str:
    """Return a script that records each element in a text that matches, even for a moment."""
    return """
window.seenActive = [];
new MutationObserver(changes => {
  const inText = '[data-testid="stMarkdownContainer"], [data-testid="stCaptionContainer"]';
  for (const change of changes) for (const node of change.addedNodes) {
    if (!node.querySelectorAll) continue;
    for (const found of [node, ...node.querySelectorAll('*')])
      if (found.matches(SELECTOR) && found.parentElement?.closest(inText))
        window.seenActive.push(found.outerHTML.slice(0, 200));
  }
}).observe(document, {childList: true, subtree: true});
""".replace("SELECTOR", json.dumps(selector))


@pytest.fixture
def watched(scripted: Stagehand, open_screen: Callable[..., Screen]) -> Screen:
    """Return a page that records each active element in a text, even for a moment."""
    screen = open_screen("about:blank", fresh=True)
    screen.page.add_init_script(watch(ACTIVE))
    screen.page.goto(f"{scripted.url}/instruct?pace=full")
    return screen.ready()


@pytest.fixture(scope="module")
def hostile_server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the app that draws hostile texts."""
    with serving(
        "tests/browser/app_with_hostile_texts.py", tmp_path_factory.mktemp("texts")
    ) as url:
        yield url


@pytest.fixture
def texts(hostile_server: str, open_screen: Callable[..., Screen]) -> Callable[[str], Screen]:
    """Return a function that opens a page with hostile texts only."""

    def open_it(query: str) -> Screen:
        screen = open_screen("about:blank", fresh=True)
        screen.page.add_init_script(watch(f"{ACTIVE}, {DIRECTIVES}"))
        screen.page.goto(f"{hostile_server}/?{query}")
        screen.page.get_by_text("Drawing finished.").wait_for()
        screen.page.wait_for_timeout(500)
        return screen

    return open_it


def assert_harmless(screen: Screen) -> None:
    """Check that no text contains or contained an active element."""
    assert screen.page.evaluate("window.seenActive") == []
    within = "[data-testid='stMarkdownContainer'], [data-testid='stCaptionContainer']"
    assert screen.page.locator(f":is({within}) :is({ACTIVE})").count() == 0
    assert screen.outside == []
    assert screen.errors == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_hostile_output_is_harmless_while_it_streams_and_after(
    watched: Screen, scripted: Stagehand, ending: str
) -> None:
    scripted.script(HOSTILE + ENDINGS[ending], tokens_per_s=300)
    watched.open_settings()
    tokens = watched.page.get_by_role("spinbutton", name="Max new tokens")
    tokens.fill("1000")
    tokens.press("Enter")
    eventually(lambda: "tokens=1000" in watched.url, "the setting is taken")
    watched.ask("Be hostile.")
    eventually(lambda: "evil" in watched.live_text(), "it streams")
    assert_harmless(watched)
    watched.await_answer()
    assert_harmless(watched)
    shown = watched.answer_text()
    for text in VISIBLE:
        assert text in shown
    # The actions are below the answer.
    watched.page.get_by_role("button", name="Regenerate").wait_for()
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert watched.page.evaluate(wide), "a long word makes the page scroll sideways"


def test_a_hostile_instruction_and_context_are_harmless(
    watched: Screen, scripted: Stagehand
) -> None:
    watched.button("Context").click()
    watched.context_box.fill(HOSTILE)
    watched.context_box.press("Control+Enter")
    watched.button("Context: ").wait_for()
    watched.page.keyboard.press("Escape")
    watched.ask(HOSTILE)
    watched.await_answer()
    assert_harmless(watched)
    shown = watched.text_of(watched.turns.last)
    for text in VISIBLE:
        assert text in shown
    assert HOSTILE.strip() in scripted.state()["prompts"][0]


def test_ordinary_markdown_stays(screen: Screen, scripted: Stagehand) -> None:
    scripted.script("# Title\n\n- **bold**\n\n|a|b|\n|-|-|\n|1|2|\n\n```python\nx = 1\n```\n")
    screen.ask("Format.")
    screen.await_answer()
    answer = screen.newest
    assert answer.locator("pre code").inner_text().strip() == "x = 1"
    assert answer.locator("h1").inner_text() == "Title"
    assert answer.locator("li strong").inner_text() == "bold"
    assert answer.locator("td").all_inner_texts() == ["1", "2"]


def test_random_hostile_texts_are_harmless(texts: Callable[[str], Screen]) -> None:
    screen = texts("seed=0&count=150")
    assert_harmless(screen)
    shown = screen.page.get_by_test_id("stMain").inner_text()
    assert not any(emoji in shown for emoji in EMOJIS)


def test_random_hostile_texts_are_harmless_while_streaming(texts: Callable[[str], Screen]) -> None:
    assert_harmless(texts("seed=1000&count=30&live=1"))


QUESTION = "~~~\rx\r~~~\r[Sign in again](http://evil.example/x) $x^2$ :red[hi]"


def test_a_shared_link_with_carriage_returns_is_harmless(
    watched: Screen, scripted: Stagehand
) -> None:
    scripted.script("Hello.")
    watched.page.goto(f"{scripted.url}/instruct?pace=full&instruction={quote(QUESTION, safe='')}")
    watched.ready().composer.press("Enter")
    watched.await_answer()
    assert_harmless(watched)
    assert "[Sign in again](http://evil.example/x) $x^2$ :red[hi]" in watched.text_of(
        watched.turns.last
    )


@pytest.mark.long
def test_a_remote_answer_with_carriage_returns_is_harmless(
    watched: Screen, scripted: Stagehand
) -> None:
    answer = "```\r\ncode\r\n```\r\nAfter ![i](http://evil.example/i.png) [l](http://evil.example/)"
    end = "\r\n\r\n~~~\rcode\r~~~\rAfter $x^2$ :red[hi] <http://evil.example/auto>\n"
    book = RemoteRegistry(Settings(home=scripted.home / "paddock"))
    with serving_answers(key=KEY) as server:
        pieces = list(answer + end)  # each line ending is split
        server.answer = lambda handler: handler.stream(pieces)
        book.add("hostile", server.url, KEY)
        try:
            model = quote("remote:hostile/tiny", safe="")
            watched.page.goto(f"{scripted.url}/instruct?pace=full&model={model}")
            watched.ready().ask("Be hostile.")
            watched.await_answer()
            assert_harmless(watched)
            code = watched.newest.locator("pre code")  # whose part of Streamlit is loaded late
            eventually(lambda: code.all_inner_texts() == ["code", "code"], "both blocks of code")
            for text in ("![i](http://evil.example/i.png)", "$x^2$ :red[hi]"):
                assert text in watched.answer_text()
            watched.page.goto(f"{scripted.url}/compare?left_model={model}&right_model={model}")
            compare = CompareScreen(watched, scripted).ready()
            compare.ask()
            for side in "AB":
                eventually(lambda side=side: "$x^2$ :red[hi]" in compare.text(side), side)
            assert_harmless(watched)
        finally:
            book.remove("hostile")
