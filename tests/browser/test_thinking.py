"""Thinking models on the page: a real tiny model, and a server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from core.catalogue import Precision
from core.remotes import RemoteRegistry
from core.settings import Settings
from core.store import ModelStore, resolve
from tests.browser.conftest import serving
from tests.browser.screen import Screen, eventually
from tests.builders import thinking_checkpoint
from tests.remotes.scripted_server import Handler
from tests.remotes.scripted_server import serving as serving_remote

THOUGHTS, ANSWER = "Rain begins as vapour.", "Clouds hold it!"
SUMMARY = re.compile(r"Thought for [\d.]+ m?s · \d+ tokens")
MARKERS = (["<think>"], ["</think>"])


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory, browser: object) -> object:
    """Run the real app with a thinking model, and yield its URL, the model's folder and its own."""
    home = tmp_path_factory.mktemp("thinking")
    folder = thinking_checkpoint(home / "thinker", MARKERS, special=True)
    ModelStore(Settings(home=home / "paddock")).ensure(resolve(str(folder)), Precision.FP32)
    with serving("streamlit_app.py", home) as url:
        yield url, folder, home


def newest_thoughts(screen: Screen) -> str:
    """Open the thoughts of the newest answer and return their text."""
    summary = screen.newest.get_by_text(SUMMARY)
    summary.wait_for()
    assert not screen.newest.get_by_text(THOUGHTS).is_visible(), "they are folded"
    summary.click()
    screen.newest.get_by_text(THOUGHTS).wait_for()
    return screen.text_of(summary)


def test_thinking_model(
    thinking: tuple[str, Path, Path], open_screen: Callable[..., Screen]
) -> None:
    url, folder, _ = thinking
    link = f"{url}/instruct?model={quote(str(folder))}&precision=fp32&greedy=true"
    screen = open_screen(f"{link}&tokens=4").ready()
    screen.ask("Where is rain made?")  # the thoughts are not closed
    screen.newest.get_by_text("All 4 new tokens went into thinking.").wait_for()
    screen.settled()
    assert "0 tokens" in screen.answer_text()
    screen.newest.get_by_role("button", name="More tokens").click()
    screen.await_answer(2)
    marks = sum(map(len, MARKERS))
    assert newest_thoughts(screen).endswith(f"· {5 + marks} tokens"), "counted apart"
    assert re.search(rf"{ANSWER}.*\D5 tokens", screen.answer_text(), re.DOTALL), "with the end"
    code = screen.page.get_by_test_id("stPopoverBody").get_by_test_id("stCode")
    screen.open(screen.newest.get_by_role("button", name="Copy"), code)
    eventually(lambda: screen.text_of(code) == ANSWER, "the text to copy")
    screen.page.keyboard.press("Escape")
    screen.page.reload()
    screen.ready().await_answer(2)
    newest_thoughts(screen)  # they are stored
    screen.page.get_by_text("Thinking", exact=True).click()
    screen.ask("And now at once?")
    screen.await_answer(3)
    assert screen.answer_text().startswith(ANSWER)
    assert screen.newest.get_by_text(SUMMARY).count() == 0


def test_thoughts_of_a_server(
    thinking: tuple[str, Path, Path], open_screen: Callable[..., Screen]
) -> None:
    url, _, home = thinking

    def think(handler: Handler) -> None:
        handler.begin()
        for field in ("reasoning_content", "content"):
            for text in (THOUGHTS if field == "reasoning_content" else ANSWER).split(" "):
                delta = {field: f"{text} "}
                handler.send(json.dumps({"choices": [{"index": 0, "delta": delta}]}))
        handler.piece(finish="stop")
        usage = {"prompt_tokens": 70, "completion_tokens": 7}
        usage["prompt_tokens_details"] = {"cached_tokens": 64}
        handler.send(json.dumps({"choices": [], "usage": usage}))
        handler.end()

    with serving_remote(answer=think) as server:
        RemoteRegistry(Settings(home=home / "paddock")).add("office", server.url)
        screen = open_screen(f"{url}/instruct?model={quote('remote:office/tiny')}").ready()
        for number in (1, 2):
            screen.ask("Where is rain made?")
            screen.await_answer(number)
            assert newest_thoughts(screen).endswith("· 4 tokens")
            assert re.search(rf"{ANSWER}.*\D3 tokens", screen.answer_text(), re.DOTALL)
        assert "70 tokens, 64 of them from the prefix cache" in screen.details()
        sent = [message["content"].strip() for message in server.requests[1]["messages"]]
        assert sent == ["Where is rain made?", ANSWER, "Where is rain made?"]
        RemoteRegistry(Settings(home=home / "paddock")).remove("office")
