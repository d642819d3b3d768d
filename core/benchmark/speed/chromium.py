"""Chromium with a page of the app: sends an instruction by link and Enter, and times the answer.

Playwright is a development requirement (``requirements-dev.txt``).
"""

from __future__ import annotations

import os
import shutil
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import psutil

from core.benchmark.speed.app import QUESTION, START_S, Served
from core.errors import GenerationError

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
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


@dataclass(frozen=True)
class CpuSeconds:
    """Processor time of the processes that share the machine while an answer streams."""

    model: float
    server: float
    browser: float

    def __sub__(self, other: CpuSeconds) -> CpuSeconds:
        return CpuSeconds(
            self.model - other.model, self.server - other.server, self.browser - other.browser
        )


@dataclass(frozen=True)
class BrowserAnswer:
    """Measurements of one answer in the browser."""

    seconds: float
    """From pressing Enter to the end."""
    received: int
    """Bytes on the WebSocket."""
    cpu: CpuSeconds


def missing() -> str | None:
    """Return why Chromium cannot be used here; None if it can."""
    if find_spec("playwright") is None:
        return "Playwright is not installed (requirements-dev.txt)"
    return None if _found() else "Chromium was not found; set PADDOCK_CHROMIUM to its path"


class Chromium:
    """A browser with a window of fixed size."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def measure_answer(self, served: Served, query: Mapping[str, object]) -> BrowserAnswer:
        """Measure one answer, from pressing Enter to its end."""
        page = self._open_page(served, query, watch=True)
        before = _cpu_seconds(served)
        page.ask()
        page.wait_for_selector(_ENDED, timeout=1000 * _ANSWER_S)
        asked, ended = page.evaluate("() => [window.asked, window.ended]")
        seen = BrowserAnswer(
            (ended - asked) / 1000, page.received_bytes(), _cpu_seconds(served) - before
        )
        page.close()
        return seen

    def wait_for_first_token(self, served: Served, query: Mapping[str, object]) -> None:
        """Press Enter and wait until the first token is on the page."""
        page = self._open_page(served, query, watch=False)
        page.ask()
        page.wait_for_function(
            """() => [...document.querySelectorAll('[data-testid="stChatMessage"]')].some((m, at) =>
                 at % 2 && [...m.querySelectorAll('[data-testid="stMarkdown"]')].some(p =>
                   !p.querySelector('[data-testid="stCaptionContainer"]')
                   && p.textContent.trim()))""",
            polling=20,
        )
        page.close()

    def _open_page(self, served: Served, query: Mapping[str, object], *, watch: bool) -> _Page:
        """Open a new page on which only pressing Enter is left to do."""
        page = _Page(self._context.new_page())
        page.set_default_timeout(1000 * START_S)
        link = {**query, "device": "CPU", "pace": "full", "instruction": QUESTION}
        address = urllib.parse.urlencode(link)
        page.goto(f"{served.url}/instruct?{address}")
        page.await_question()
        if watch:
            page.get_by_text("On disk").first.wait_for()
            page.evaluate(_WATCH, _ENDED)
            page.reset_bytes()
        return page


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Start the browser for the duration of the ``with`` block.

    Raises:
        GenerationError: the page did not show what was expected.
    """
    from playwright.sync_api import Error, sync_playwright

    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=_found(), args=list(_FLAGS))
            try:
                yield Chromium(browser.new_context(viewport={"width": 1280, "height": 900}))
            finally:
                browser.close()
    except Error as error:
        reason = str(error).splitlines()[0]
        raise GenerationError(
            f"The browser did not receive the answer ({reason}). Open the page to see why."
        ) from error


class _Page:
    """Page of Chromium that counts the bytes received on its WebSocket."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._bytes = 0
        self._composer = page.get_by_test_id("stChatInputTextArea")
        page.on("websocket", lambda socket: socket.on("framereceived", self._add))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._page, name)

    def await_question(self) -> None:
        """Wait until the question of the link is in the composer."""
        self._page.wait_for_function(
            "question => document.querySelector('[data-testid=\"stChatInputTextArea\"]')?.value"
            " === question",
            arg=QUESTION,
        )

    def ask(self) -> None:
        """Submit the question."""
        self._composer.press("Enter")

    def received_bytes(self) -> int:
        """Return the bytes since the last reset."""
        return self._bytes

    def reset_bytes(self) -> None:
        """Start counting from zero."""
        self._bytes = 0

    def _add(self, payload: str | bytes) -> None:
        self._bytes += len(payload)


def _cpu_seconds(served: Served) -> CpuSeconds:
    server = psutil.Process(served.process)
    models = _spent(server.children(recursive=True))
    everything = _spent(psutil.Process().children(recursive=True))
    own = _spent([server])
    return CpuSeconds(model=models, server=own, browser=everything - models - own)


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


def _found() -> str:
    return os.environ.get("PADDOCK_CHROMIUM") or next(
        filter(None, map(shutil.which, _BROWSERS)), ""
    )
