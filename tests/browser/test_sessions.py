"""Answers and settings across page switches, closed tabs and shared links."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.browser.screen import Screen, Stagehand, eventually

RAIN = "Rain is quiet. Rain is clean. Nobody else is there."


def runs(scripted: Stagehand, instruction: str) -> list[tuple[Any, ...]]:
    """Return state, text and stop reason of the recorded runs of an instruction."""
    with closing(sqlite3.connect(scripted.database)) as database:
        return database.execute(
            "SELECT state, text, stop_reason FROM runs WHERE instruction = ?", (instruction,)
        ).fetchall()


def await_run(scripted: Stagehand, instruction: str) -> tuple[Any, ...]:
    """Wait for the only run of an instruction and return it."""
    eventually(
        lambda: [state for state, *_ in runs(scripted, instruction)] == ["done"],
        "the run is recorded",
    )
    return runs(scripted, instruction)[0]


def test_page_switch_while_streaming_keeps_the_answer(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, released=12)
    screen.ask("Switch the page?")
    shown = eventually(screen.live_text, "it streams")
    screen.go_to("Models")
    eventually(lambda: screen.url.partition("?")[0].endswith("/models"), "the page is left")
    scripted.release(4)
    screen.go_to("Instruct")
    eventually(lambda: len(screen.live_text()) > len(shown), "the answer goes on")
    assert screen.live_text().startswith(shown)
    screen.go_to("Models")
    scripted.release()
    assert await_run(scripted, "Switch the page?") == ("done", RAIN, "end of text")
    screen.go_to("Instruct")
    screen.await_answer()
    assert screen.answer_text().startswith(RAIN)
    assert "Switch the page?" in screen.text_of(screen.turns.last)


def test_answer_is_shown_and_stopped_in_another_tab(
    screen: Screen, scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    scripted.script(RAIN, released=12)
    screen.ask("Open another tab?")
    shown = eventually(screen.live_text, "it streams")
    other = open_screen(f"{scripted.url}/instruct?pace=full").ready()
    eventually(lambda: other.live_text().startswith(shown), "it streams there too")
    other.page.reload()
    other.ready()
    eventually(lambda: other.live_text().startswith(shown), "after a reload, too")
    other.button("Stop").click()
    for each in (screen, other):
        each.await_answer()
        assert "Stopped" in each.answer_text()
    assert await_run(scripted, "Open another tab?")[2] == "cancelled"


def test_another_browser_does_not_see_the_conversation(
    screen: Screen, scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    screen.ask("A guest's secret?")
    screen.await_answer()
    other = open_screen(screen.url, fresh=True).ready()
    other.page.get_by_text("Your conversations are listed here.").wait_for()
    assert other.turns.count() == 0
    eventually(lambda: "conversation=" not in other.url, "the link is of no use to others")


def test_run_finishes_after_the_tab_is_closed(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    scripted.script(RAIN, released=12)
    screen = open_screen(f"{scripted.url}/instruct?pace=full").ready()
    screen.ask("Close the tab?")
    eventually(screen.live_text, "it streams")
    screen.page.close()
    scripted.release()
    assert await_run(scripted, "Close the tab?") == ("done", RAIN, "end of text")


def settings_of(screen: Screen) -> dict[str, Any]:
    """Return the values of all controls of the page."""
    page = screen.page
    screen.open_settings()
    found: dict[str, Any] = {
        name: page.get_by_role("slider", name=name).input_value()
        for name in ("Temperature", "Top-p", "Top-k", "Repetition penalty")
    }
    for name in ("Model", "Device"):
        found[name] = page.get_by_role("combobox", name=name).input_value()
    for name in ("Precision", "Display"):
        group = page.get_by_role("radiogroup", name=name)
        found[name] = group.get_by_role("radio", checked=True).inner_text()
    found["Greedy"] = page.get_by_role("switch", name="Greedy").is_checked()
    for name in ("Max new tokens", "Seed"):
        found[name] = page.get_by_role("spinbutton", name=name).input_value()
    found["Context"] = screen.text_of(screen.button("Context"))
    return found


def change_every_setting(screen: Screen) -> dict[str, Any]:
    """Change each control from its default and return the new values."""
    page = screen.page
    before = settings_of(screen)

    def linked(part: str) -> None:
        """Wait until the page followed: the next control may be drawn anew."""
        eventually(lambda: part in screen.url, f"in the link: {part}")

    for name, option in (("Model", "Paddock Llama"), ("Device", "CPU —")):
        screen.choose(
            page.get_by_role("combobox", name=name), page.get_by_role("option", name=option)
        )
        linked(f"{name.lower()}=")
    page.get_by_role("radio", name="INT4").click()
    linked("precision=")
    page.get_by_role("radio", name="Reading pace").click()
    linked("pace=reading")
    sliders = {"Temperature": "temperature", "Top-p": "top_p", "Top-k": "top_k"}
    for name, parameter in (sliders | {"Repetition penalty": "penalty"}).items():
        page.get_by_role("slider", name=name).press("ArrowRight")
        page.get_by_role("slider", name=name).press("ArrowRight")
        linked(f"{parameter}=")
    for name, value in (("Max new tokens", "258"), ("Seed", "4294967295")):
        page.get_by_role("spinbutton", name=name).fill(value)
        page.get_by_role("spinbutton", name=name).press("Enter")
        linked(f"={value}")
    screen.open(screen.button("Context"), screen.context_box)
    screen.context_box.fill("Opening hours: 9 & 17 # ü\nSecond line")
    screen.context_box.press("Control+Enter")
    linked("context=")
    page.keyboard.press("Escape")

    def unchanged() -> list[str]:
        after = settings_of(screen)
        return [name for name in before if before[name] == after[name]]

    eventually(lambda: unchanged() == ["Greedy"], "every other one is changed")
    return settings_of(screen.settled())


def test_settings_survive_a_page_switch_and_a_link_reproduces_them(
    screen: Screen, open_screen: Callable[..., Screen]
) -> None:
    wanted = change_every_setting(screen)
    link = screen.url
    screen.go_to("Account")
    screen.composer.wait_for(state="detached")
    screen.go_to("Instruct")
    screen.ready()
    eventually(lambda: settings_of(screen) == wanted, "the settings are back")
    eventually(lambda: parameters(screen.url) == parameters(link), "so is the link")

    other = open_screen(link, fresh=True).ready()
    eventually(lambda: settings_of(other) == wanted, "the other page is set up the same")
    # Greedy disables other controls, so it is tested last.
    other.page.get_by_text("Greedy", exact=True).click()
    eventually(lambda: "greedy=" in other.settled().url, "in the link")
    third = open_screen(other.url, fresh=True).ready()
    greedy = wanted | {"Greedy": True}
    eventually(lambda: settings_of(third) == greedy, "the third page too")


def parameters(url: str) -> set[str]:
    return set(url.partition("?")[2].split("&"))


def test_instruction_of_a_link_is_put_into_the_composer(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    link = f"{scripted.url}/instruct?pace=full&instruction=Why+50%25%3F&context=Rain"
    screen = open_screen(link).ready()
    eventually(lambda: screen.composer.input_value() == "Why 50%?", "it is in the composer")
    screen.button("Context: 4 characters").wait_for()
    eventually(lambda: "instruction=" not in screen.url, "it is not kept in the URL")
    screen.composer.press("Enter")
    screen.await_answer()
    assert "Why 50%?\n\nInput:\nRain\n\n" in scripted.state()["prompts"][0]
