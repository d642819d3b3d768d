"""Actions on finished answers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from markdown_it import MarkdownIt

from tests.browser.screen import Screen, Stagehand, eventually

TRICKY = "Use `x` and $y$ in *this*:\n\n```\ncode\n```\n| not a table"


def recorded(scripted: Stagehand, instruction: str) -> int:
    """Return the number of recorded runs of an instruction."""
    with closing(sqlite3.connect(scripted.database)) as database:
        (count,) = database.execute(
            "SELECT count(*) FROM runs WHERE instruction = ?", (instruction,)
        ).fetchone()
        return count


def download(screen: Screen, button: str, folder: Path) -> str:
    """Return the text of the file that a button downloads."""
    with screen.page.expect_download() as started:
        screen.page.get_by_role("button", name=button).click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path.read_text(encoding="utf-8")


def delete_newest(screen: Screen) -> None:
    """Delete the newest finished answer."""
    delete = screen.page.get_by_role("button", name="Delete")
    screen.open(screen.newest.get_by_role("button", name="More"), delete)
    delete.click()


def test_regenerate_runs_the_same_request_with_a_new_seed(
    screen: Screen, scripted: Stagehand
) -> None:
    scripted.script("First answer.")
    screen.ask("Regenerate this?")
    screen.await_answer()
    screen.composer.fill("Something else in the box")
    scripted.release()
    screen.newest.get_by_role("button", name="Regenerate").click()
    screen.await_answer(2)
    state = scripted.state()
    assert state["prompts"][0] == state["prompts"][1]
    assert state["seeds"][0] != state["seeds"][1]
    assert screen.composer.input_value() == "Something else in the box"


def test_copy_gives_the_text_as_the_model_wrote_it(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    scripted.script(TRICKY)
    screen = open_screen(
        f"{scripted.url}/instruct?pace=full", permissions=["clipboard-read", "clipboard-write"]
    ).ready()
    screen.ask("Copy this?")
    screen.await_answer()
    code = screen.page.get_by_test_id("stPopoverBody").get_by_test_id("stCode")
    screen.open(screen.newest.get_by_role("button", name="Copy"), code)
    code.hover()
    code.get_by_role("button").click()
    copied = eventually(lambda: screen.page.evaluate("navigator.clipboard.readText()"), "it copied")
    assert copied == TRICKY


def test_delete_removes_an_answer_from_page_and_database(
    screen: Screen, scripted: Stagehand
) -> None:
    screen.ask("Keep this?")
    screen.await_answer()
    screen.ask("Delete this?")
    screen.await_answer(2)
    assert recorded(scripted, "Delete this?") == 1
    delete_newest(screen)
    eventually(lambda: screen.entries.count() == 1, "it is gone from the page")
    eventually(lambda: "Keep this?" in screen.text_of(screen.turns.last), "the other is kept")
    assert recorded(scripted, "Delete this?") == 0
    assert recorded(scripted, "Keep this?") == 1


def test_delete_while_another_answer_streams(screen: Screen, scripted: Stagehand) -> None:
    screen.ask("Old?")
    screen.await_answer()
    scripted.script("A new answer.", released=3)
    screen.ask("New?")
    shown = eventually(screen.live_text, "the new one streams")
    delete_newest(screen)
    eventually(lambda: screen.entries.count() == 0, "the old one is gone")
    assert eventually(screen.live_text, "the new one is there").startswith(shown)
    scripted.release()
    screen.await_answer()
    assert screen.answer_text().startswith("A new answer.")


def test_export_of_one_and_of_all(screen: Screen, scripted: Stagehand, tmp_path: Path) -> None:
    scripted.script(TRICKY)
    screen.ask("First ``` question?")
    screen.await_answer()
    screen.ask("Second question?")
    screen.await_answer(2)
    as_json = screen.page.get_by_role("button", name="JSON")
    screen.open(screen.newest.get_by_role("button", name="More"), as_json)
    (one,) = json.loads(download(screen, "JSON", tmp_path))
    assert (one["instruction"], one["answer"]["text"]) == ("Second question?", TRICKY)
    assert one["answer"]["stop_reason"] == "end of text"
    assert one["versions"]["openvino"] and one["host"]["cpu"]
    screen.page.keyboard.press("Escape")
    as_json.wait_for(state="hidden")
    screen.open(screen.button("This conversation"), as_json)
    both = download(screen, "Markdown", tmp_path)
    fences = [t.content.strip() for t in MarkdownIt().parse(both) if t.type == "fence"]
    assert fences == ["First ``` question?", TRICKY, "Second question?", TRICKY]
    assert len(json.loads(download(screen, "JSON", tmp_path))) == 2
