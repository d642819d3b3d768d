"""What a person in front of a browser gets of the runtime's speed, measured in Chromium.

Playwright is among the tools for tests (``requirements-dev.txt``); without it, or without a
Chromium, these rows are not measured.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from core.benchmark.speed.duel import Way
from core.benchmark.speed.rows import Bar, Row
from core.catalogue import DEFAULT_PRECISION, Precision
from core.errors import GenerationError
from core.runtimes.spec import ModelSpec
from core.settings import CHECKOUT, Settings

FORCED_TOKENS = 960
"""What the embedded models have positions for, beside a prompt."""
MIDDLE_TOKENS = 200
ROUNDS = 5
"""Answers of one kind that are seen, after a first one that is not counted."""
LENGTHS = (240, 480, 960)
"""Tokens of the answers whose bytes are compared."""

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
_APP = Path("streamlit_app.py")
ENDLESS_APP = Path("core/ui/endless_app.py")
_START_S = 90.0
_ANSWER_S = 300.0
_QUESTION = "Suggest three names for a sailing boat."

_WATCH = """
ended => {
  window.addEventListener("click", () => { window.clicked = performance.now(); }, true);
  new MutationObserver(() => {
    if (window.clicked && !window.ended && document.querySelector(ended))
      window.ended = performance.now();
  }).observe(document.body, {childList: true, subtree: true});
}
"""
"""Notes when Run was clicked and when the page showed the answer at its end."""

_ENDED = "[class*='st-key-entry_']"

Alone = Callable[..., float]
"""Tokens/s of a way of answering by itself, with the contender's command."""


def page_rows(
    settings: Settings,
    embedded: Mapping[str, Path],
    middle: Path,
    alone: Alone,
    tell: Callable[[str], None],
) -> Iterator[Row]:
    """Tokens/s seen in the browser against the runtime's, and the bytes it takes.

    Args:
        embedded: folders of the embedded models' IRs by key.
        middle: folder of the 410 M shape's IR, which the store finds by its checkpoint.
        alone: measures the runtime by itself.
    """
    names = {key: f"tokens/s in the browser, {key}, against the runtime alone" for key in embedded}
    middle_name = "tokens/s in the browser, 410 M shape, against the runtime alone"
    bytes_name = "bytes to the browser for each token, 240 to 960 against 240 to 480 tokens"
    bars = [Bar(limit=0.95), *[Bar(limit=0.8)] * len(embedded), Bar(limit=1.1, at_most=True)]
    if why := _missing():
        every = [middle_name, *names.values(), bytes_name]
        yield from (
            Row(name=name, bar=bar, detail=why) for name, bar in zip(every, bars, strict=True)
        )
        return
    tell("410 M shape: what the browser sees.")
    spec = ModelSpec(middle.parent.name, Precision.INT8, "CPU")
    query = {
        "model": middle.parent.name,
        "precision": "int8",
        "format": "plain",
        "tokens": MIDDLE_TOKENS,
        "greedy": "true",
    }
    way = Way("paddock", middle, spec)
    before = alone(way, prompt_tokens=32, new_tokens=MIDDLE_TOKENS)
    with serving(ENDLESS_APP, middle.parents[2]) as url, _browser() as chromium:
        rate = _rate(chromium, url, query)
    after = alone(way, prompt_tokens=32, new_tokens=MIDDLE_TOKENS)
    yield _seen_row(middle_name, bars[0], rate, (before, after))
    sent: dict[int, list[int]] = {length: [] for length in LENGTHS}
    with serving(ENDLESS_APP, settings.home) as url, _browser() as chromium:
        for key, name in names.items():
            tell(f"{key}: what the browser sees.")
            query = {"model": key, "precision": DEFAULT_PRECISION.value, "greedy": "true"}
            forced = {**query, "tokens": FORCED_TOKENS}
            way = Way("paddock", embedded[key], ModelSpec(key, DEFAULT_PRECISION, "CPU"))
            before = alone(way, prompt_tokens=32, new_tokens=FORCED_TOKENS)
            rate = _rate(chromium, url, forced)
            after = alone(way, prompt_tokens=32, new_tokens=FORCED_TOKENS)
            yield _seen_row(name, bars[1], rate, (before, after))
        query = {"model": key, "precision": DEFAULT_PRECISION.value, "seed": 7}
        for _ in range(5):
            for length in LENGTHS:
                _, count = _answered(chromium, url, {**query, "tokens": length})
                sent[length].append(count)
    low, middle_bytes, high = (median(sent[length]) for length in LENGTHS)
    value = ((high - low) / (LENGTHS[2] - LENGTHS[0])) / (
        (middle_bytes - low) / (LENGTHS[1] - LENGTHS[0])
    )
    detail = ", ".join(f"{median(sent[length]):,.0f} B for {length} tokens" for length in LENGTHS)
    yield Row(name=bytes_name, bar=bars[-1], value=value, detail=detail)


