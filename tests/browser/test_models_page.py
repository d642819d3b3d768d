"""The Models page in Chromium: conversion, download, narrow window."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import TimeoutError

from core.catalogue import Precision
from tests.browser.screen import REOPEN_MS, Screen, Stagehand, eventually
from tests.builders import tiny_checkpoint
from tests.store.hub_server import Hub

if TYPE_CHECKING:
    from playwright.sync_api import Locator

TOKEN = "hf_aTokenThatNobodyMaySee"


def tasks(screen: Screen) -> Locator:
    return screen.page.locator(".st-key-tasks")


def row(screen: Screen, key: str) -> Locator:
    return screen.page.locator(f".st-key-model_{key}")


def drawer(screen: Screen) -> Locator:
    return screen.page.get_by_role("dialog")


def close(screen: Screen) -> None:
    def closed() -> bool:  # a click while the drawer is drawn may have no effect
        with suppress(TimeoutError):
            drawer(screen).get_by_role("button", name="Close").click(timeout=REOPEN_MS)
            drawer(screen).wait_for(state="detached", timeout=REOPEN_MS)
        return drawer(screen).count() == 0

    eventually(closed, "the drawer is closed")


def settled(screen: Screen) -> None:
    """Wait until a finished task and the page are drawn."""
    tasks(screen).get_by_text("elapsed").wait_for(state="detached")
    screen.settled()


def start(screen: Screen, precision: str, verb: str = "Convert to") -> None:
    """Select a precision in the open drawer and click the button."""
    drawer(screen).get_by_role("radio", name=precision).click()
    drawer(screen).get_by_role("button", name=f"{verb} {precision}").wait_for()
    screen.settled()  # a click may have no effect while the drawer is drawn
    drawer(screen).get_by_role("button", name=f"{verb} {precision}").click()


def test_convert_try_and_delete(
    serve: Callable[..., str], open_screen: Callable[..., Screen]
) -> None:
    app = serve()
    screen = open_screen(f"{app}/models")
    # By the keyboard, and back to where it was.
    name = row(screen, "paddock-neox").get_by_role("button", name="Paddock NeoX", exact=False).first
    screen.settled()  # a key may have no effect while the page is drawn
    name.press("Enter")
    drawer(screen).get_by_text("Requirements on this machine").wait_for()
    eventually(lambda: "open=paddock-neox" in screen.url, "the URL is updated")

    def escaped() -> bool:  # a key may have no effect while the drawer is drawn
        screen.settled().page.keyboard.press("Escape")
        with suppress(TimeoutError):
            drawer(screen).wait_for(state="detached", timeout=REOPEN_MS)
        return drawer(screen).count() == 0

    eventually(escaped, "the drawer is closed")
    eventually(lambda: "open=" not in screen.url, "the URL is updated")
    screen.settled()
    row(screen, "paddock-neox").get_by_role("button", name="Get Paddock NeoX").click()
    start(screen, "INT4")
    close(screen)

    # It is shown, also after a reload.
    tasks(screen).get_by_text("Convert Paddock NeoX").first.wait_for()
    eventually(lambda: "open=" not in screen.url, "the URL is updated")
    screen.page.reload()
    tasks(screen).get_by_text("Convert Paddock NeoX").first.wait_for()
    tasks(screen).get_by_text("done in").wait_for()

    # The result.
    result = screen.page.locator(".st-key-stored_paddock-neox_int4")
    row(screen, "paddock-neox").get_by_text("✓ INT4").wait_for()
    name.click()
    more = screen.page.get_by_test_id("stPopoverBody")
    about = result.get_by_role("button", name="More about Paddock NeoX 3M (tiny demo) INT4")
    screen.open(about, more.get_by_text("Formats of the"))
    shown = screen.text_of(more)
    for word in ("Weights before", "Compression", "Peak memory", "Formats of the"):
        assert word in shown
    assert re.search(r"\d\.\d\d ×", shown)
    more.get_by_text(re.compile(r"INT4 · \d")).first.wait_for()
    screen.page.keyboard.press("Escape")

    # Try it.
    result.get_by_role("link", name="Try it").click()
    screen.ready()
    eventually(lambda: "precision=int4" in screen.url, "it is selected")
    assert screen.path == "/instruct"
    screen.ask("Name three advantages of being a cat.")
    screen.await_answer()
    assert screen.answer_text()
    assert "INT4" in screen.details()

    # It is loaded now, but idle, and can be deleted.
    screen.go_to("Models")
    screen.page.locator(".st-key-in_memory").wait_for()
    name_of_it = "Paddock NeoX 3M (tiny demo) INT4"
    result.get_by_role("button", name=f"Delete {name_of_it}").click()
    screen.page.get_by_text("This frees").wait_for()
    screen.page.get_by_role("button", name=f"Delete it {name_of_it}").click()
    screen.page.get_by_text(" freed.").wait_for()
    result.wait_for(state="detached")


@pytest.mark.long
def test_a_link_to_another_model_replaces_the_selected_one(
    serve: Callable[..., str],
    open_screen: Callable[..., Screen],
    put_demo: Callable[..., None],
    tmp_path: Path,
) -> None:
    """The Instruct page of the session has another model selected when **Try it** is clicked."""
    put_demo(tmp_path / "paddock", Precision.FP16, model="paddock-llama")
    url = serve()
    screen = open_screen(f"{url}/instruct?tokens=12").ready()
    assert "model=" not in screen.url
    screen.go_to("Models")
    row(screen, "paddock-llama").get_by_role("link", name="Try it").click()
    screen.ready()
    eventually(lambda: "precision=fp16" in screen.url, "its precision is in the link")
    assert "model=paddock-llama" in screen.url
    chosen = screen.page.get_by_role("radio", name="FP16")
    eventually(chosen.is_checked, "the precision is selected")
    assert "tokens=12" in screen.url, "settings that are not in the link are kept"


@pytest.mark.long
def test_download_stop_and_resume(
    serve: Callable[..., str], open_screen: Callable[..., Screen], tmp_path: Path
) -> None:
    with Hub() as hub:
        hub.add("acme/tiny", tiny_checkpoint("llama", tmp_path / "tiny"), gated=True, token=TOKEN)
        url = serve(HF_ENDPOINT=hub.url)
        screen = open_screen(f"{url}/models").settled()
        box = screen.page.get_by_role("textbox", name="Hugging Face id, folder or GGUF file")
        screen.open(screen.button("Add a model"), box)
        screen.settled()
        box.fill("acme/tiny")
        screen.open(screen.button("Look up"), drawer(screen).get_by_text("gated").first)

        # Without a token the Hub refuses, and the error says what to do.
        start(screen, "INT8", "Download and convert to")
        close(screen)
        refusal = tasks(screen).get_by_role("alert")
        refusal.wait_for()
        assert "Accept its licence" in screen.text_of(refusal)

        # With a token the download starts, slowly, and is stopped.
        hub.delay(0.1)
        screen.button("Hugging Face access").click()
        screen.page.get_by_role("textbox", name="Access token").fill(TOKEN)
        screen.page.keyboard.press("Enter")
        screen.page.get_by_text("The token entered here is used").wait_for()
        screen.page.keyboard.press("Escape")
        tasks(screen).get_by_role("button", name="Try again").click()
        tasks(screen).get_by_text(re.compile(r"\d kB/s")).wait_for()
        tasks(screen).get_by_role("button", name="Stop").click()
        tasks(screen).get_by_text("downloaded files are kept").wait_for()
        settled(screen)

        # It resumes from there.
        hub.heal()
        before = len(hub.fetched(".safetensors"))
        tasks(screen).get_by_role("button", name="Resume").click()
        tasks(screen).get_by_text("done in").wait_for()
        again = hub.fetched(".safetensors")[before:]
        assert [request.range is not None for request in again] == [True]
        assert TOKEN not in screen.page.content() and TOKEN not in screen.url
    log = (tmp_path / "server.log").read_text(errors="replace")
    kept = [path for path in (tmp_path / "paddock").rglob("*") if path.is_file()]
    assert kept and TOKEN not in log
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]


def test_a_narrow_window_needs_no_sideways_scrolling(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    screen = open_screen(
        f"{scripted.url}/models?open=dolly-v2-3b&search=dolly+3b",
        viewport={"width": 400, "height": 900},
    )
    where = drawer(screen)
    where.get_by_role("button", name="Download and convert to INT8").wait_for()
    screen.settled()
    scores = where.get_by_text("OpenBookQA").first
    screen.open(where.get_by_text("Facts, limits and scores"), scores)
    width, inner = screen.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner
    table = where.get_by_test_id("stTable")
    for column in ("Precision", "Status"):
        box = table.get_by_text(column, exact=True).bounding_box()
        assert box and box["x"] + box["width"] <= inner, "the first columns are in view"
    close(screen)
    box = row(screen, "dolly-v2-3b").bounding_box()
    assert box and box["x"] + box["width"] <= inner and box["height"] < 130, "a row is compact"
