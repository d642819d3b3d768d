"""What a person sees and does, and what a test does behind the scenes."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, WebSocketRoute

HERE = ("127.0.0.1", "localhost")
PATIENCE_S = 15.0
LAST_TEXT = '[data-testid="stMarkdownContainer"]:not(.stProgress *)'
"""Text that is neither a caption nor the label of a progress bar."""
ENDED = re.compile(r"ended: |cut off at \d")
"""In the line of figures below every finished answer."""


def eventually(look: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Look until it gives something true, and return that."""
    deadline = time.monotonic() + patience_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {patience_s} s"
        time.sleep(0.03)
    return seen


class Line:
    """What goes between a page and its server from the next load on; the answers can be kept."""

    def __init__(self, page: Page) -> None:
        self.asked = 0
        """Messages that the page has sent."""
        self._page, self._kept = page, None
        page.route_web_socket("**/stream", self._join)
        page.reload()

    def keep(self) -> None:
        """Let nothing through to the page."""
        self._kept = []

    def let_go(self) -> None:
        """Give the page what was kept."""
        kept, self._kept = self._kept, None
        for message in kept:
            self._socket.send(message)

    def await_asked(self, count: int) -> None:
        """Wait until the page has sent so many messages."""
        deadline = time.monotonic() + PATIENCE_S
        while self.asked < count:
            assert time.monotonic() < deadline, "the page did not ask"
            self._page.wait_for_timeout(2)

    def _join(self, socket: WebSocketRoute) -> None:
        self._socket, server = socket, socket.connect_to_server()

        def on_asked(message: bytes) -> None:
            self.asked += 1
            server.send(message)

        def on_answer(message: bytes) -> None:
            if self._kept is None:
                socket.send(message)
            else:
                self._kept.append(message)

        socket.on_message(on_asked)
        server.on_message(on_answer)


class Stagehand:
    """Drives the scripted runtime of a server over its test routes."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home

    @property
    def database(self) -> Path:
        """The server's run database."""
        return self.home / "paddock" / "paddock.db"

    def script(self, text: str, **fields: Any) -> None:
        """Put a :class:`tests.browser.scripted.Script` on a model's stage."""
        self._post("script", {"text": text, **fields})

    def release(self, count: int | None = None, model: str | None = None) -> None:
        """Let tokens come; without a count all of them, and a held loading too."""
        wanted = {"n": count, "model": model}
        query = "&".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        self._post(f"release?{query}", {})

    def reset(self) -> None:
        """Let everything that waits go, and begin anew."""
        self._post("reset", {})

    def state(self, model: str = "paddock-neox") -> dict[str, Any]:
        """Fields of :class:`tests.browser.scripted.State`."""
        with urllib.request.urlopen(f"{self.url}/test/state?model={model}", timeout=10) as answer:
            return json.load(answer)

    def _post(self, route: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self.url}/test/{route}", json.dumps(body).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=10).close()


class Screen:
    """One browser page with the app in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(f"script error: {error}"))
        page.on("requestfailed", self._on_failed)
        page.on("dialog", self._on_dialog)

    # What is on it.

    @property
    def url(self) -> str:
        """The link in the address bar, now; ``page.url`` is as old as the last other look."""
        return self.page.evaluate("location.href")

    @property
    def path(self) -> str:
        """The link's path."""
        return urlsplit(self.url).path

    @property
    def instruction(self) -> Locator:
        """The instruction box."""
        return self.page.get_by_role("textbox", name="Instruction", exact=True)

    @property
    def context_box(self) -> Locator:
        """The box for the context passage, in its expander."""
        return self.page.get_by_role("textbox", name="Context passage")

    @property
    def live(self) -> Locator:
        """The answer under way: text and running figures."""
        return (
            self.page.locator(".st-key-answer_under_way")
            .get_by_test_id("stChatMessageContent")
            .nth(1)
        )

    @property
    def live_figures(self) -> Locator:
        """What is happening to it, below its text."""
        return self.live.locator('[data-testid="stCaptionContainer"], .stProgress').first

    def live_text(self) -> str:
        """Text of the answer under way so far."""
        return self.text_of(self.live.locator(LAST_TEXT).last)

    @property
    def entries(self) -> Locator:
        """The ended answers, the newest first."""
        return self.page.locator('[class*="st-key-entry_"]')

    @property
    def figures(self) -> Locator:
        """The figures below the newest answer."""
        return self.entries.first.get_by_text(ENDED)

    @property
    def notice(self) -> Locator:
        """Sentences in coloured boxes."""
        return self.page.get_by_role("alert")

    def button(self, name: str) -> Locator:
        """A button by the beginning of its name."""
        return self.page.get_by_role("button", name=re.compile(rf"(^|\s){name}\b"))

    def text_of(self, where: Locator) -> str:
        """Text of a place without what is invisible in it; empty where there is no such place."""
        if where.count() == 0:
            return ""
        return where.first.inner_text().replace("\u2060", "").replace("▌", "").strip()

    def answer_text(self) -> str:
        """Text of the newest ended answer."""
        return self.text_of(self.entries.first.get_by_test_id("stChatMessageContent").nth(1))

    # What a person does.

    def ready(self) -> Screen:
        """Wait for the Instruct page to be usable."""
        self.instruction.wait_for()
        self.button("Run").wait_for()
        return self

    def ask(self, instruction: str) -> None:
        """Type an instruction and press Run."""
        self.instruction.fill(instruction)
        self.button("Run").click()

    def stop(self) -> float:
        """Press Stop; returns when the click came, in seconds since the epoch."""
        note = "addEventListener('click', () => window.clickedAt = Date.now(), {capture: true})"
        self.page.evaluate(note)
        self.button("Stop").click()
        return self.page.evaluate("window.clickedAt") / 1000

    def await_answer(self, count: int = 1) -> None:
        """Wait for that many ended answers."""
        self.entries.nth(count - 1).get_by_text(ENDED).wait_for()

    def go_to(self, name: str) -> None:
        """Choose a page in the navigation."""
        self.page.get_by_role("link", name=name, exact=True).click()

    # What went wrong.

    def complaints(self) -> list[str]:
        """Everything that must not happen on any page."""
        found = [f"asked another host: {url}" for url in self.outside]
        found += self.errors
        if self.page.is_closed():
            return found
        boxes = self.page.get_by_test_id("stException")
        return found + [f"exception box: {box.inner_text()}" for box in boxes.all()]

    def _on_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in HERE:
            self.outside.append(request.url)

    def _on_failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # a page that was left
            self.errors.append(f"failed request: {request.url} ({request.failure})")

    def _on_response(self, response: Any) -> None:
        # Opened at a page's path, Streamlit first looks for its server below that path.
        probe = re.search(r"/\w+/_stcore/(health|host-config)$", response.url)
        if response.status >= 400 and not probe:
            self.errors.append(f"{response.status} for {response.url}")

    def _on_console(self, message: Any) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(f"console: {message.text}")

    def _on_dialog(self, dialog: Any) -> None:
        self.errors.append(f"a script ran: {dialog.message}")
        dialog.dismiss()