def start_rows(settings: Settings, key: str, tell: Callable[[str], None]) -> Sequence[Row]:
    """Seconds from starting the server to the first token of the last used model.

    Before the first start the files of the libraries are put out of the system's cache where the
    system lets us; the second follows at once, at the same address, so that the browser has kept
    what it loaded of the page.
    """
    names = {
        "first": f"cold start to the first token of {key}, seconds",
        "second": f"second start to the first token of {key}, seconds",
    }
    bars = {"first": Bar(limit=8, at_most=True), "second": Bar(limit=6, at_most=True)}
    if why := _missing():
        return [Row(name=names[which], bar=bars[which], detail=why) for which in names]
    _use_once(settings, key)
    rows = []
    port = _free_port()
    with _browser() as chromium:
        for which, name in names.items():
            tell(f"{key}: {which} start.")
            forgotten = _forget_libraries() if which == "first" else 0
            began = time.perf_counter()
            with serving(_APP, settings.home, port) as url:
                answered = time.perf_counter() - began
                query = {"model": key, "precision": DEFAULT_PRECISION.value}
                page = _asked(chromium, url, query)
                _first_letter(page)
                took = time.perf_counter() - began
                page.close()
            detail = f"the server answered after {answered:.1f} s"
            if forgotten:
                detail += f"; {forgotten:,} files were read from the disk again"
            rows.append(Row(name=name, bar=bars[which], value=took, detail=detail))
    return rows


def _seen_row(name: str, bar: Bar, rate: float, alone: tuple[float, float]) -> Row:
    """Answers alike in both, greedy: what drawing from 50 000 tokens costs is not the page's."""
    before, after = alone
    return Row(
        name=name,
        bar=bar,
        value=2 * rate / (before + after),
        detail=f"{rate:,.1f} against {before:,.1f} before and {after:,.1f} after, tokens/s",
    )


def _rate(chromium: Any, url: str, query: Mapping[str, object]) -> float:
    """Tokens/s as a person sees them: further tokens over further seconds of long answers against
    short ones, from the click to the end, so that the prompt and the page count for nothing.

    Answers by turns, the median of each; a first one, for which the browser loads what it needs,
    is not counted.
    """
    tokens = int(str(query["tokens"]))
    short = tokens // 8
    took: dict[int, list[float]] = {short: [], tokens: []}
    _answered(chromium, url, query)
    for _ in range(ROUNDS):
        for length, seconds in took.items():
            seconds.append(_answered(chromium, url, {**query, "tokens": length})[0])
    return (tokens - short) / (median(took[tokens]) - median(took[short]))


def _answered(chromium: Any, url: str, query: Mapping[str, object]) -> tuple[float, int]:
    """Seconds from the click to the end of one answer, and the bytes that the page received."""
    page = _asked(chromium, url, query, watch=True)
    page.wait_for_selector(_ENDED, timeout=1000 * _ANSWER_S)
    clicked, ended = page.evaluate("() => [window.clicked, window.ended]")
    received = page.received_bytes()
    page.close()
    return (ended - clicked) / 1000, received


