"""Client without a browser: one session of the app over its websocket.

Twenty browsers do not fit on a small machine and are not what is tested. Like a browser, a visitor
keeps the elements that the server sends by their position and drops those of earlier runs, sends
its widget states with every run, and reruns fragments at their intervals.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.Common_pb2 import ChatInputValue
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.waiting import PATIENCE_S

LARGEST_MESSAGE = 64 * 2**20
_LISTEN_S = 0.02


@dataclass
class _Placed:
    """An element or block and the run that drew it."""

    message: Any
    run: str
    fragment: str


class Visitor:
    """One session on one page; end it with :meth:`close`."""

    def __init__(self, url: str, *, cookies: str = "") -> None:
        """
        Args:
            url: URL of the page with its query.
            cookies: ``Cookie`` header of a signed-in browser.
        """
        parts = urlsplit(url)
        self._page, self._query = parts.path.strip("/"), parts.query
        self._open = ExitStack()
        self._socket = self._open.enter_context(
            connect(
                f"ws://{parts.netloc}/_stcore/stream",
                subprotocols=["streamlit"],
                additional_headers={"Cookie": cookies} if cookies else {},
                max_size=LARGEST_MESSAGE,
            )
        )
        self._places: dict[tuple[int, ...], _Placed] = {}
        self._widgets: dict[str, WidgetState] = {}
        self._timers: dict[str, tuple[float, float]] = {}
        self._script, self._now, self._drawn = "", "", frozenset[str]()
        self._sending, self._changed = threading.Lock(), threading.Condition()
        self._closed = threading.Event()
        self.runs = 0
        """Finished runs of the whole page."""
        self.failures: list[str] = []
        """Exceptions shown by the app."""
        threading.Thread(target=self._listen, name=f"visitor {url}", daemon=True).start()
        self._run()
        self.until(lambda: self.runs > 0, "the page is drawn")

    def close(self) -> None:
        """Disconnect like a closed tab."""
        self._closed.set()
        self._open.close()

    # Elements

    def texts(self, within: str = "") -> list[str]:
        """Return the Markdown texts on the page in order.

        Args:
            within: key of a container, to return only the texts in it.
        """
        with self._changed:
            roots = [
                path
                for path, placed in self._places.items()
                if within and f"-{within}" in getattr(placed.message, "id", "")
            ]
            return [
                placed.message.markdown.body
                for path, placed in sorted(self._places.items())
                if _kind(placed.message) == "markdown"
                and (not within or any(path[: len(root)] == root for root in roots))
            ]

    def button(self, label: str) -> Any | None:
        """Return the button with this label, or None."""
        return next((found for found in self._elements("button") if found.label == label), None)

    def can_press(self, label: str) -> bool:
        """Return whether there is an enabled button with this label."""
        button = self.button(label)
        return button is not None and not button.disabled

    def until(self, condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
        """Wait until the condition is true and return its value."""
        deadline = time.monotonic() + within_s
        with self._changed:
            while not (found := condition()):
                left = deadline - time.monotonic()
                assert left > 0 and not self._closed.is_set(), f"timed out waiting: {what}"
                self._changed.wait(min(left, 0.5))
        return found

    # Actions

    def type(self, label: str, text: str) -> None:
        """Enter a text into the text area with this label."""
        area = next(found for found in self._elements("text_area") if found.label == label)
        with self._sending:
            self._widgets[area.id] = WidgetState(id=area.id, string_value=text)
        self._run()

    def ask(self, text: str) -> None:
        """Send a text with the composer."""
        (box,) = self._elements("chat_input")
        self._run(WidgetState(id=box.id, chat_input_value=ChatInputValue(data=text)))

    def click(self, label: str) -> None:
        """Click the button with this label once it is enabled."""
        self.until(lambda: self.can_press(label), f"{label} can be pressed")
        button = self.button(label)
        self._run(WidgetState(id=button.id, trigger_value=True))

    # The protocol

    def _elements(self, kind: str) -> Iterator[Any]:
        with self._changed:
            found = [
                getattr(placed.message, kind)
                for placed in self._places.values()
                if _kind(placed.message) == kind
            ]
        yield from found

    def _run(self, *triggers: WidgetState, fragment: str = "") -> None:
        with self._sending:
            state = ClientState(
                query_string=self._query,
                page_name="" if self._script else self._page,
                page_script_hash=self._script,
                fragment_id=fragment,
                is_auto_rerun=bool(fragment),
            )
            state.widget_states.widgets.extend([*self._widgets.values(), *triggers])
            self._socket.send(BackMsg(rerun_script=state).SerializeToString())

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                with suppress(TimeoutError):
                    self._take(ForwardMsg.FromString(self._socket.recv(timeout=_LISTEN_S)))
                self._draw_fragments()
            except ConnectionClosed:
                self._closed.set()

    def _draw_fragments(self) -> None:
        now = time.monotonic()
        for fragment, (interval, due) in list(self._timers.items()):
            if now >= due:
                self._timers[fragment] = (interval, now + interval)
                self._run(fragment=fragment)

    def _take(self, message: ForwardMsg) -> None:
        with self._changed:
            match message.WhichOneof("type"):
                case "new_session":
                    run = message.metadata.run
                    self._now, self._drawn = run.script_run_id, frozenset(run.fragment_ids)
                    if not self._drawn:
                        self._timers.clear()
                case "navigation":  # the page selected by the shell
                    self._script = message.navigation.page_script_hash
                case "delta":
                    self._place(message)
                case "page_info_changed":
                    self._query = message.page_info_changed.query_string
                case "auto_rerun":
                    every = message.auto_rerun.interval
                    self._timers[message.auto_rerun.fragment_id] = (every, time.monotonic() + every)
                case "stop_auto_rerun":
                    for fragment in message.stop_auto_rerun.fragment_ids:
                        self._timers.pop(fragment, None)
                case "script_finished":
                    self._finish(message.script_finished)
                case "ref_hash":
                    raise AssertionError("a visitor that keeps no messages was sent a reference")
            self._changed.notify_all()

    def _place(self, message: ForwardMsg) -> None:
        delta, run = message.delta, self._now
        path = tuple(message.metadata.delta_path)
        kind = delta.WhichOneof("type")
        if kind == "new_element":
            self._drop(path)
            self._places[path] = _Placed(delta.new_element, run, delta.fragment_id)
            if delta.new_element.WhichOneof("type") == "exception":
                self.failures.append(delta.new_element.exception.message)
        elif kind == "add_block":
            self._places[path] = _Placed(delta.add_block, run, delta.fragment_id)

    def _drop(self, path: tuple[int, ...]) -> None:
        for other in [place for place in self._places if place[: len(path)] == path]:
            del self._places[other]

    def _finish(self, status: int) -> None:
        if status == ForwardMsg.FINISHED_SUCCESSFULLY:
            self.runs += 1
        elif status != ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY:
            return  # the run is repeated at once
        for path, placed in list(self._places.items()):
            mine = placed.fragment in self._drawn if self._drawn else True
            if mine and placed.run != self._now:
                del self._places[path]


def _kind(message: Any) -> str | None:
    return message.WhichOneof("type")
