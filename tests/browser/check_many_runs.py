"""Time until the Metrics page shows its charts with 100,000 stored answers.

Takes minutes and needs an idle machine, so it is not collected with the other tests; run
``python -m pytest -s -n 0`` with this file's name. Each figure is the median of several visits, in
milliseconds from the click or the start of the navigation until the charts are drawn: those visible
without scrolling, and all.

The browser's cache is warm, as on repeated visits. The same page with ten answers, visited by
turns, shows the share of the browser: loading Streamlit's scripts and plotly, and drawing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
from tests.browser.conftest import VIEWPORT, free_port, serving
from tests.browser.screen import eventually
from tests.db.many_runs import MODELS, PRECISIONS, fill, some_run
from tests.metrics.row_samples import a_host, a_measurement, a_quality

VISITS = 5
CHARTS = 7
PATIENCE_S = 60.0
MANY, FEW = 100_000, 10
MAX_RATIO = 1.4
"""Maximum time from the click to visible charts, relative to that with few answers."""
FIRST_PAGE_MS = 5000
"""Time on the first page before the click; plotly is preloaded while nothing changes there."""
QUIET_MS = 1000
"""Drawing is finished after this time without a change in any chart."""
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
class Site:
    """Home folder and port of a server, and a browser context with its cache."""

    home: Path
    port: int
    context: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def sites(browser: Any, tmp_path: Path) -> Iterator[dict[int, Site]]:
    """Return the sites by their number of answers."""
    made = {}
    for answers in (MANY, FEW):
        home = tmp_path / str(answers)
        store(home, answers)
        context = browser.new_context(viewport=VIEWPORT)
        context.set_default_timeout(1000 * PATIENCE_S)
        context.add_init_script(WATCH)
        made[answers] = Site(home, free_port(), context)
    yield made
    for site in made.values():
        site.context.close()


def store(home: Path, answers: int) -> None:
    """Store answers and measurements."""
    (home / "paddock").mkdir(parents=True)
    runs = RunStore.open(Settings(home=home / "paddock"))
    fill(runs.database, answers)
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


def answer(site: Site) -> None:
    """Record an answer that ends now, as another process."""
    runs = RunStore.open(Settings(home=site.home / "paddock"))
    start, result = some_run(random.Random(), utc_now())
    started = utc_now() - timedelta(seconds=5)
    runs.add(replace(start, started_at=started), replace(result, ended_at=utc_now()))
    runs.close()


def watch(page: Any) -> Visit:
    """Wait until all charts are drawn and return the times."""

    def settled() -> dict[str, float] | None:
        seen = page.evaluate("({...__charts, now: performance.now()})")
        return seen if seen["all"] and seen["now"] - seen["last"] > QUIET_MS else None

    seen = eventually(settled, "the charts are drawn", PATIENCE_S)
    visible = min(seen["visible"] or seen["all"], seen["all"])
    return Visit(visible - seen["start"], seen["all"] - seen["start"])


def load(site: Site) -> Visit:
    """Open the page by its URL."""
    page = site.context.new_page()
    page.goto(f"{site.url}/metrics")
    visit = watch(page)
    page.close()
    return visit


def click(site: Site, before: Callable[[], None] = lambda: None) -> Visit:
    """Open the page with a click on the first page, after some time there."""
    page = site.context.new_page()
    page.goto(f"{site.url}/instruct")
    page.get_by_test_id("stChatInput").wait_for()
    page.wait_for_timeout(FIRST_PAGE_MS)
    before()
    page.get_by_role("link", name="Metrics").first.click()
    visit = watch(page)
    page.close()
    return visit


def by_turns(
    name: str, sites: dict[int, Site], visit: Callable[[Site], Visit], left_out: int = 0
) -> dict[int, Visit]:
    """Visit the sites by turns; print and return the medians.

    Args:
        left_out: visits at the beginning that do not count.
    """
    visits: dict[int, list[Visit]] = {answers: [] for answers in sites}
    for _ in range(VISITS):
        for answers, site in sites.items():
            visits[answers].append(visit(site))
    medians = {}
    for answers, seen in visits.items():
        counted = seen[left_out:]
        found = Visit(median(v.visible for v in counted), median(v.all for v in counted))
        print(
            f"\n{name}, {answers} answers: visible {found.visible:.0f} ms, all {found.all:.0f} ms"
        )
        medians[answers] = found
    return medians


def first_visit(site: Site) -> Visit:
    """Open the page after a start of the server."""
    with serving("streamlit_app.py", site.home, port=site.port):
        return load(site)


def load_after_answer(site: Site) -> Visit:
    """Open the page after a new answer."""
    answer(site)
    return load(site)


def test_the_charts_of_very_many_answers_are_shown_quickly(sites: dict[int, Site]) -> None:
    by_turns("first visit after the start, by URL", sites, first_visit, left_out=1)
    with ExitStack() as running:
        for site in sites.values():
            running.enter_context(serving("streamlit_app.py", site.home, port=site.port))
            load(site)
        by_turns("after a new answer, by URL", sites, load_after_answer)
        by_turns("nothing new, by URL", sites, load)
        clicks = [
            by_turns("after a new answer, by click", sites, lambda s: click(s, lambda: answer(s))),
            by_turns("nothing new, by click", sites, click),
        ]
    for medians in clicks:
        assert medians[MANY].visible <= MAX_RATIO * medians[FEW].visible
