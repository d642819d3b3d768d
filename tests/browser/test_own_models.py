"""A user's own model in Chromium: added, selected and compared under one name; a download that is
confirmed once; a kiosk."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.settings import KIOSK_ERROR
from core.store import resolve
from tests.browser.screen import FINISHED, Screen, eventually
from tests.builders import tiny_checkpoint
from tests.gguf_files import tiny_gguf
from tests.store.hub_server import Hub
from tests.waiting import PATIENCE_S

IDLE_MS = 120_000
TOKEN = "hf_aTokenThatNobodyMaySee"


def pick(screen: Screen, name: str, number: int = 0) -> None:
    """Choose a model of the first group."""
    box = screen.page.get_by_role("combobox", name="Model").nth(number)
    option = screen.page.get_by_role("option", name=f"{name} · ")

    def listed() -> list[str]:
        screen.open(box, option)
        options = screen.page.get_by_role("option").all_inner_texts()
        return options if "— To download —" in options else []

    options = eventually(listed, "the list is open")
    here, download = options.index("— On this machine —"), options.index("— To download —")
    (found,) = [place for place, text in enumerate(options) if text.startswith(f"{name} · ")]
    assert here < found < download
    screen.choose(box, option)


@pytest.mark.long
def test_a_guests_own_model_has_one_name_on_every_page(
    serve: Callable[..., str],
    open_screen: Callable[..., Screen],
    put_demo: Callable[..., None],
    tmp_path: Path,
) -> None:
    put_demo(tmp_path / "paddock", Precision.INT8)  # the other side of the comparison
    own = tiny_gguf(tmp_path / "mine" / "my-tiny.gguf").path
    key = resolve(str(own)).name
    url = serve()
    screen = open_screen(f"{url}/models").settled()
    box = screen.page.get_by_role("textbox", name="Hugging Face id, folder or GGUF file")
    screen.open(screen.button("Add a model"), box)
    screen.settled()
    box.fill(str(own))
    screen.open(screen.button("Look up"), screen.page.locator(f".st-key-model_{key}"))
    screen.page.get_by_role("dialog").get_by_role("button", name="Close").click()

    screen.go_to("Instruct")
    screen.ready()
    pick(screen, "my-tiny")
    eventually(lambda: f"model={key}" in screen.url, "the URL has its key")
    screen.ask("Why walk in the rain?")
    screen.newest.get_by_role("button", name=FINISHED).wait_for()
    weights = "INT4 · GGUF Q4_1"
    assert f"my-tiny · {weights}" in screen.details()

    screen.go_to("Compare")
    pick(screen, "my-tiny", 1)
    eventually(lambda: f"right_model={key}" in screen.url, "the URL has its key")
    screen.page.get_by_role("textbox", name="Instruction").fill("Why walk in the rain?")
    screen.button("Run both").click()
    screen.page.locator(".st-key-judge").wait_for()
    screen.page.get_by_text(f"{weights} · ").first.wait_for()

    asked = {"model": key, "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 4}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    assert json.load(urllib.request.urlopen(request, timeout=PATIENCE_S))["model"] == key

    screen.go_to("Metrics")
    chart = screen.page.get_by_test_id("stPlotlyChart").first
    chart.get_by_text(weights, exact=True).first.wait_for()
    labels = chart.locator(".ytick").all_text_contents()
    assert labels.count(weights) == 1, "its answers are in one row"


def test_a_download_is_asked_for_once(
    serve: Callable[..., str], open_screen: Callable[..., Screen], tmp_path: Path
) -> None:
    with Hub() as hub:
        tiny = tiny_checkpoint("llama", tmp_path / "tiny", with_chat_template=True)
        hub.add("acme/tiny", tiny, gated=True, token=TOKEN)
        url = serve(HF_ENDPOINT=hub.url)
        screen = open_screen(f"{url}/models").settled()
        screen.button("Hugging Face access").click()
        screen.page.get_by_role("textbox", name="Access token").fill(TOKEN)
        screen.page.keyboard.press("Enter")
        screen.page.get_by_text("The token entered here is used").wait_for()
        screen.page.keyboard.press("Escape")
        screen.go_to("Instruct")
        screen.ready()
        model = screen.page.get_by_role("combobox", name="Model")
        model.fill("acme/tiny")
        model.press("Enter")
        eventually(lambda: "acme" in screen.url, "the model is taken")
        screen.ask("Why walk in the rain?")
        dialog = screen.page.get_by_role("dialog")
        dialog.get_by_text(re.compile(r"acme/tiny · INT8: download of .* kB from")).wait_for()
        assert not hub.fetched(".safetensors"), "nothing is downloaded before the confirmation"
        dialog.get_by_role("button", name="Cancel").click()
        dialog.wait_for(state="detached")
        eventually(screen.composer.input_value, "the instruction is put back")
        screen.settled().composer.press("Enter")
        dialog.get_by_role("button", name="Download, then run").click()
        screen.newest.get_by_role("button", name=FINISHED).wait_for()
        assert hub.fetched(".safetensors")
        screen.page.get_by_text("On disk").wait_for()


def test_a_kiosk_changes_nothing_and_starts_afresh(
    serve: Callable[..., str],
    open_screen: Callable[..., Screen],
    put_demo: Callable[..., None],
    tmp_path: Path,
) -> None:
    put_demo(tmp_path / "paddock", Precision.INT8)
    url = serve(PADDOCK_KIOSK="1")
    screen = open_screen(f"{url}/models?open=paddock-neox")
    screen.page.get_by_text("in kiosk mode").wait_for()
    for name in ("Add a model", "Convert to INT4", "Delete", "Verify"):
        assert screen.page.get_by_role("button", name=name).count() == 0

    asked = {"model": "paddock-llama", "messages": [{"role": "user", "content": "Why?"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=PATIENCE_S)
    assert refused.value.code == 403
    assert json.load(refused.value)["error"]["message"] == KIOSK_ERROR

    link = f"{url}/instruct?model=paddock-neox&tokens=8&instruction=Why%3F"
    kiosk = open_screen(link, fresh=True)
    kiosk.page.clock.install()
    kiosk.page.reload()
    kiosk.ready()
    option = kiosk.page.get_by_role("option")
    kiosk.open(kiosk.page.get_by_role("combobox", name="Model"), option.first)
    assert "— To download —" not in option.all_inner_texts()
    kiosk.page.clock.pause_at(kiosk.page.evaluate("Date.now()") / 1000 + 30)
    kiosk.page.keyboard.press("Escape")  # the idle time begins, of the paused clock
    kiosk.page.clock.fast_forward(IDLE_MS - 1000)
    assert "tokens=8" in kiosk.url
    kiosk.page.clock.fast_forward(2000)
    kiosk.page.clock.resume()
    kiosk.page.wait_for_url(re.compile(r"/instruct$"))
    kiosk.ready()
    assert kiosk.composer.input_value() == ""
