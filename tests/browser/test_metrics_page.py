"""The Metrics page in a browser: a benchmark from the empty page, charts, files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Locator

from core.catalogue import Precision
from core.db import RunStore
from core.db.measurement_values import Measurement
from core.db.measurements import MeasurementStore
from core.metrics.document import from_json, to_json
from core.settings import Settings
from tests.browser.conftest import serving
from tests.browser.screen import FINISHED, Screen, eventually
from tests.metrics.row_samples import a_host, a_measurement, a_quality

NOTE_PLACES = """
window.places = {};
(function look() {
  for (const button of document.querySelectorAll(".st-key-benchmark button")) {
    const box = button.getBoundingClientRect();
    const name = button.innerText.split("\\n").pop();
    if (box.width && name) (places[name] ??= new Set()).add(Math.round(box.x));
  }
  requestAnimationFrame(look);
})();
"""
"""Records the horizontal positions of each benchmark button, in every animation frame."""


class Measured(NamedTuple):
    """The app, and its measurements."""

    url: str
    store: MeasurementStore


@pytest.fixture(scope="module")
def measured(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """Run the app with three stored measurements; another file is imported by the last test."""
    home = tmp_path_factory.mktemp("measured")
    runs = RunStore.open(Settings(home=home / "paddock"))
    store = MeasurementStore(runs.database)
    for row in some():
        store.save(row)
    with serving("streamlit_app.py", home) as url:
        yield Measured(url, store)
    runs.close()


def charts(screen: Screen) -> Locator:
    return screen.page.locator(".js-plotly-plot")


def chart(screen: Screen, title: str) -> Locator:
    return charts(screen).filter(has_text=title)


def panel(screen: Screen) -> Locator:
    return screen.page.locator(".st-key-benchmark")


def some() -> list[Measurement]:
    return [
        a_measurement("fp16", 20.0, private_mb=900, quality=a_quality(1.0)),
        a_measurement("int8", 40.0, private_mb=500, quality=a_quality(1.01)),
        a_measurement("int4", 60.0, private_mb=300, quality=a_quality(1.1)),
    ]


def fill(where: Locator, label: str, text: str) -> None:
    box = where.get_by_role("spinbutton", name=label)
    box.fill(text)
    box.press("Enter")


def test_a_small_benchmark_from_the_empty_page(
    serve: Callable[[], str],
    open_screen: Callable[..., Screen],
    put_demo: Callable[..., None],
    tmp_path: Path,
) -> None:
    put_demo(tmp_path / "paddock", Precision.INT8)
    screen = open_screen(f"{serve()}/metrics")
    page = screen.page
    screen.button("Run a two-minute benchmark").wait_for()

    # One model in one precision, started from the setup.
    page.get_by_text("Run a benchmark", exact=True).click()
    set_up = page.locator(".st-key-set_up")
    set_up.get_by_role("button", name="Paddock Llama").or_(
        set_up.get_by_label("Remove Paddock Llama 6M (tiny demo)")
    ).first.click()
    for precision in ("FP16", "INT4"):
        set_up.get_by_role("button", name=precision).or_(
            set_up.get_by_role("checkbox", name=precision)
        ).first.click()
    fill(set_up, "Rounds", "1")
    fill(set_up, "Repeats", "1")
    fill(set_up, "New tokens", "8")
    set_up.get_by_text("Measure quality").click()  # of FP16 too, which takes a minute
    set_up.get_by_text("2 measurements, about").wait_for()
    set_up.get_by_role("button", name="Start the benchmark").click()

    # It can be cancelled immediately and resumed; no button moves while it is shown.
    panel(screen).get_by_text("of 2 measured").wait_for()
    page.evaluate(NOTE_PLACES)
    panel(screen).get_by_role("button", name="Cancel").click()
    panel(screen).get_by_text("Stopped").wait_for()
    panel(screen).get_by_role("button", name="Resume").click()
    panel(screen).get_by_text("2 of 2 measurements are done").wait_for()
    places = page.evaluate("Object.entries(places).map(([name, found]) => [name, ...found])")
    assert {"Cancel", "Resume"} <= {name for name, *_ in places}
    assert [found for found in places if len(found) > 2 and found[0] != "Dismiss"] == []

    # The results are shown; the work of the tests may have marked them as measured while busy.
    page.get_by_text("Include measured while busy", exact=True).click()
    chart(screen, "Decode rate: tokens/s").get_by_text("INT8").first.wait_for()
    as_json = page.get_by_role("button", name="JSON", exact=True)
    screen.settled().open(page.get_by_role("button", name="Export"), as_json)
    with page.expect_download() as download:
        as_json.click()
    rows = from_json(Path(download.value.path()).read_bytes())
    assert sorted(row.configuration.prompt_tokens for row in rows) == [32, 128]
    assert all(row.figures and row.figures.decode_tokens_per_s for row in rows)


@pytest.mark.long
def test_the_filter_is_kept_in_the_url(
    measured: Measured, open_screen: Callable[..., Screen]
) -> None:
    screen = open_screen(f"{measured.url}/metrics")
    chart(screen, "Decode rate: tokens/s").get_by_text("FP16").first.wait_for()
    pill = screen.page.get_by_test_id("stPopoverBody").get_by_text("INT4", exact=True)
    screen.settled().open(screen.button("Filter"), pill)
    pill.click()
    eventually(lambda: "precisions=int4" in screen.url, "the URL is updated")
    chart(screen, "Decode rate: tokens/s").get_by_text("FP16").first.wait_for(state="detached")
    screen.page.keyboard.press("Escape")
    again = open_screen(screen.url)
    chart(again, "Decode rate: tokens/s").get_by_text("INT4").first.wait_for()
    chart(again, "Decode rate: tokens/s").get_by_text("FP16").wait_for(state="detached")


@pytest.mark.long
def test_a_model_in_memory_can_be_unloaded(
    serve: Callable[[], str],
    open_screen: Callable[..., Screen],
    put_demo: Callable[..., None],
    tmp_path: Path,
) -> None:
    put_demo(tmp_path / "paddock", Precision.INT8)
    screen = open_screen(f"{serve()}/instruct?tokens=8").ready()
    screen.ask("Name three advantages of being a cat.")
    screen.newest.get_by_role("button", name=FINISHED).wait_for()
    screen.go_to("Metrics")
    live = screen.page.locator(".st-key-live")
    live.get_by_role("button", name="Unload").click()
    live.get_by_role("button", name="Unload").wait_for(state="detached")
    live.get_by_text(re.compile("Models in memory")).wait_for()


def test_a_narrow_window_needs_no_sideways_scrolling(
    measured: Measured, open_screen: Callable[..., Screen]
) -> None:
    screen = open_screen(f"{measured.url}/metrics", viewport={"width": 400, "height": 900})
    chart(screen, "Latency of each token").wait_for()
    width, inner = screen.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner
    for title in ("Decode rate: tokens/s", "Memory: MB", "Speed against memory"):
        box = chart(screen, title).first.bounding_box()
        assert box and box["x"] + box["width"] <= inner


def test_an_imported_file_is_charted_beside_local_measurements(
    measured: Measured, open_screen: Callable[..., Screen], tmp_path: Path
) -> None:
    theirs = [replace(a_measurement("int8", 80.0, host=a_host(name="far-away")), sweep="f" * 32)]
    good, broken = tmp_path / "theirs.json", tmp_path / "broken.json"
    good.write_text(to_json(theirs), encoding="utf-8")
    broken.write_text(to_json(theirs)[:-40], encoding="utf-8")
    screen = open_screen(f"{measured.url}/metrics")
    charts(screen).first.wait_for()
    screen.settled().open(screen.button("Import"), screen.page.get_by_test_id("stPopoverBody"))
    upload = screen.page.locator('input[type="file"]')
    upload.set_input_files(broken)
    screen.page.get_by_test_id("stPopoverBody").get_by_role("alert").wait_for()
    upload.set_input_files(good)
    screen.page.get_by_text("Imported 1 measurement").wait_for()
    screen.page.get_by_test_id("stPopoverBody").wait_for(state="hidden")
    chart(screen, "Decode rate: tokens/s").get_by_text("far-away").first.wait_for()
    assert sum(row.imported_at is not None for row in measured.store.all()) == 1
