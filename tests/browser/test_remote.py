"""A model of a server elsewhere beside a local one, as a person sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from core.remotes import RemoteBook
from core.settings import Settings
from tests.browser.screen import Screen, Stagehand, eventually
from tests.browser.test_compare_page import NEOX, TEXTS, CompareScreen
from tests.remotes.scripted_server import KEY, Handler, ScriptedServer, serving


@pytest.fixture
def server(scripted: Stagehand) -> Iterator[ScriptedServer]:
    """A server that the app knows as ``office``."""
    book = RemoteBook(Settings(home=scripted.home / "paddock"))
    with serving(key=KEY) as script:
        book.add("office", script.url, KEY)
        yield script
    book.remove("office")


def test_a_remote_that_dies_leaves_the_local_side_alone(
    scripted: Stagehand, open_screen: Callable[..., Screen], server: ScriptedServer
) -> None:
    half_said, go_on = threading.Event(), threading.Event()

    def die(handler: Handler) -> None:
        handler.begin()
        handler.piece("The remote says ")
        half_said.set()
        go_on.wait(60)
        handler.hang_up()

    server.answer = die
    scripted.script(TEXTS[NEOX], model=NEOX)
    link = f"{scripted.url}/compare?right_model={quote('remote:office/tiny')}&mode=race"
    compare = CompareScreen(open_screen(link), scripted).ready()
    compare.ask()
    eventually(lambda: "The remote says" in compare.text("B"), "its text so far", 60)
    assert half_said.is_set()
    go_on.set()
    broken = "broke off in the middle of the answer"
    eventually(lambda: broken in compare.text("B"), "what happened to it")
    eventually(lambda: TEXTS[NEOX] in compare.text("A"), "the other side's answer", 60)
    assert "The remote says" in compare.text("B")
    assert "on office" in compare.text("B")
    assert f"127.0.0.1:{server.port}" in compare.text("B")
    assert KEY not in compare.page.content() and KEY not in compare.page.url
