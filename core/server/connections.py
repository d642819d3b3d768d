"""Open pages and their owners; disconnects a page when its session ends.

A page keeps its websocket open for hours, and much of what it does (fragments, timers) does not
check the session again. Therefore, as soon as a session ends, for whatever reason and in whatever
process, each of its connections is redirected to the sign-in form and closed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Send

from core.auth import Accounts
from core.errors import RecordsError
from core.server.visitor import Visitor

CHECK_INTERVAL_S = 2.0
"""Interval of the check for sessions that were ended elsewhere: on the command line, by an
administrator, by expiry. It is one query for all pages."""
CLOSE_TIMEOUT_S = 1.0
"""Time for sending the last message to a browser; no other message is sent meanwhile."""
SESSION_ENDED = 4401
"""Close code of the websocket (4000 to 4999 are for applications)."""
_MAX_REMEMBERED = 50_000
"""Page sessions and media files whose owner is remembered."""

_Value = TypeVar("_Value")

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Connection:
    """An open websocket of a page."""

    visitor: Visitor
    """The visitor, as of when it was opened."""
    _receive: Receive = field(repr=False)
    _send: Send = field(repr=False)
    _on_send: Callable[[bytes], None] = field(repr=False)
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    _accepted: bool = False
    _ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def send(self, message: Message) -> None:
        """Forward a message to the browser, unless the connection was closed."""
        if self._ended.is_set():
            return
        if message["type"] == "websocket.accept":
            self._accepted = True
        self._on_send(message.get("bytes") or b"")
        await self._send(message)

    async def receive(self) -> Message:
        """Forward a message from the browser, or a disconnect if the connection was closed."""
        if self._ended.is_set():
            return {"type": "websocket.disconnect", "code": SESSION_ENDED}
        received = asyncio.ensure_future(self._receive())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({received, ended}, return_when=asyncio.FIRST_COMPLETED)
            if self._ended.is_set():
                return {"type": "websocket.disconnect", "code": SESSION_ENDED}
            return received.result()
        finally:
            for task in (received, ended):
                task.cancel()

    async def close(self, last_message: bytes) -> None:
        """Send a last message and close the websocket."""
        if self._ended.is_set():
            return
        self._ended.set()
        with suppress(RuntimeError, OSError):  # the browser closed it first
            if self._accepted:
                await self._send({"type": "websocket.send", "bytes": last_message})
            await self._send({"type": "websocket.close", "code": SESSION_ENDED})


class Connections:
    """All open connections; changed on the server's event loop, read from any thread."""

    def __init__(
        self,
        accounts: Callable[[], Accounts],
        *,
        redirect: Callable[[], bytes],
        media_in: Callable[[bytes], Iterable[str]],
    ) -> None:
        """
        Args:
            accounts: checks whether sessions are still valid.
            redirect: returns the message that redirects a page to the sign-in form.
            media_in: returns the ids of the media files that a message to a page links to.
        """
        self._accounts = accounts
        self._redirect = redirect
        self._media_in = media_in
        self._open: dict[str, Connection] = {}
        self._page_sessions: OrderedDict[str, str] = OrderedDict()
        self._media: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._lock = threading.Lock()
        self._check_now = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, visitor: Visitor, receive: Receive, send: Send) -> Connection:
        """Register a new connection."""

        def note_media(message: bytes) -> None:
            for file_id in self._media_in(message):
                owners = self._media.get(file_id, frozenset()) | {visitor.owner}
                self._remember(self._media, file_id, owners)

        connection = Connection(visitor, receive, send, note_media)
        self._open[connection.id] = connection
        return connection

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._open.pop(connection.id, None)

    def visitor(self, connection_id: str | None) -> Visitor | None:
        """Return the visitor of an open connection, or None if there is no such connection."""
        connection = self._open.get(connection_id or "")
        return connection.visitor if connection else None

    def browsers(self) -> set[str]:
        """Return the guests' browsers that have an open page; may be called from any thread."""
        return {each.visitor.browser for each in list(self._open.values()) if each.visitor.browser}

    def note_owner(self, page_session: str, owner: str) -> None:
        """Remember the owner of a Streamlit session."""
        self._remember(self._page_sessions, page_session, owner)

    def owner_of(self, page_session: str) -> str | None:
        """Return the owner of a Streamlit session, or None if it is unknown."""
        return self._page_sessions.get(page_session)

    def may_fetch(self, file_id: str, owner: str) -> bool:
        """Whether a page of this user was sent the address of the media file."""
        return owner in self._media.get(file_id, frozenset())

    def check_now(self) -> None:
        """Check the sessions immediately; may be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._check_now.set)

    async def watch(self) -> None:
        """Close the connections of ended sessions, as long as the server runs."""
        self._loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._check_now.wait(), CHECK_INTERVAL_S)
            self._check_now.clear()
            try:
                await self.close_ended()
            except RecordsError as error:  # pages also check the session at every interaction
                logger.warning("Open pages could not be checked for ended sessions: %s", error)
            except Exception:  # sessions that end later must still be noticed
                logger.exception("Open pages could not be checked for ended sessions")

    async def close_ended(self) -> None:
        """Close the connections of ended sessions, concurrently because a browser may be stuck.

        Raises:
            RecordsError: the database could not be read.
        """
        watched = [each for each in self._open.values() if each.visitor.token is not None]
        if not watched:
            return
        tokens = {each.visitor.token for each in watched if each.visitor.token}
        valid = await run_in_threadpool(self._accounts().sessions.valid_tokens, tokens)
        ended = [each for each in watched if each.visitor.token not in valid]
        if not ended:
            return
        redirect = self._redirect()
        closing = (asyncio.wait_for(each.close(redirect), CLOSE_TIMEOUT_S) for each in ended)
        for failure in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(failure, Exception) and not isinstance(failure, TimeoutError):
                logger.error("A page of an ended session could not be closed", exc_info=failure)

    def _remember(self, known: OrderedDict[str, _Value], key: str, value: _Value) -> None:
        with self._lock:
            known[key] = value
            known.move_to_end(key)
            while len(known) > _MAX_REMEMBERED:
                known.popitem(last=False)
