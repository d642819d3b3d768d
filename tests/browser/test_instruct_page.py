"""Instruct page in a browser: from an instruction to a streamed answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator

from tests.browser.screen import Screen, Stagehand, eventually

RAIN = "Rain is quiet. Rain is clean. Nobody else is there."


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
    chips = r"[\d,.]+ tokens/s\s+TTFT [\d.]+ ms\s+\d+ tokens"
    assert re.match(re.escape(RAIN) + r"\s+" + chips, screen.answer_text())
    details = screen.details()
    for part in ("Paddock NeoX 3M (tiny demo) · INT8", "AUTO → CPU · GenAI", "end of text"):
        assert part in details
    screen.live.wait_for(state="detached")
    screen.button("Stop").wait_for(state="detached")


SIZES = [(1440, 900), (1366, 768), (390, 844)]
STORY = "The ship sailed on. " * 40


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_newest_answer_is_in_view_from_the_first_token_on(
    scripted: Stagehand, open_screen: Callable[..., Screen], size: tuple[int, int]
) -> None:
    viewport = {"width": size[0], "height": size[1]}
    screen = open_screen(f"{scripted.url}/instruct?pace=full", viewport=viewport).ready()
    for number in (1, 2):
        scripted.script(STORY, released=4)
        screen.ask(f"What did ship {number} do?" + " Tell me all about it." * 300 * (number - 1))
        eventually(screen.live_text, "the first tokens show")
        eventually(lambda number=number: in_view(screen, screen.live, number), "in view")
        top = screen.at_rest(screen.live)["y"]
        scripted.release(150)
        eventually(lambda: scripted.state()["tokens"] >= 150, "it streams")
        eventually(lambda: len(screen.live_text()) > 100, "it shows")
        assert screen.live.bounding_box()["y"] == top, "nothing moves while it streams"
        scripted.release()
        screen.await_answer(number)
        eventually(lambda number=number: in_view(screen, screen.newest, number), "in view")
        eventually(
            lambda top=top: abs(screen.newest.bounding_box()["y"] - top) < 2, "where it streamed"
        )
    narrow = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert screen.page.evaluate(narrow), "nothing is wider than the window"


def in_view(screen: Screen, answer: Locator, number: int) -> bool:
    """Return whether nothing covers the question and the first line of its answer."""
    question = screen.turns.last.get_by_text(f"What did ship {number} do?")
    boxes = [each.bounding_box() for each in (question, answer, screen.composer)]
    question_top, answer_top, composer = (box["y"] if box else 0.0 for box in boxes)
    return 50 < question_top < answer_top < composer - 60


def test_keyboard_only_from_the_first_question_to_the_second_answer(
    screen: Screen, scripted: Stagehand
) -> None:
    scripted.script(STORY, released=12)
    screen.composer.focus()
    screen.page.keyboard.type("First line")
    screen.page.keyboard.press("Shift+Enter")
    screen.page.keyboard.type("second line")
    screen.page.keyboard.press("Enter")
    eventually(screen.live_text, "it streams")
    assert "First line\nsecond line" in scripted.state()["prompts"][0]
    screen.page.keyboard.press("Escape")
    screen.await_answer()
    screen.newest.get_by_text("Stopped").first.wait_for()
    scripted.script(RAIN)
    screen.page.keyboard.type("And again?")  # the composer still has the focus
    screen.page.keyboard.press("Enter")
    screen.await_answer(2)
    assert screen.answer_text().startswith(RAIN)


def test_stop_while_loading_reading_and_writing(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, hold_load=True)
    screen.page.get_by_role("radio", name="FP16").click()  # a precision no other test loads
    screen.ask("While it is loaded?")
    screen.live.get_by_text("Loading and compiling the model.").wait_for()
    screen.button("Stop").click()
    screen.await_answer()
    assert "Stopped" in screen.answer_text()

    scripted.release()
    scripted.script(RAIN, hold_prefill=True)
    screen.page.get_by_role("radio", name="INT8").click()
    screen.ask("While it reads?")
    screen.live.get_by_text("Reading the prompt.").wait_for()
    screen.button("Stop").click()
    eventually(lambda: scripted.state()["interrupted"] == 1, "the prefill was interrupted")
    screen.await_answer(2)
    assert re.match(r"The model returned no text\.\s+0 tokens\s+Stopped", screen.answer_text())

    scripted.script(RAIN, released=12)
    screen.ask("While it writes?")  # the model stays usable
    eventually(lambda: scripted.state()["tokens"] == 12, "twelve tokens came")
    shown = eventually(screen.live_text, "they show")
    screen.button("Stop").click()
    eventually(lambda: scripted.state()["running"] == 0, "the runtime stopped")
    screen.await_answer(3)
    assert re.search(r"12 tokens\s+Stopped", screen.answer_text())
    assert screen.answer_text().startswith(shown)
    assert "Nobody" not in screen.answer_text()


def test_error_is_shown_and_keeps_the_text(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN, fail_after=12)
    screen.ask("Why walk in the rain?")
    screen.await_answer()
    eventually(lambda: screen.answer_text().startswith("Rain is quiet."), "the text is kept")
    assert screen.notice.inner_text().strip().endswith("choose another precision or device.")
    assert "12 tokens" in screen.answer_text() and re.search(r"Ended\s+error", screen.details())
    scripted.script("All is well.")
    screen.ask("Why walk in the rain?")  # the model stays usable
    screen.await_answer(2)
    assert screen.answer_text().startswith("All is well.")


def test_submitting_during_an_answer_keeps_both(screen: Screen, scripted: Stagehand) -> None:
    screen.ask("Before?")
    screen.await_answer()
    second = Screen(screen.page.context.new_page())
    second.page.goto(screen.url)
    second.ready().await_answer()
    scripted.script(RAIN, released=12)
    screen.ask("Why walk in the rain?")
    shown = eventually(screen.live_text, "it streams")
    second.ask("From another tab?")  # which has not heard of the answer yet
    second.page.get_by_text("An answer is being generated.").wait_for()
    assert eventually(second.live_text, "it follows the answer").startswith(shown)
    second.page.close()
    screen.ask("Too early?")
    screen.page.get_by_text("An answer is being generated.").wait_for()
    eventually(lambda: screen.composer.input_value() == "Too early?", "the text is put back")
    assert eventually(screen.live_text, "it streams").startswith(shown)
    scripted.release()
    screen.await_answer(2)
    assert len(scripted.state()["prompts"]) == 1


def test_click_on_an_example_asks_it_with_its_passage(screen: Screen, scripted: Stagehand) -> None:
    screen.page.get_by_role("radio", name="Closed QA").click()
    screen.button("Opening hours").click()
    screen.await_answer()
    prompt = scripted.state()["prompts"][0]
    assert "At what time does the café close?\n\nInput:\nThe Copper Kettle is a café" in prompt
    screen.turns.last.get_by_text("The Copper Kettle is a café").wait_for()
    screen.page.get_by_role("heading", name="Give a model an instruction").wait_for(
        state="detached"
    )
    example = screen.button("Who works where")
    screen.open(screen.button("Examples"), example)  # folded away, one click asks again
    example.click()
    screen.await_answer(2)
    assert len(scripted.state()["prompts"]) == 2


def test_context_passage_is_typed_or_attached(
    screen: Screen, scripted: Stagehand, tmp_path: Path
) -> None:
    screen.open(screen.button("Context"), screen.context_box)
    screen.context_box.fill("The shop opens at nine.")
    screen.context_box.press("Control+Enter")
    screen.button("Context: 23 characters").wait_for()
    screen.page.keyboard.press("Escape")
    screen.ask("When does it open?")
    screen.await_answer()
    assert "Input:\nThe shop opens at nine.\n\n### Response" in scripted.state()["prompts"][0]
    eventually(lambda: screen.button("Context: 23").count() == 0, "it belonged to that question")
    file = tmp_path / "hours.txt"
    for count, encoding in enumerate(("utf-8", "utf-16", "cp1252"), 2):
        text = f"Um elf geöffnet: {encoding}."
        file.write_text(text, encoding=encoding)
        screen.ask_about(
            file,
            f"And in {encoding}?",
            lambda text=text: f"Input:\n{text}" in "".join(scripted.state()["prompts"]),
        )
        screen.await_answer(count)
    assert len(scripted.state()["prompts"]) == 4
    file.write_bytes(b"\xff\xfe\x00")
    screen.ask_about(
        file, "And this?", screen.page.get_by_text("hours.txt is not a text file.").is_visible
    )
    eventually(lambda: screen.composer.input_value() == "And this?", "the text is put back")


def test_changing_a_setting_while_streaming_keeps_the_answer(
    screen: Screen, scripted: Stagehand
) -> None:
    scripted.script(RAIN, released=12)
    screen.ask("Why walk in the rain?")
    shown = eventually(screen.live_text, "the text shows")
    screen.open_settings()
    screen.page.get_by_role("slider", name="Top-k").press("ArrowRight")
    screen.page.get_by_text("Greedy", exact=True).click()
    eventually(lambda: "greedy=true" in screen.url.lower(), "the page followed")
    assert eventually(screen.live_text, "the text shows again").startswith(shown)
    scripted.release()
    screen.await_answer()
    assert screen.answer_text().startswith(RAIN)
    assert "Seed" in screen.details(), "the settings of the answer are those it had"
    assert len(scripted.state()["prompts"]) == 1


def test_reading_pace_slows_the_display_and_not_the_figures(
    scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    # Each digit is one token; the display takes long enough to be measured between two stalls.
    scripted.script("0123456789" * 200, tokens_per_s=400)
    # The default pace is automatic, and the model is a tiny demo.
    screen = open_screen(f"{scripted.url}/instruct?tokens=2100").ready()
    screen.ask("Count.")
    eventually(lambda: len(screen.live_text()) > 10, "the text shows")
    eventually(lambda: scripted.state()["running"] == 0, "the model is done")
    eventually(
        lambda: "finished; shown at reading pace" in screen.text_of(screen.live_figures),
        "the figures say so",
    )

    def paced() -> bool:
        """Return whether about 40 tokens are shown in a second; a stall of the machine spoils it"""
        began, before = time.monotonic(), len(screen.live_text())
        time.sleep(1.2)
        after, ended = len(screen.live_text()), time.monotonic()
        return 30 < (after - before) / (ended - began) < 50

    eventually(paced, "the reading pace")
    screen.button("Stop").click()  # the rest is shown at once
    screen.await_answer()
    rate = re.search(r"([\d,.]+) tokens/s", screen.answer_text())
    assert rate and float(rate[1].replace(",", "")) > 150


def test_second_tab_waits_in_the_queue(
    screen: Screen, scripted: Stagehand, open_screen: Callable[..., Screen]
) -> None:
    scripted.script(RAIN, released=5)
    other = open_screen(f"{scripted.url}/instruct?pace=full").ready()
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
    other = open_screen(f"{scripted.url}/instruct?pace=full").ready()
    screen.ask("First?")
    eventually(screen.live_text, "the first streams")
    other.ask("Second?")
    other.live.get_by_text("Waiting in queue").wait_for()
    other.button("Stop").click()
    other.await_answer()
    assert "Stopped" in other.answer_text()
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
    assert sentence in screen.answer_text()


THOUGHTS = "<think>Let me think about rain.</think>\n\nRain is water."


def test_thoughts_are_folded_counted_apart_and_not_copied(
    screen: Screen, scripted: Stagehand
) -> None:
    scripted.script(THOUGHTS, released=20)
    screen.ask("What is rain?")
    screen.live.get_by_text("Thoughts", exact=True).wait_for()
    assert not screen.live.get_by_text("Let me").is_visible(), "they are folded"
    screen.open(screen.live.get_by_text("Thoughts", exact=True), screen.live.get_by_text("Let me"))
    scripted.release()
    screen.await_answer()
    screen.newest.get_by_text(re.compile(r"Thought for [\d.,]+ m?s · \d+ tokens")).wait_for()
    assert not screen.newest.get_by_text("Let me think").is_visible()
    thoughts = screen.newest.get_by_text("Let me think about rain.")
    screen.open(screen.newest.get_by_text(re.compile("Thought for")), thoughts)
    code = screen.page.get_by_test_id("stPopoverBody").get_by_test_id("stCode")
    screen.open(screen.newest.get_by_role("button", name="Copy"), code)
    eventually(lambda: screen.text_of(code) == "Rain is water.", "the text to copy")


def test_answer_of_thoughts_only_says_so_and_offers_more(
    screen: Screen, scripted: Stagehand
) -> None:
    scripted.script("<think>" + "Hm, hm, hm. " * 20)
    screen.open_settings()
    tokens = screen.page.get_by_role("spinbutton", name="Max new tokens")
    tokens.fill("30")
    tokens.press("Enter")
    eventually(lambda: "tokens=30" in screen.url, "the setting is taken")
    screen.ask("What is rain?")
    screen.await_answer()
    screen.newest.get_by_text("All 30 new tokens went into thinking.").wait_for()
    assert re.search(r"· 30 tokens.*\s0 tokens", screen.answer_text(), re.DOTALL)
    scripted.script(THOUGHTS)
    screen.newest.get_by_role("button", name="More tokens").click()
    screen.await_answer(2)
    assert "Rain is water." in screen.answer_text()


def test_cut_off_answer_is_continued_in_its_place(screen: Screen, scripted: Stagehand) -> None:
    scripted.script("One two three four five six seven eight nine ten eleven twelve.")
    screen.open_settings()
    tokens = screen.page.get_by_role("spinbutton", name="Max new tokens")
    tokens.fill("12")
    tokens.press("Enter")
    eventually(lambda: "tokens=12" in screen.url, "the setting is taken")
    screen.ask("Count.")
    screen.await_answer()
    screen.newest.get_by_text("Cut off at 12 tokens").wait_for()
    begun = screen.answer_text().split("\n")[0]
    scripted.script(" and so on.")
    screen.newest.get_by_role("button", name="Continue").click()
    eventually(lambda: f"{begun} and so on." in screen.answer_text(), "it goes on")
    assert screen.entries.count() == 1, "in the place of the first part"
    assert scripted.state()["prompts"][0].endswith(f"### Response:\n{begun}")


def test_follow_up_sends_earlier_turns_if_it_is_on(screen: Screen, scripted: Stagehand) -> None:
    scripted.script(RAIN)
    screen.ask("Why walk in the rain?")
    screen.await_answer()
    screen.ask("Alone?")
    screen.await_answer(2)
    assert RAIN not in scripted.state()["prompts"][1], "each stands alone, as Dolly was trained"
    screen.page.get_by_text("Follow up", exact=True).click()
    screen.page.get_by_text(re.compile(r"Earlier turns: about \d+ tokens")).wait_for()
    screen.ask("Really?")
    screen.await_answer(3)
    prompt = scripted.state()["prompts"][2]
    screen.open_settings()
    tokens = screen.page.get_by_role("spinbutton", name="Max new tokens")
    tokens.fill("8100")
    tokens.press("Enter")
    eventually(lambda: "tokens=8100" in screen.url, "the setting is taken")
    screen.ask("Does that fit?")
    screen.await_answer(4)
    screen.newest.get_by_text("6 earlier messages did not fit into the context length").wait_for()
    assert "Really?" not in scripted.state()["prompts"][3]
    assert RAIN in prompt and "Why walk in the rain?" in prompt and "Alone?" in prompt
