"""Measures in Chromium how much of the runtime's speed reaches the user of a browser.

An instruction is sent by link and Enter. Playwright is a development requirement
(``requirements-dev.txt``); without it, or without Chromium, these rows are not measured.
"""

from __future__ import annotations

import os
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import psutil

from core.benchmark.speed.app import (
    FORCED_TOKENS,
    MIDDLE_TOKENS,
    QUESTION,
    ROUNDS,
    START_S,
    Served,
    evict_libraries,
    free_port,
    generate_once,
    serving,
)
from core.benchmark.speed.paired import PairedRun, in_turns
from core.benchmark.speed.rows import Row, rate_row
from core.catalogue import DEFAULT_PRECISION, Precision, catalogue
from core.errors import GenerationError

if TYPE_CHECKING:
    from core.benchmark.speed.suite import Suite

LENGTHS = (240, 480, 960)
"""Lengths in tokens of the answers whose bytes are compared."""
SEEDS = (1, 2)
"""One answer of each length per seed, because the lengths of paragraphs vary."""

_PLAIN = {"greedy": "true", "speculation": "off"}
"""As the runtime alone, which generates one token per step."""

_BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first takes a third of the processor time of a window that nobody sees."""
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_ANSWER_S = 300.0

_WATCH = """
ended => {
  window.addEventListener("keydown", () => { window.asked = performance.now(); }, true);
  new MutationObserver(() => {
    if (window.asked && !window.ended && document.querySelector(ended))
      window.ended = performance.now();
  }).observe(document.body, {childList: true, subtree: true});
}
"""
"""Records when Enter was pressed and when the page showed the finished answer."""

_ENDED = "[class*='st-key-entry_']"
_COMPOSER = "stChatInputTextArea"

Query = Mapping[str, object]
"""Parameters of a link to the Instruct page."""


def page_rows(suite: Suite) -> Iterator[Row]:
    """Yield the rows of tokens/s in the browser relative to the runtime's, and of the bytes
    transferred."""
    keys = [key for key, row in catalogue().items() if row.embedded]
    limits = {"410 M shape": 0.95} | dict.fromkeys(keys, 0.8)
    bytes_row = Row(
        name="bytes to the browser for 960 tokens, relative to the line through 240 and 480",
        limit=1.1,
        at_most=True,
    )
    if why := missing():
        rows = [Row(name=_rate_name(label), limit=limit) for label, limit in limits.items()]
        yield from (replace(row, detail=why) for row in [*rows, bytes_row])
        return
    middle = suite.middle(Precision.INT8)
    suite.report("410 M shape: tokens/s in the browser.")
    query: dict[str, object] = {"model": middle.parent.name, "precision": "int8"}
    query |= {"format": "plain", "tokens": MIDDLE_TOKENS, **_PLAIN}
    with (
        suite.paired(suite.ours(middle, Precision.INT8)) as paired,
        serving(middle.parents[2], endless=True) as served,
        chromium() as browser,
    ):
        row = _rate_row("410 M shape", limits["410 M shape"], browser, served, query, paired)
    yield row
    folders = suite.embedded()
    with serving(suite.settings.home, endless=True) as served, chromium() as browser:
        for key, folder in folders.items():
            suite.report(f"{key}: tokens/s in the browser.")
            query = {"model": key, "precision": DEFAULT_PRECISION.value}
            forced = {**query, **_PLAIN, "tokens": FORCED_TOKENS}
            with suite.paired(suite.ours(folder, DEFAULT_PRECISION)) as paired:
                row = _rate_row(key, limits[key], browser, served, forced, paired)
            yield row
        suite.report("Bytes to the browser, at reading speed.")
        # Of an immediate answer hardly any intermediate state is drawn. At the speed of a large
        # model the bytes show how each update grows with the length.
        query["pace"] = "reading"
        sent = [
            mean(
                browser.measure_answer(served, {**query, "tokens": length, "seed": seed}).received
                for seed in SEEDS
            )
            for length in LENGTHS
        ]
    yield _with_bytes(bytes_row, sent)


def start_rows(suite: Suite) -> Iterator[Row]:
    """Yield the rows of seconds from the start of the server to the first token of the last used
    model.

    Before the first start the libraries' files are removed from the system's cache, if the system
    allows it. The second start follows at once, on the same address, so that the browser has cached
    the page.
    """
    key = next(key for key, row in catalogue().items() if row.embedded)
    first, second = (
        Row(name=f"{which} start to the first token of {key}, seconds", limit=limit, at_most=True)
        for which, limit in (("cold", 8), ("second", 6))
    )
    if why := missing():
        yield from (replace(row, detail=why) for row in (first, second))
        return
    suite.stored(key)
    generate_once(suite.settings, key)
    port = free_port()
    with chromium() as browser:
        for row in (first, second):
            suite.report(f"{key}: {'first' if row is first else 'second'} start.")
            evicted = evict_libraries() if row is first else 0
            began = time.perf_counter()
            with serving(suite.settings.home, port) as served:
                answered = time.perf_counter() - began
                query = {"model": key, "precision": DEFAULT_PRECISION.value}
                browser.wait_for_first_token(served, query)
                took = time.perf_counter() - began
            detail = f"the server responded after {answered:.1f} s"
            if evicted:
                detail += f"; {evicted:,} files were read from disk again"
            yield replace(row, value=took, detail=detail)


def _rate_name(label: str) -> str:
    return f"tokens/s in the browser, {label}, relative to the runtime alone"


def _rate_row(
    label: str, limit: float, browser: Chromium, served: Served, query: Query, paired: PairedRun
) -> Row:
    """Measure tokens/s in the browser: additional tokens over additional seconds of long answers
    compared with short ones, from submitting to the end, so that the prompt and the page do not
    count.

    All run in turns, and medians count. The first answer of each kind, which loads files and warms
    up, is not counted. All answers are greedy: sampling from 50 000 tokens is not a cost of the
    page.
    """
    tokens = int(str(query["tokens"]))
    short = tokens // 8
    runs: dict[str, Callable[[int], Any]] = {
        "alone": lambda _: paired.only.run(do="answer", prompt_tokens=32, new_tokens=tokens),
        "short": lambda _: browser.measure_answer(served, {**query, "tokens": short}),
        "long": lambda _: browser.measure_answer(served, query),
    }
    found = in_turns(ROUNDS, runs)

    def further(figure: str) -> float:
        """Return by how much the median of the long answers is above that of the short ones."""
        more, less = (
            median(getattr(one, figure) for one in found[length]) for length in ("long", "short")
        )
        return more - less

    seconds = further("seconds")
    model, server, chrome = (
        further(f"{process}_cpu_s") / seconds for process in ("model", "server", "browser")
    )
    return rate_row(
        _rate_name(label),
        (tokens - short) / seconds,
        median(each["tokens_per_s"] for each in found["alone"]),
        limit,
        f"; cores used by the model {model:.2f}, the server {server:.2f}, Chromium {chrome:.2f}",
    )


def _with_bytes(row: Row, sent: Sequence[float]) -> Row:
    """Compare the bytes of the longest answers with a straight line through the shorter ones."""
    (low, middle, high), (few, some, many) = sent, LENGTHS
    detail = ", ".join(
        f"{each:,.0f} B for {length} tokens" for each, length in zip(sent, LENGTHS, strict=True)
    )
    return replace(
        row,
        value=high / (low + (many - few) * (middle - low) / (some - few)),
        detail=f"{detail}, at reading speed",
    )


# The browser


@dataclass(frozen=True)
class BrowserAnswer:
    """Measurements of one answer in the browser, and the processor time spent meanwhile."""

    seconds: float
    """From pressing Enter to the end."""
    received: int
    """Bytes on the WebSocket."""
    model_cpu_s: float
    server_cpu_s: float
    browser_cpu_s: float


def missing() -> str | None:
    """Return why Chromium cannot be used here; None if it can."""
    if find_spec("playwright") is None:
        return "Playwright is not installed (requirements-dev.txt)"
    return None if find_chromium() else "Chromium was not found; set PADDOCK_CHROMIUM to its path"


class Chromium:
    """A browser with a window of fixed size."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def measure_answer(self, served: Served, query: Query) -> BrowserAnswer:
        """Measure one answer, from pressing Enter to its end."""
        page, received = self._open_page(served, query)
        page.get_by_text("On disk").first.wait_for()
        page.evaluate(_WATCH, _ENDED)
        received.clear()
        before = _cpu_seconds(served)
        page.get_by_test_id(_COMPOSER).press("Enter")
        page.wait_for_selector(_ENDED, timeout=1000 * _ANSWER_S)
        asked, ended = page.evaluate("() => [window.asked, window.ended]")
        size = sum(received)
        spent = [now - then for now, then in zip(_cpu_seconds(served), before, strict=True)]
        page.close()
        return BrowserAnswer((ended - asked) / 1000, size, *spent)

    def wait_for_first_token(self, served: Served, query: Query) -> None:
        """Press Enter and wait until the first token is on the page."""
        page, _ = self._open_page(served, query)
        page.get_by_test_id(_COMPOSER).press("Enter")
        page.wait_for_function(
            """() => [...document.querySelectorAll('[data-testid="stChatMessage"]')].some((m, at) =>
                 at % 2 && [...m.querySelectorAll('[data-testid="stMarkdown"]')].some(p =>
                   !p.querySelector('[data-testid="stCaptionContainer"]')
                   && p.textContent.trim()))""",
            polling=20,
        )
        page.close()

    def _open_page(self, served: Served, query: Query) -> tuple[Any, list[int]]:
        """Open a new page on which only pressing Enter is left to do.

        Returns:
            The page, and the sizes of the messages that it receives on its WebSocket.
        """
        page, received = self._context.new_page(), []
        page.on(
            "websocket",
            lambda socket: socket.on("framereceived", lambda data: received.append(len(data))),
        )
        page.set_default_timeout(1000 * START_S)
        link = {"device": "CPU", "pace": "full", "instruction": QUESTION, **query}
        page.goto(f"{served.url}/instruct?{urllib.parse.urlencode(link)}")
        page.wait_for_function(
            f"question => document.querySelector('[data-testid=\"{_COMPOSER}\"]')?.value"
            " === question",
            arg=QUESTION,
        )
        return page, received


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Start the browser for the duration of the ``with`` block.

    Raises:
        GenerationError: the page did not show what was expected.
    """
    from playwright.sync_api import Error, sync_playwright

    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(_FLAGS))
            try:
                yield Chromium(browser.new_context(viewport={"width": 1280, "height": 900}))
            finally:
                browser.close()
    except Error as error:
        reason = str(error).splitlines()[0]
        raise GenerationError(
            f"The browser did not receive the answer ({reason}). Open the page to see why."
        ) from error


def _cpu_seconds(served: Served) -> tuple[float, float, float]:
    """Return the processor time of the models, the server and the browser."""
    server = psutil.Process(served.process)
    models = _spent(server.children(recursive=True))
    everything = _spent(psutil.Process().children(recursive=True))
    own = _spent([server])
    return models, own, everything - models - own


def _spent(processes: list[psutil.Process]) -> float:
    """Return the processor time of these processes; one that has ended is ignored."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def find_chromium() -> str:
    """Return the path of a Chromium; empty if there is none."""
    return os.environ.get("PADDOCK_CHROMIUM") or next(
        filter(None, map(shutil.which, _BROWSERS)), ""
    )
