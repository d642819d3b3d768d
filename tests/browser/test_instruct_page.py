"""Instruct page in a browser: from an instruction to a streamed answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from tests.browser.screen import Line, Screen, Stagehand, eventually

RAIN = "Rain is quiet. Rain is clean. Nobody else is there."
AT_ONCE_S = 3.0
"""Time limit for Stop to take effect; an idle machine needs less than 0.5 s."""


def test_answer_streams_and_ends_with_its_figures(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, released=10)
    screen.ask("Why walk in the rain?")
    first = eventually(screen.live_text, "the first tokens show")
    scripted.release(10)
    eventually(lambda: len(screen.live_text()) > len(first), "the text grows")
    assert screen.live_text().startswith(first)
    screen.live_figures.get_by_text("tokens/s").wait_for()
    scripted.release()
    screen.await_answer()
    assert screen.answer_text().startswith(RAIN)
    expected = (
        r"TTFT [\d.]+ ms · [\d,.]+ tokens/s · \d+ tokens · ended: end of text · "
        r"memory .+ private \+ .+ file-backed · Paddock NeoX 3M \(tiny demo\) · INT8 · "
        r"AUTO → CPU · GenAI"
    )
    assert re.match(expected, screen.text_of(screen.figures))
    screen.live.wait_for(state="detached")
    eventually(screen.button("Stop").is_disabled, "there is nothing to stop")


def test_stop_keeps_the_text_so_far(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, released=12)
    screen.ask("Why walk in the rain?")
    eventually(lambda: scripted.state()["tokens"] == 12, "twelve tokens came")
    shown = eventually(screen.live_text, "they show")
    clicked = screen.stop()
    eventually(lambda: scripted.state()["running"] == 0, "the runtime stopped")
    assert scripted.state()["stopped_at"] - clicked < AT_ONCE_S
    screen.await_answer()
    assert "· 12 tokens · ended: cancelled ·" in screen.text_of(screen.figures)
    assert screen.answer_text().startswith(shown)
    assert "Nobody" not in screen.answer_text()


def test_stop_during_prefill(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, hold_prefill=True)
    screen.ask("Why walk in the rain?")
    screen.live.get_by_text("Reading the prompt.").wait_for()
    clicked = screen.stop()
    eventually(lambda: scripted.state()["interrupted"] == 1, "the prefill was interrupted")
    assert scripted.state()["stopped_at"] - clicked < AT_ONCE_S
    screen.await_answer()
    assert screen.text_of(screen.figures).startswith("0 tokens · ended: cancelled")
    assert "The model returned no text." in screen.answer_text()
    scripted.script(RAIN)
    screen.ask("And again?")  # the model stays usable
    screen.await_answer(2)
    assert screen.answer_text().startswith(RAIN)


def test_stop_while_the_model_is_loaded(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, hold_load=True)
    screen.page.get_by_role("radio", name="INT4").click()  # a precision no other test loads
    screen.ask("Why walk in the rain?")
    screen.live.get_by_text("Loading and compiling the model.").wait_for()
    screen.button("Stop").click()
    screen.await_answer()
    assert "ended: cancelled" in screen.text_of(screen.figures)


def test_error_is_shown_and_keeps_the_text(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, fail_after=12)
    screen.ask("Why walk in the rain?")
    screen.await_answer()
    assert screen.answer_text().startswith("Rain is quiet.")
    assert screen.notice.inner_text().strip().endswith("choose another precision or device.")
    assert "· 12 tokens · ended: error ·" in screen.text_of(screen.figures)
    scripted.script("All is well.")
    screen.ask("Why walk in the rain?")  # the model stays usable
    screen.await_answer(2)
    assert screen.answer_text().startswith("All is well.")


def test_empty_instruction_shows_an_error(screen: Screen, scripted: Stagehand) -> None:
    sentence = screen.page.get_by_text("The instruction is empty. Type one or choose an example.")
    screen.ask("")
    sentence.wait_for()
    screen.ask("Why walk in the rain?")
    screen.await_answer()
    sentence.wait_for(state="detached")
    assert len(scripted.state()["prompts"]) == 1


def test_double_click_starts_one_answer(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, released=5)
    screen.instruction.fill("Why walk in the rain?")
    screen.button("Run").dblclick()
    eventually(lambda: scripted.state()["tokens"] == 5, "it began")
    scripted.release()
    screen.await_answer()
    time.sleep(0.5)  # time for a second one to appear
    assert screen.entries.count() == 1
    assert len(scripted.state()["prompts"]) == 1


def test_control_enter_runs(screen: Screen, scripted: Stagehand) -> None:
    screen.instruction.fill("Why walk in the rain?")
    screen.instruction.press("Control+Enter")
    screen.await_answer()
    assert "Why walk in the rain?" in scripted.state()["prompts"][0]
    assert len(scripted.state()["prompts"]) == 1


def test_an_example_fills_instruction_and_context(screen: Screen, scripted: Stagehand) -> None:
    screen.page.get_by_role("radio", name="Life as a cat").click()
    eventually(lambda: "cat" in screen.instruction.input_value(), "the instruction is filled")
    screen.page.get_by_role("radio", name="Closed QA").click()
    screen.page.get_by_role("radio", name="Opening hours").click()
    passage = eventually(lambda: screen.context_box.input_value(), "the context is filled")
    screen.button("Run").click()
    screen.await_answer()
    prompt = scripted.state()["prompts"][0]
    assert f"{screen.instruction.input_value()}\n\nInput:\n{passage}\n\n### Response" in prompt
    screen.button("Clear").click()
    eventually(lambda: screen.instruction.input_value() == "", "the instruction is cleared")
    eventually(lambda: screen.context_box.input_value() == "", "the context too")
    assert screen.entries.count() == 1, "Clear empties the boxes, not the history"
    eventually(lambda: "instruction=" not in screen.url, "nor is it in the link")


def test_quick_next_click_does_not_restore_cleared_text(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    screen = open_screen(f"{scripted.url}/instruct?instruction=Why%3F&context=Rain").ready()
    line = Line(screen.page)
    eventually(lambda: screen.ready().context_box.input_value() == "Rain", "both are there")
    sent = line.sent
    line.hold()
    screen.button("Clear").click()
    line.await_sent(sent + 1)
    screen.page.get_by_role("radio", name="INT4").click()
    line.await_sent(sent + 2)
    line.release()
    eventually(lambda: "precision=int4" in screen.url, "the second click arrived")
    eventually(lambda: screen.instruction.input_value() == "", "the instruction stays cleared")
    eventually(lambda: screen.context_box.input_value() == "", "the context too")
    assert "instruction=" not in screen.url and "context=" not in screen.url


def test_clear_right_after_an_example_clears(screen: Screen) -> None:
    line = Line(screen.page)
    screen.ready()
    sent = line.sent
    line.hold()
    screen.page.get_by_role("radio", name="Life as a cat").click()
    line.await_sent(sent + 1)
    screen.button("Clear").click()
    line.await_sent(sent + 2)
    screen.page.get_by_role("radio", name="INT4").click()
    line.await_sent(sent + 3)
    line.release()
    eventually(lambda: "precision=int4" in screen.url, "all clicks arrived")
    eventually(lambda: screen.instruction.input_value() == "", "it is cleared")
    assert "instruction=" not in screen.url
    screen.page.get_by_role("radio", name="Life as a cat").click()
    eventually(lambda: "cat" in screen.instruction.input_value(), "the same example once more")


def test_changing_a_setting_while_streaming_keeps_the_answer(
    screen: Screen, scripted: Stagehand
) -> None:
    scripted.script(RAIN, released=12)
    screen.ask("Why walk in the rain?")
    shown = eventually(screen.live_text, "the text shows")
    screen.page.get_by_role("slider", name="Top-k").press("ArrowRight")
    screen.page.get_by_text("Greedy", exact=True).click()
    eventually(lambda: "greedy=true" in screen.url.lower(), "the page followed")
    assert eventually(screen.live_text, "the text shows again").startswith(shown)
    scripted.release()
    screen.await_answer()
    assert screen.answer_text().startswith(RAIN)
    assert "seed" in screen.text_of(screen.figures), "the settings of the answer are those it had"
    assert len(scripted.state()["prompts"]) == 1


def test_reading_pace_slows_the_display_and_not_the_figures(
    screen: Screen, scripted: Stagehand
) -> None:
    scripted.script("0123456789" * 14, tokens_per_s=400)  # each digit is one token
    screen.page.get_by_role("radio", name="Reading pace").click()
    screen.ask("Count.")
    eventually(lambda: len(screen.live_text()) > 10, "the text shows")
    eventually(lambda: scripted.state()["running"] == 0, "the model is done")
    eventually(
        lambda: "finished; shown at reading pace" in screen.text_of(screen.live_figures),
        "the figures say so",
    )
    began, before = time.monotonic(), len(screen.live_text())
    time.sleep(1.2)
    after, ended = len(screen.live_text()), time.monotonic()
    assert 30 < (after - before) / (ended - began) < 50
    screen.await_answer()
    rate = re.search(r"([\d,.]+) tokens/s", screen.text_of(screen.figures))
    assert rate and float(rate[1].replace(",", "")) > 150


def test_second_tab_waits_in_the_queue(
    screen: Screen, scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    scripted.script(RAIN, released=5)
    other = open_screen(f"{scripted.url}/instruct").ready()
    screen.ask("First?")
    eventually(screen.live_text, "the first streams")
    other.ask("Second?")
    other.live.get_by_text("Waiting in queue: 1 answer ahead.").wait_for()
    scripted.release()
    for each in (screen, other):
        each.await_answer()
        assert each.answer_text().startswith(RAIN)
    assert scripted.state()["most_running"] == 1
    assert ["First?" in prompt for prompt in scripted.state()["prompts"]] == [True, False]


def test_waiting_answer_can_be_stopped(
    screen: Screen, scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    scripted.script(RAIN, released=5)
    other = open_screen(f"{scripted.url}/instruct").ready()
    screen.ask("First?")
    eventually(screen.live_text, "the first streams")
    other.ask("Second?")
    other.live.get_by_text("Waiting in queue").wait_for()
    other.button("Stop").click()
    other.await_answer()
    assert "ended: cancelled" in other.text_of(other.figures)
    scripted.release()
    screen.await_answer()
    assert screen.answer_text().startswith(RAIN), "one session's Stop stops only its own"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("no such model", "There is no model 'no such model'. Specify a catalogue key"),
        ("![x](http://evil.example/x.png)", "There is no model '![x](http://evil.example/x.png)'"),
    ],
)
def test_unknown_model_in_a_link_shows_an_error(
    scripted: Stagehand, open_screen: Callable[..., Screen], model: str, sentence: str
) -> None:
    from urllib.parse import quote

    screen = open_screen(f"{scripted.url}/instruct?model={quote(model)}").ready()
    eventually(lambda: sentence in screen.text_of(screen.notice), "the sentence shows")
    screen.ask("Why walk in the rain?")
    screen.await_answer()
    assert sentence in screen.text_of(screen.entries.first)
