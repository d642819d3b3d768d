"""Twenty users compare at once, with the tiny demo models and the real runtime.

Takes minutes and is therefore not collected: run ``python -m pytest`` with this file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest

from core.catalogue import Precision
from core.db import Origin
from core.hardware.devices import process_memory
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.settings import Settings
from core.ui.widgets.safe_text import safe_markdown
from tests.browser.conftest import serving
from tests.browser.screen import ENDED, Screen
from tests.browser.visitor import Visitor

VISITORS = 18
"""Users without a browser; the others of the twenty are browser tabs."""
TOKENS = 48
MOST_GROWTH = 1.1
"""Highest ratio of the memory after the second round to that after the first."""
PATIENCE_S = 240.0
SIDES = {"a": "paddock-neox", "b": "paddock-llama"}


def instructions(first_seed: int) -> list[tuple[str, int]]:
    """Return an instruction and a seed per user; no two get the same answer."""
    things = ("cat", "dog", "garden", "river", "winter", "baker", "teacher", "train", "moon", "sea")
    return [
        (f"Write a {kind} about a {thing}.", first_seed + number)
        for number, (kind, thing) in enumerate(
            (kind, thing) for kind in ("short story", "poem") for thing in things
        )
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def expected(home: Path) -> dict[tuple[str, int, str], str]:
    """Return each model's answer to each instruction and seed without other load."""
    (home / "paddock").mkdir()
    engine = Engine(Settings(home=home / "paddock"))
    found = {}
    with closing(engine):
        for model in SIDES.values():
            handle = engine.pool.handle(ModelSpec(model, Precision.INT8))
            for instruction, seed in instructions(100) + instructions(200):
                sampling = SamplingSettings(max_new_tokens=TOKENS, seed=seed)
                request = GenerationRequest(instruction, sampling=sampling)
                job = engine.answer(handle, request, origin=Origin.CLI)
                assert job.wait(PATIENCE_S) and job.answer is not None and not job.answer.error
                found[instruction, seed, model] = job.answer.text
    return found


@pytest.fixture(scope="module")
def server(home: Path, expected: object) -> Iterator[str]:
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


def page(url: str, instruction: str, seed: int) -> str:
    """Return the link to a comparison that has not been started."""
    query = urlencode({"instruction": instruction, "seed": seed, "tokens": TOKENS})
    return f"{url}/compare?{query}"


def compare(visitor: Visitor) -> dict[str, list[str]]:
    """Run the comparison and return the texts of each side."""

    def ended(side: str) -> bool:
        return any(map(ENDED.search, visitor.texts(f"answer_{side}")))

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
    expected: dict[tuple[str, int, str], str],
    open_screen: Callable[..., Screen],
) -> None:
    after = []
    for first_seed in (100, 200):
        asked = instructions(first_seed)
        tabs = [open_screen(page(server, *ask)).ready() for ask in asked[VISITORS:]]
        visitors = [Visitor(page(server, *ask)) for ask in asked[:VISITORS]]
        for tab in tabs:
            tab.page.set_default_timeout(1000 * PATIENCE_S)
            tab.page.get_by_role("button", name="Run both").click()
        with ThreadPoolExecutor(VISITORS) as people:
            cards = list(people.map(compare, visitors))
        for (instruction, seed), card in zip(asked[:VISITORS], cards, strict=True):
            for side, model in SIDES.items():
                assert safe_markdown(expected[instruction, seed, model]) in card[side]
        for (instruction, seed), tab in zip(asked[VISITORS:], tabs, strict=True):
            for side, text in compare_in_a_tab(tab).items():
                first_line = expected[instruction, seed, SIDES[side]].splitlines()[0]
                assert first_line[:40] in text
            tab.page.close()
        for visitor in visitors:
            visitor.close()
        after.append(private_bytes(server))
    assert after[1] <= MOST_GROWTH * after[0], f"private memory after each round: {after}"
