"""The pages that are open now, whose they are, and how they close when a session ends.

A page keeps its websocket for hours, and much of what it does (fragments, timers) never passes the
shell again. So it is not left to the page: as soon as a session ends, by whatever way and in
whatever process, each of its connections is told where to go and cut off.
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

SWEEP_S = 2.0
"""How soon an open page notices that its session was ended elsewhere: on the command line, by an
administrator, by its age. One query for all of them."""
CUT_S = 1.0
"""How long a browser may take to hear that its page is cut off; nothing else reaches it by then."""
SESSION_ENDED = 4401
"""Code with which the websocket is closed (4000 to 4999 are an application's own)."""
_MOST_REMEMBERED = 50_000
"""Sessions of pages, and media files, of which is remembered whose they are."""

_Value = TypeVar("_Value")

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Connection:
    """One open websocket of a page."""

    visitor: Visitor
    """As they were when it was opened."""
    _receive: Receive = field(repr=False)
    _send: Send = field(repr=False)
    _saying: Callable[[bytes], None] = field(repr=False)
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    _accepted: bool = False
    _ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def send(self, message: Message) -> None:
        """Pass on what the page says, until it is cut off."""
        if self._ended.is_set():
            return
        if message["type"] == "websocket.accept":
            self._accepted = True
        self._saying(message.get("bytes") or b"")
        await self._send(message)

    async def receive(self) -> Message:
        """Pass on what the browser says, until it is cut off."""
        if self._ended.is_set():
            return {"type": "websocket.disconnect", "code": SESSION_ENDED}
        said = asyncio.ensure_future(self._receive())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({said, ended}, return_when=asyncio.FIRST_COMPLETED)
            if self._ended.is_set():
                return {"type": "websocket.disconnect", "code": SESSION_ENDED}
            return said.result()
        finally:
            for waiting in (said, ended):
                waiting.cancel()

    async def cut(self, farewell: bytes) -> None:
        """Send a last message and close."""
        if self._ended.is_set():
            return
        self._ended.set()
        with suppress(RuntimeError, OSError):  # the browser was quicker
            if self._accepted:
                await self._send({"type": "websocket.send", "bytes": farewell})
            await self._send({"type": "websocket.close", "code": SESSION_ENDED})


class Connections:
    """All that are open; they come and go on the server's loop, and threads may ask about them."""

    def __init__(
        self,
        accounts: Callable[[], Accounts],
        *,
        farewell: Callable[[], bytes],
        media_in: Callable[[bytes], Iterable[str]],
    ) -> None:
        """
        Args:
            accounts: asked whether sessions still hold.
            farewell: makes the message that sends a page to the sign-in form.
            media_in: ids of the media files whose address a message to a page holds.
        """
        self._accounts = accounts
        self._farewell = farewell
        self._media_in = media_in
        self._open: dict[str, Connection] = {}
        self._page_sessions: OrderedDict[str, str] = OrderedDict()
        self._media: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._turn = threading.Lock()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def opened(self, visitor: Visitor, receive: Receive, send: Send) -> Connection:
        """A connection, watched from now on."""

        def saying(message: bytes) -> None:
            for file_id in self._media_in(message):
                owners = self._media.get(file_id, frozenset()) | {visitor.owner}
                self._remember(self._media, file_id, owners)

        connection = Connection(visitor, receive, send, saying)
        self._open[connection.id] = connection
        return connection

    def remove(self, connection: Connection) -> None:
        """It has closed."""
        self._open.pop(connection.id, None)

    def visitor(self, connection_id: str | None) -> Visitor | None:
        """Who opened the connection; None where it is none of this server's."""
        connection = self._open.get(connection_id or "")
        return connection.visitor if connection else None

    def note_owner(self, page_session: str, owner: str) -> None:
        """Remember whose session of the pages this is."""
        self._remember(self._page_sessions, page_session, owner)

    def owner_of(self, page_session: str) -> str | None:
        """Whose session of the pages this is; None where it is not known."""
        return self._page_sessions.get(page_session)

    def may_fetch(self, file_id: str, owner: str) -> bool:
        """Whether the address of a media file was given to a page of this person."""
        return owner in self._media.get(file_id, frozenset())

    def wake(self) -> None:
        """Look at once: a session has ended here. Any thread may call it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def watch(self) -> None:
        """Cut off, for as long as the server runs, what has lost its session."""
        self._loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), SWEEP_S)
            self._wake.clear()
            try:
                await self.sweep()
            except RecordsError as error:  # every click is checked all the same
                logger.warning("Open pages could not be checked for ended sessions: %s", error)
            except Exception:  # whatever it is, the next sessions that end must be noticed
                logger.exception("Open pages could not be checked for ended sessions")

    async def sweep(self) -> None:
        """Cut off what has lost its session, all at once: none waits for a browser that is stuck.

        Raises:
            RecordsError: the database could not be read.
        """
        watched = [each for each in self._open.values() if each.visitor.token is not None]
        if not watched:
            return
        tokens = {each.visitor.token for each in watched if each.visitor.token}
        holding = await run_in_threadpool(self._accounts().holding, tokens)
        ended = [each for each in watched if each.visitor.token not in holding]
        if not ended:
            return
        farewell = self._farewell()
        cuts = (asyncio.wait_for(each.cut(farewell), CUT_S) for each in ended)
        for failure in await asyncio.gather(*cuts, return_exceptions=True):
            if isinstance(failure, Exception) and not isinstance(failure, TimeoutError):
                logger.error("A page was not told that it is cut off", exc_info=failure)

    def _remember(self, known: OrderedDict[str, _Value], key: str, value: _Value) -> None:
        with self._turn:
            known[key] = value
            known.move_to_end(key)
            while len(known) > _MOST_REMEMBERED:
                known.popitem(last=False)
