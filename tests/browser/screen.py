"""Page object for the app in a browser, and control of the scripted runtime."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, WebSocketRoute

HERE = ("127.0.0.1", "localhost")
APP = "[data-testid='stApp']"
REOPEN_MS = 8_000
"""Time in milliseconds after which a list or popover that is not open is opened again: one that is
opened while the page is drawn may be closed again."""
LAST_TEXT = '[data-testid="stMarkdownContainer"]:not(.stProgress *)'
"""Text that is neither a caption nor the label of a progress bar."""
ENDED = re.compile(r"ended: |cut off at \d")
"""Matches the line of figures of a finished answer, or its details."""
FINISHED = "Regenerate"
"""Name of a button below every finished answer of the Instruct page."""


class Line:
    """Connection between a page and its server, which can hold back messages to the page."""

    def __init__(self, page: Page) -> None:
        self.sent = 0
        """Messages that the page has sent."""
        self._page, self._held = page, None
        page.route_web_socket("**/stream", self._join)
        page.reload()

    def hold(self) -> None:
        """Hold back all messages to the page."""
        self._held = []

    def release(self) -> None:
        """Deliver the messages held back."""
        held, self._held = self._held, None
        for message in held:
            self._socket.send(message)

    def await_sent(self, count: int) -> None:
        """Wait until the page has sent this many messages."""
        deadline = time.monotonic() + PATIENCE_S
        while self.sent < count:
            assert time.monotonic() < deadline, "the page did not send a message"
            self._page.wait_for_timeout(2)

    def _join(self, socket: WebSocketRoute) -> None:
        self._socket, server = socket, socket.connect_to_server()

        def from_page(message: bytes) -> None:
            self.sent += 1
            server.send(message)

        def from_server(message: bytes) -> None:
            if self._held is None:
                socket.send(message)
            else:
                self._held.append(message)

        socket.on_message(from_page)
        server.on_message(from_server)


class Stagehand:
    """Controls the scripted runtime of a server over its test routes."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home

    @property
    def database(self) -> Path:
        """Path of the server's database."""
        return self.home / "paddock" / "paddock.db"

    def script(self, text: str, **fields: Any) -> None:
        """Set the :class:`tests.browser.scripted.Script` of a model."""
        self._post("script", {"text": text, **fields})

    def release(self, count: int | None = None, model: str | None = None) -> None:
        """Release tokens; without a count, all tokens and a held loading."""
        wanted = {"n": count, "model": model}
        query = "&".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        self._post(f"release?{query}", {})

    def reset(self) -> None:
        """Release everything and restore the default scripts."""
        self._post("reset", {})

    def state(self, model: str = "paddock-neox") -> dict[str, Any]:
        """Return the fields of :class:`tests.browser.scripted.State`."""
        url = f"{self.url}/test/state?model={model}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def _post(self, route: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self.url}/test/{route}", json.dumps(body).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()


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

    # Elements

    @property
    def url(self) -> str:
        """Current URL in the address bar; ``page.url`` may be out of date."""
        return self.page.evaluate("location.href")

    @property
    def path(self) -> str:
        """Path of the URL."""
        return urlsplit(self.url).path

    @property
    def composer(self) -> Locator:
        """Text area of the instruction at the bottom of the Instruct page."""
        return self.page.get_by_test_id("stChatInputTextArea")

    def attached(self, name: str) -> Locator:
        """A file that is attached to the instruction that is being written."""
        return self.page.get_by_test_id("stChatInput").get_by_text(name)

    @property
    def instruction(self) -> Locator:
        """Text area of the instruction on the Compare page."""
        return self.page.get_by_role("textbox", name="Instruction", exact=True)

    @property
    def context_box(self) -> Locator:
        """Text area of the context passage, behind a button or in an expander."""
        return self.page.get_by_role("textbox", name="Context passage")

    @property
    def live(self) -> Locator:
        """The running answer with text and figures."""
        return self.page.locator(".st-key-answer_under_way")

    @property
    def live_figures(self) -> Locator:
        """Progress or figures below the running answer."""
        return self.live.locator('[data-testid="stCaptionContainer"], .stProgress').first

    def live_text(self) -> str:
        """Return the text of the running answer so far."""
        return self.text_of(self.live.locator(LAST_TEXT).last)

    @property
    def entries(self) -> Locator:
        """The questions with finished answers, the oldest first."""
        return self.page.locator('[class*="st-key-entry_"]')

    @property
    def turns(self) -> Locator:
        """The questions with their answers, the oldest first."""
        return self.page.locator('[class*="st-key-entry_"], .st-key-turn_under_way')

    @property
    def newest(self) -> Locator:
        """The newest finished answer, with its figures and actions."""
        return self.entries.last.get_by_test_id("stChatMessageContent").nth(1)

    def details(self) -> str:
        """Return the text of the details of the newest answer."""
        body = self.page.get_by_test_id("stPopoverBody")
        self.open(self.newest.get_by_role("button", name="Details"), body.first)
        text = self.text_of(body)
        self.page.keyboard.press("Escape")
        return text

    @property
    def notice(self) -> Locator:
        """Messages in coloured boxes."""
        return self.page.get_by_role("alert")

    def button(self, name: str) -> Locator:
        """Return the buttons whose name starts with this text."""
        return self.page.get_by_role("button", name=re.compile(rf"(^|\s){name}\b"))

    def text_of(self, where: Locator) -> str:
        """Return the visible text of an element; empty if there is none."""
        # In one step: the element may be replaced at any time.
        found = where.evaluate_all("(all) => all.slice(0, 1).map((each) => each.innerText)")
        return "".join(found).replace("▌", "").strip()

    def at_rest(self, element: Locator) -> dict[str, float]:
        """Return the place of an element once it has stopped moving."""

        def unmoved() -> dict[str, float] | None:
            before = element.bounding_box()
            self.page.wait_for_timeout(300)
            return before if before == element.bounding_box() else None

        return eventually(unmoved, "it has stopped moving")

    def answer_text(self) -> str:
        """Return the text of the newest finished answer."""
        return self.text_of(self.newest)

    # Actions

    def ready(self) -> Screen:
        """Wait for the Instruct page to be usable."""
        self.composer.wait_for()
        return self

    def settled(self) -> Screen:
        """Wait until the app has drawn everything and has removed what it drew before."""
        self.page.locator(f"{APP}[data-test-script-state='notRunning']").wait_for()
        # The last elements are shown in a timer of the page, which comes before this one.
        self.page.evaluate("new Promise((shown) => setTimeout(shown, 100))")
        return self

    def ask(self, instruction: str) -> None:
        """Enter an instruction and submit it."""
        self.composer.fill(instruction)
        self.composer.press("Enter")

    def ask_about(self, file: Path, instruction: str, taken: Callable[[], Any]) -> None:
        """Attach a file, enter an instruction and submit both.

        Args:
            taken: returns whether the app has received them.
        """
        # The file of a question before is gone, so that the wait below is for this one.
        eventually(lambda: self.attached(file.name).count() == 0, "it belonged to a question")
        self.page.locator("input[type=file]").set_input_files(file)
        self.attached(file.name).wait_for()
        self.ask(instruction)

        def sent() -> bool:
            unsent = self.composer.input_value()  # read first: the app may put the text back
            if not (received := bool(taken())) and unsent:
                self.composer.press("Enter")  # which does nothing while a file is uploaded
            return received

        eventually(sent, "the instruction and the file are sent")

    def open(self, handle: Locator, content: Locator) -> None:
        """Click what opens a list or popover until its content is visible."""
        from playwright.sync_api import TimeoutError

        def opened() -> bool:
            if not content.is_visible():
                handle.click()
                with suppress(TimeoutError):
                    content.wait_for(timeout=REOPEN_MS)
            return content.is_visible()

        eventually(opened, "it is open")

    def choose(self, box: Locator, option: Locator) -> None:
        """Select an option of a list, which closes when the page is redrawn."""
        from playwright.sync_api import TimeoutError

        def chosen() -> bool:
            self.open(box, option)
            with suppress(TimeoutError):
                option.click(timeout=REOPEN_MS)
                return True
            return False

        eventually(chosen, "it is selected")

    def open_settings(self) -> None:
        """Open the settings in the sidebar."""
        sidebar = self.page.get_by_test_id("stSidebar")
        settings = sidebar.get_by_text("Settings", exact=True)
        self.open(settings, sidebar.get_by_text("Greedy", exact=True))

    def await_answer(self, count: int = 1) -> None:
        """Wait for this many finished answers, and until they are drawn."""
        self.entries.nth(count - 1).get_by_role("button", name=FINISHED).wait_for()
        self.settled()

    def go_to(self, name: str) -> None:
        """Select a page in the navigation."""
        self.page.get_by_role("link", name=name, exact=True).click()

    # Checks

    def complaints(self) -> list[str]:
        """Return everything that must not happen on any page."""
        found = [f"request to another host: {url}" for url in self.outside]
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
        # If a page is opened by its path, Streamlit first looks for its server below that path.
        probe = re.search(r"/\w+/_stcore/(health|host-config)$", response.url)
        if response.status >= 400 and not probe:
            self.errors.append(f"{response.status} for {response.url}")

    def _on_console(self, message: Any) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(f"console: {message.text}")

    def _on_dialog(self, dialog: Any) -> None:
        self.errors.append(f"a script ran: {dialog.message}")
        dialog.dismiss()
