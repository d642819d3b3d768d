"""How soon the Metrics page shows its charts where 100 000 answers are stored.

Minutes long, and only worth anything on a quiet machine, so not collected with the others:
``python -m pytest -s -n 0`` and this file's name. Each figure is the median of several visits, in
milliseconds from the click, or from the start of the navigation, to the time at which the charts
are drawn: those that are seen without scrolling, and all of them.

The browser's cache is warm, as it is for whoever was here before. The same page with ten answers
tells what of it is the browser's own: loading Streamlit's program and plotly, and drawing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from core.db import RunStore
from core.db.measurements import MeasurementStore
from core.db.run_values import utc_now
from core.settings import Settings
from tests.browser.conftest import ACTION_MS, VIEWPORT, free_port, serving
from tests.browser.screen import eventually
from tests.db.many_runs import MODELS, PRECISIONS, fill, some_run
from tests.metrics.row_samples import a_host, a_measurement, a_quality

VISITS = 5
CHARTS = 7
PATIENCE_S = 60.0
BAR_MS = 2000
"""In which a person who clicks sees the charts, on two cores with nothing else to do."""
LOOKED_MS = 5000
"""That a person has been on the first page: plotly is loaded when nothing changes there."""
QUIET_MS = 1000
"""Without a change in any chart: then all is drawn."""
WATCH = """{
const seen = (window.__charts = {start: 0, visible: 0, all: 0, last: 0});
const drawn = (chart) => chart.querySelector(".cartesianlayer .xtick");
const inSight = (chart) => chart.getBoundingClientRect().top < innerHeight;
new MutationObserver((changes) => {
  const now = performance.now();
  if (!changes.some(({target}) => target.closest?.(".js-plotly-plot"))) return;
  const charts = [...document.querySelectorAll(".js-plotly-plot")].filter(drawn);
  if (!seen.visible && charts.filter(inSight).length >= 2) seen.visible = now;
  if (!seen.all && charts.length >= COUNT) seen.all = now;
  seen.last = now;
}).observe(document, {childList: true, subtree: true});
addEventListener("click", () => {
  Object.assign(seen, {start: performance.now(), visible: 0, all: 0, last: 0});
}, true);
}""".replace("COUNT", str(CHARTS))


@dataclass(frozen=True)
class Visit:
    """Milliseconds until charts were drawn."""

    visible: float
    all: float


@dataclass(frozen=True)
class Place:
    """A server's home, and what a browser keeps of its program."""

    home: Path
    port: int
    context: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module", params=[100_000, 10], ids=["100 000 answers", "10 answers"])
def place(
    request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("many")
    (home / "paddock").mkdir()
    runs = RunStore.open(Settings(home=home / "paddock"))
    fill(runs.database, request.param)
    measurements = MeasurementStore(runs.database)
    for number, (model, rate) in enumerate(list(MODELS.items())[:4]):
        for precision, factor in PRECISIONS.items():
            for prompt_tokens in (32, 512):
                measurement = a_measurement(
                    precision,
                    rate * factor,
                    prompt_tokens=prompt_tokens,
                    model=model,
                    title=model.replace("-", " ").title(),
                    runtime="genai",
                    quality=a_quality(),
                    host=a_host(name="bench"),
                    when=utc_now() - timedelta(days=number),
                )
                measurements.save(measurement)
    runs.close()
    context = browser.new_context(viewport=VIEWPORT)
    context.set_default_timeout(ACTION_MS)
    context.add_init_script(WATCH)
    yield Place(home, free_port(), context)
    context.close()


def answer(place: Place) -> None:
    """Another process records an answer that ends now."""
    runs = RunStore.open(Settings(home=place.home / "paddock"))
    start, result = some_run(random.Random(), utc_now())
    begun = utc_now() - timedelta(seconds=5)
    runs.add(replace(start, started_at=begun), replace(result, ended_at=utc_now()))
    runs.close()


def watch(page: Any) -> Visit:
    """Wait until all is drawn and say when it was."""

    def settled() -> dict[str, float] | None:
        seen = page.evaluate("({...__charts, now: performance.now()})")
        return seen if seen["all"] and seen["now"] - seen["last"] > QUIET_MS else None

    seen = eventually(settled, "the charts are drawn", PATIENCE_S)
    visible = min(seen["visible"] or seen["all"], seen["all"])
    return Visit(visible - seen["start"], seen["all"] - seen["start"])


def load(place: Place) -> Visit:
    """Open the page by its address."""
    page = place.context.new_page()
    page.goto(f"{place.url}/metrics")
    visit = watch(page)
    page.close()
    return visit


def click(place: Place, before: Callable[[], None] = lambda: None) -> Visit:
    """Open the page from the first one, where a person has looked around."""
    page = place.context.new_page()
    page.goto(f"{place.url}/instruct")
    page.get_by_role("textbox", name="Instruction", exact=True).wait_for()
    page.wait_for_timeout(LOOKED_MS)
    before()
    page.get_by_role("link", name="Metrics").first.click()
    visit = watch(page)
    page.close()
    return visit


def told(name: str, visits: list[Visit]) -> Visit:
    middle = Visit(median(v.visible for v in visits), median(v.all for v in visits))
    print(f"\n{name}: visible {middle.visible:.0f} ms, all {middle.all:.0f} ms, of {visits}")
    return middle


def test_the_charts_of_very_many_answers_are_soon_there(place: Place) -> None:
    first = []
    for _ in range(VISITS):
        with serving("streamlit_app.py", place.home, port=place.port):
            first.append(load(place))
    told("first visit after the start, by its address", first[1:])
    with serving("streamlit_app.py", place.home, port=place.port):
        load(place)
        seen = []
        for name, before in (("after a new answer", answer), ("nothing new", lambda place: None)):
            visits = []
            for _ in range(VISITS):
                before(place)
                visits.append(load(place))
            told(f"{name}, by its address", visits)
            clicks = [click(place, lambda: before(place)) for _ in range(VISITS)]  # noqa: B023
            seen.append(told(f"{name}, by a click", clicks))
    assert all(visit.visible <= BAR_MS for visit in seen)