class _Page:
    """A page of Chromium that adds up what it receives on its web socket."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._bytes = 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._add))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._page, name)

    def received_bytes(self) -> int:
        """So far."""
        return self._bytes

    def forget(self) -> None:
        """Count anew from here on."""
        self._bytes = 0

    def _add(self, payload: str | bytes) -> None:
        self._bytes += len(payload)


def _asked(chromium: Any, url: str, query: Mapping[str, object], *, watch: bool = False) -> _Page:
    """A new page on which Run was clicked."""
    page = _Page(chromium.new_page())
    page.set_default_timeout(1000 * _START_S)
    address = urllib.parse.urlencode({**query, "device": "CPU", "instruction": _QUESTION})
    page.goto(f"{url}/instruct?{address}")
    run = page.get_by_test_id("stBaseButton-primary")
    run.wait_for()
    if watch:
        page.get_by_text("On disk").first.wait_for()
        page.evaluate(_WATCH, _ENDED)
        page.forget()
    run.click()
    return page


def _first_letter(page: Any) -> None:
    page.wait_for_function(
        """() => [...document.querySelectorAll('[data-testid="stChatMessage"]')].some((m, at) =>
             at % 2 && [...m.querySelectorAll('[data-testid="stMarkdown"]')].some(p =>
               !p.querySelector('[data-testid="stCaptionContainer"]') && p.textContent.trim()))""",
        polling=20,
    )


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import Error, sync_playwright

    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=_found_browser(), args=list(_FLAGS)
            )
            try:
                yield chromium.new_context(viewport={"width": 1280, "height": 900})
            finally:
                chromium.close()
    except Error as error:
        reason = str(error).splitlines()[0]
        raise GenerationError(
            f"The browser did not get the answer ({reason}); look at the page by hand."
        ) from error


@contextmanager
def serving(app: Path, home: Path, port: int | None = None) -> Iterator[str]:
    """The app on this port, or on one of its own."""
    port = port or _free_port()
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PADDOCK_")}
    with tempfile.TemporaryFile() as told:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "streamlit", "run", str(app)),
                *("--server.port", str(port), "--server.headless", "true"),
            ],
            cwd=CHECKOUT,
            env=kept | {"PADDOCK_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _await_server(server, url)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_server(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/healthz"):
            return
        time.sleep(0.02)
    raise GenerationError(
        "The app did not start for the measurement; `streamlit run streamlit_app.py` shows why."
    )


def _use_once(settings: Settings, key: str) -> None:
    """Have the model answer once, so that it is the last used one of this home folder."""
    subprocess.run(
        [
            *(sys.executable, "-m", "core", "generate", key, _QUESTION),
            *("--precision", DEFAULT_PRECISION.value, "--device", "CPU"),
        ],
        cwd=CHECKOUT,
        env=dict(os.environ) | {"PADDOCK_HOME": str(settings.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _forget_libraries() -> int:
    """Ask the system to forget what it has of the libraries' files; how many it was asked for."""
    if not hasattr(os, "posix_fadvise"):
        return 0
    count = 0
    for name in ("streamlit", "openvino", "openvino_genai", "openvino_tokenizers", "tokenizers"):
        spec = find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for path in Path(place).rglob("*"):
                if path.is_file():
                    descriptor = os.open(path, os.O_RDONLY)
                    try:
                        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    finally:
                        os.close(descriptor)
                    count += 1
    return count


def _found_browser() -> str:
    return os.environ.get("PADDOCK_CHROMIUM") or next(
        filter(None, map(shutil.which, _BROWSERS)), ""
    )


def _missing() -> str | None:
    """Why nothing can be seen in a browser here; None where it can."""
    if find_spec("playwright") is None:
        return "Playwright is not installed (requirements-dev.txt)"
    return None if _found_browser() else "no Chromium was found; name one in PADDOCK_CHROMIUM"
