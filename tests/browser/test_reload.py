"""Conversations survive a reload of the page and a stop of the server."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psutil

from tests.browser.conftest import free_port, serving
from tests.browser.screen import Screen, Stagehand, eventually
from tests.browser.test_compare_page import LLAMA, NEOX, TEXTS, CompareScreen

RAIN = "Rain falls on the roof. It is quiet in the house, and nobody goes out."


def test_finished_answer_survives_a_reload(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN)
    screen.ask("What does it do?")
    screen.await_answer()
    screen.page.reload()
    screen.ready()
    eventually(lambda: RAIN in screen.page.inner_text("body"), "the answer")


def test_running_answer_survives_a_reload(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, released=8)
    screen.ask("What does it do?")
    begun = eventually(screen.live_text, "it streams")
    screen.page.reload()
    screen.ready()
    try:
        eventually(lambda: begun in screen.page.inner_text("body"), "its text so far")
    finally:
        scripted.release()
    eventually(lambda: RAIN in screen.page.inner_text("body"), "the whole answer")


def test_killed_server_leaves_the_conversation_with_an_interrupted_answer(
    open_screen: Callable[..., Screen], tmp_path: Path
) -> None:
    port, app = free_port(), "tests/browser/app_with_scripted_runtime.py"
    with serving(app, tmp_path, port=port) as url:
        scripted = Stagehand(url, tmp_path)
        screen = open_screen(f"{url}/instruct?pace=full", fresh=True).ready()
        screen.ask("What does it do?")
        screen.await_answer()
        scripted.script(RAIN, released=8)
        screen.ask("And in the middle?")
        eventually(lambda: scripted.state()["tokens"] == 8, "eight tokens came")
        begun = eventually(lambda: stored_text(scripted, screen.live_text()), "they are stored")
        link = screen.url
        screen.page.goto("about:blank")  # the page must not look for a stopped server
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # other children may end meanwhile
                if str(port) in child.cmdline():
                    child.kill()
    with serving(app, tmp_path, port=port):
        screen.page.goto(link)
        screen.ready().await_answer(2)
        eventually(lambda: screen.answer_text().startswith(begun), "what was written is kept")
        assert "The server was stopped before this answer ended." in screen.answer_text()
        assert screen.newest.get_by_role("button", name="Continue").count() == 1
        assert "A short answer." in screen.text_of(screen.entries.first)
        screen.newest.get_by_role("button", name="Regenerate").click()
        screen.await_answer(3)
        assert screen.answer_text().startswith("A short answer.")
        screen.page.goto("about:blank")


def stored_text(scripted: Stagehand, shown: str) -> str:
    """Return the text that is shown of the newest answer if it is stored; empty if it is not."""
    with closing(sqlite3.connect(scripted.database)) as database:
        (text,) = database.execute("SELECT text FROM exchanges ORDER BY asked_at DESC").fetchone()
    return shown if shown == text else ""


def test_conversations_are_listed_searched_renamed_and_deleted(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    screen = open_screen(f"{scripted.url}/instruct?pace=full", fresh=True).ready()
    screen.ask("A question about rain?")
    screen.await_answer()
    screen.button("New conversation").click()
    screen.page.get_by_role("heading", name="Give a model an instruction").wait_for()
    scripted.script(RAIN)
    screen.ask("Something else?")
    screen.await_answer()
    listed = screen.page.locator('[class*="st-key-open_"]')
    eventually(lambda: listed.count() == 2, "both are listed")
    screen.page.get_by_placeholder("Search").fill("roof")  # only in an answer
    screen.page.get_by_placeholder("Search").press("Enter")
    eventually(lambda: listed.all_inner_texts() == ["Something else?"], "one is found")
    screen.page.get_by_placeholder("Search").fill("")
    screen.page.get_by_placeholder("Search").press("Enter")
    screen.button("A question about rain").click()
    eventually(lambda: "A question about rain?" in screen.text_of(screen.turns.last), "it opens")
    title = screen.page.get_by_role("textbox", name="Title")
    screen.open(screen.button("This conversation"), title)
    title.fill("Weather")
    title.press("Enter")
    eventually(lambda: "Weather" in listed.all_inner_texts(), "it is renamed")
    other = screen.page.context.new_page()
    other.goto(screen.url)
    other.get_by_test_id("stChatInputTextArea").wait_for()
    screen.page.get_by_role("button", name="Delete conversation").click()
    eventually(lambda: listed.all_inner_texts() == ["Something else?"], "it is deleted")
    eventually(lambda: screen.turns.count() == 0, "it is not shown any more")
    second = Screen(other)
    second.ask("Is it still there?")
    second.page.get_by_text("This conversation was deleted").wait_for()
    eventually(lambda: second.composer.input_value() == "Is it still there?", "it is put back")


def test_comparison_survives_reloads(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    for model in (NEOX, LLAMA):
        scripted.script(TEXTS[model], model=model, released=6)
    link = f"{scripted.url}/compare?mode=race&left_model={NEOX}&right_model={LLAMA}"
    compare = CompareScreen(open_screen(link), scripted).ready()
    compare.ask()
    for side in "AB":
        compare.side(side).get_by_text("Rain").wait_for()
    compare.page.reload()
    compare.ready()
    for side in "AB":
        compare.side(side).get_by_text("Rain").wait_for()
    compare.stop("Stop A")
    compare.side("A").get_by_text("ended: cancelled").wait_for()
    assert scripted.state(LLAMA)["running"] == 1
    scripted.release(model=LLAMA)
    compare.await_end()
    compare.page.reload()
    compare.ready()
    eventually(lambda: TEXTS[LLAMA] in compare.text("B"), "the answers")
    assert "ended: cancelled" in compare.text("A")
