"""Twenty users compare at once, with the tiny demo models and the real runtime.

Takes minutes and is therefore not collected: run ``python -m pytest`` with this file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest

from core.hardware.devices import process_memory
from tests.browser.conftest import serving
from tests.browser.own_facts import answers_in, instruction
from tests.browser.screen import ENDED, Screen
from tests.browser.visitor import Visitor

VISITORS = 18
"""Users without a browser."""
TABS = 2
"""Users with a browser tab."""
TOKENS = 64
MOST_GROWTH = 1.1
"""Highest ratio of the memory after the second round to that after the first."""
PATIENCE_S = 240.0
SIDES = ("a", "b")
"""The embedded models, which the page selects by itself."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    with serving("streamlit_app.py", home) as url:
        yield url


def private_bytes(url: str) -> int:
    """Return the private memory of the server with this URL."""
    port = url.rpartition(":")[2]
    found = [
        child.pid
        for child in psutil.process_iter(["cmdline"])
        if port in (child.info["cmdline"] or ()) and "streamlit.web.cli" in child.info["cmdline"]
    ]
    (pid,) = found
    return process_memory(pid).private_bytes


def page(url: str, number: int) -> str:
    """Return the link to a comparison that has not been started."""
    query = urlencode({"instruction": instruction(number), "greedy": "true", "tokens": TOKENS})
    return f"{url}/compare?{query}"


def compare(visitor: Visitor) -> dict[str, list[str]]:
    """Run the comparison and return the texts of each side."""

    def ended(side: str) -> bool:
        texts = visitor.texts(f"answer_{side}")  # the figures are drawn before the answer
        return any(map(ENDED.search, texts)) and bool(answers_in(" ".join(texts)))

    visitor.click("Run both")
    visitor.until(lambda: all(map(ended, SIDES)), "it ends", PATIENCE_S)
    assert not visitor.failures
    return {side: visitor.texts(f"answer_{side}") for side in SIDES}


def compare_in_a_tab(screen: Screen) -> dict[str, str]:
    """Wait for a comparison in a browser and return the text of each side."""
    cards = {side: screen.page.locator(f".st-key-answer_{side}") for side in SIDES}
    for card in cards.values():
        card.get_by_text(ENDED).wait_for(timeout=1000 * PATIENCE_S)
    return {side: screen.text_of(card) for side, card in cards.items()}


def test_twenty_users_get_their_own_answers_without_memory_growth(
    server: str,
    open_screen: Callable[..., Screen],
) -> None:
    after = []
    for first in (0, VISITORS + TABS):
        numbers = range(first, first + VISITORS + TABS)
        tabs = [open_screen(page(server, number)) for number in numbers[VISITORS:]]
        visitors = [Visitor(page(server, number)) for number in numbers[:VISITORS]]
        for tab in tabs:
            tab.page.set_default_timeout(1000 * PATIENCE_S)
            tab.page.get_by_role("button", name="Run both").click()
        with ThreadPoolExecutor(VISITORS) as people:
            cards = [
                {side: " ".join(texts) for side, texts in sides.items()}
                for sides in people.map(compare, visitors)
            ]
        cards += map(compare_in_a_tab, tabs)
        for number, sides in zip(numbers, cards, strict=True):
            for side in SIDES:
                assert answers_in(sides[side]) == [number], sides[side]
        for tab in tabs:
            tab.page.close()
        for visitor in visitors:
            visitor.close()
        after.append(private_bytes(server))
    assert after[1] <= MOST_GROWTH * after[0], f"private memory after each round: {after}"
