"""Clients of the remote servers and their model lists, requested so that pages never wait.

All network requests to remote servers run in the event loop of one thread: a request can be
cancelled at any time, even during name resolution, and concurrent answers need no thread each.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from core.errors import NoModelListError, PaddockError, RemoteError
from core.remotes.registry import Remote, RemoteRegistry
from core.settings import Settings

if TYPE_CHECKING:
    from core.remotes.client import RemoteClient

FRESH_S = 60.0
"""Age in seconds after which a list that is displayed is requested again."""
RETRY_S = 15.0
"""The same after a failure."""


@dataclass(frozen=True)
class Listing:
    """Result of a model list request."""

    models: tuple[str, ...] = ()
    """Model names; the previous ones if the server has become unreachable."""
    error: PaddockError | None = None
    software: str | None = None
    """The ``Server`` header."""
    connect_ms: float | None = None
    """Milliseconds to open the latest new connection."""
    round_trip_ms: float | None = None
    """Milliseconds from the request to the response headers."""
    at: float = 0.0
    """Time of the result in seconds of the monotonic clock."""

    @property
    def reachable(self) -> bool:
        """Whether the server responded; one without a model list may still answer requests."""
        return self.error is None or isinstance(self.error, NoModelListError)

    @property
    def age_s(self) -> float:
        """Seconds since the result."""
        return time.monotonic() - self.at

    @property
    def fresh(self) -> bool:
        """Whether the list need not be requested again."""
        return self.age_s < (FRESH_S if self.error is None else RETRY_S)


class Directory:
    """Clients and latest model lists of all remote servers."""

    def __init__(self, book: RemoteRegistry, settings: Settings) -> None:
        self.book = book
        self._settings = settings
        self._listings: dict[Remote, Listing] = {}
        self._requests: dict[Remote, Future[Listing]] = {}
        self._wires: dict[Remote, tuple[str | None, RemoteClient]] = {}
        self._lock = threading.Lock()

    def listing(self, remote: Remote) -> Listing | None:
        """Return the latest list immediately, or None if there is none yet.

        If it is old or missing, a new one is requested in the background.
        """
        with self._lock:
            known = self._listings.get(remote)
        if known is None or not known.fresh:
            self.ask(remote)
        return known

    def models(self) -> list[tuple[Remote, str]]:
        """Return the known models of all servers, including unreachable ones."""
        return [
            (remote, model)
            for remote in self.book.list()
            if (known := self.listing(remote)) is not None
            for model in known.models
        ]

    @property
    def waiting(self) -> bool:
        """Whether the first list of a server is still being requested."""
        with self._lock:
            return any(remote not in self._listings for remote in self._requests)

    def ask(self, remote: Remote) -> Future[Listing]:
        """Request the model list; concurrent callers share one request."""
        with self._lock:
            running = self._requests.get(remote)
            if running is not None:
                return running
            future = submit(self._request(remote))
            self._requests[remote] = future
        return future

    def forget(self, name: str) -> None:
        """Close the connections to a server that was changed or removed."""
        with self._lock:
            self._listings = {r: kept for r, kept in self._listings.items() if r.name != name}
        self._close(lambda remote: remote.name == name)

    def close(self) -> None:
        """Close all connections."""
        self._close(lambda remote: True)

    def _close(self, chosen: Callable[[Remote], bool]) -> None:
        with self._lock:
            wires = [self._wires.pop(remote)[1] for remote in filter(chosen, list(self._wires))]
        for wire in wires:
            submit(wire.client.close())

    def wire(self, remote: Remote) -> RemoteClient:
        """Return the client of a server, a new one if its key has changed.

        Raises:
            RemoteError: the key cannot be read, or the server was changed or removed.
        """
        from core.remotes.client import RemoteClient  # openai takes a second to import

        key = self.book.key(remote)
        with self._lock:
            known = self._wires.get(remote)
            if known is not None and known[0] == key:
                return known[1]
            settings = self._settings
            wire = RemoteClient(remote, key, settings.remote_connect_s, settings.remote_silence_s)
            self._wires[remote] = (key, wire)
        return wire

    async def _request(self, remote: Remote) -> Listing:
        listing = None
        try:
            wire = self.wire(remote)
            models, software = await wire.models()
            times = wire.transport.connect_ms, wire.transport.round_trip_ms
            listing = Listing(models, None, software, *times, at=time.monotonic())
        except RemoteError as error:
            before = self._listings.get(remote, Listing())
            listing = Listing(before.models, error, at=time.monotonic())
        finally:
            with self._lock:
                self._requests.pop(remote, None)
                if listing is not None:
                    self._listings[remote] = listing
        return listing


T = TypeVar("T")


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine; the returned future can be cancelled from any thread."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="remotes", daemon=True).start()
    return loop
