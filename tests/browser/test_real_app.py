"""The real app: every entry page, and a tiny demo model with the real runtime."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.browser.screen import FINISHED, Screen, eventually

PREPARING = re.compile("conversion libraries|checkpoint|Exporting|Compressing|Loading")
"""Any preparation step; on an idle machine the last ones are too short to be observed."""


def test_fresh_home_converts_loads_and_generates(
    serve: Callable[..., str], open_screen: Callable[..., Screen], tmp_path: Path
) -> None:
    url = serve()
    deep = open_screen(f"{url}/account")  # the first page of this server
    deep.page.get_by_role("heading", level=1, name="Account").wait_for()
    # Streamlit shows the navigation links after it has measured them.
    deep.page.get_by_role("link", name="Instruct", exact=True).wait_for()
    assert deep.page.get_by_text("Page not found").count() == 0
    assert deep.path == "/account"
    deep.page.close()

    screen = open_screen(url).ready()
    eventually(lambda: screen.url.partition("?")[0] == f"{url}/instruct", "the root leads there")
    screen.button("Life as a cat").click()
    screen.live.get_by_text(PREPARING).first.wait_for()
    screen.await_answer()
    chips = screen.answer_text()
    assert "TTFT" in chips and "tokens/s" in chips and "AUTO → CPU" in screen.details()
    with closing(sqlite3.connect(tmp_path / "paddock" / "paddock.db")) as database:
        rows = database.execute("SELECT state, new_tokens > 0 FROM runs").fetchall()
    assert rows == [("done", 1)]
    eventually(lambda: "On disk" in screen.text_of(screen.page.locator("section")), "it is kept")
    # Stored, loaded and warm: the second answer needs no preparation.
    screen.newest.get_by_role("button", name=FINISHED).click()
    screen.await_answer(2)
