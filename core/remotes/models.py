"""What each remote said of itself when it was last asked; asked in the background, never waited for
by a page."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import NoListingError, PaddockError, RemoteError
from core.remotes.event_loop import submit
from core.remotes.registry import Remote, RemoteBook
from core.settings import Settings

if TYPE_CHECKING:
    from core.remotes.client import Wire

FRESH_S = 60.0
"""Seconds after which a list is asked for anew, once somebody looks."""
RETRY_S = 15.0
"""The same where it failed."""


@dataclass(frozen=True)
class Listing:
    """What came of asking a remote for its models."""

    models: tuple[str, ...] = ()
    """Where it does not answer any more, those it had."""
    error: PaddockError | None = None
    software: str | None = None
    """What it says it is."""
    connect_ms: float | None = None
    """Milliseconds that taking the latest new connection took."""
    round_trip_ms: float | None = None
    """Milliseconds from asking for the list to the beginning of the answer."""
    at: float = 0.0
    """When, in seconds of the monotonic clock."""

    @property
    def reachable(self) -> bool:
        """Whether the server answered; one without a list can give answers all the same."""
        return self.error is None or isinstance(self.error, NoListingError)

    @property
    def age_s(self) -> float:
        """Seconds since."""
        return time.monotonic() - self.at

    @property
    def fresh(self) -> bool:
        """Whether it need not be asked for anew."""
        return self.age_s < (FRESH_S if self.error is None else RETRY_S)


class Directory:
    """The connections to all remotes of a book, and their latest lists of models."""

    def __init__(self, book: RemoteBook, settings: Settings) -> None:
        self.book = book
        self._settings = settings
        self._listings: dict[Remote, Listing] = {}
        self._asking: dict[Remote, Future[Listing]] = {}
        self._wires: dict[Remote, tuple[str | None, Wire]] = {}
        self._lock = threading.Lock()

    def listing(self, remote: Remote) -> Listing | None:
        """The latest list, at once; where it is old or missing, a new one is asked for meanwhile.

        None where none has come yet.
        """
        with self._lock:
            known = self._listings.get(remote)
        if known is None or not known.fresh:
            self.ask(remote)
        return known

    def models(self) -> list[tuple[Remote, str]]:
        """Every model of every remote, as far as is known now; those of one that is gone too."""
        return [
            (remote, model)
            for remote in self.book.list()
            if (known := self.listing(remote)) is not None
            for model in known.models
        ]

    @property
    def waiting(self) -> bool:
        """Whether the first list of a remote is still to come."""
        with self._lock:
            return any(remote not in self._listings for remote in self._asking)

    def ask(self, remote: Remote) -> Future[Listing]:
        """Ask for the list of models; whoever asks meanwhile shares the answer."""
        with self._lock:
            under_way = self._asking.get(remote)
            if under_way is not None:
                return under_way
            future = submit(self._asked(remote))
            self._asking[remote] = future
        return future

    def forget(self, name: str) -> None:
        """Close the connections to a remote that was changed or removed."""
        with self._lock:
            self._listings = {r: kept for r, kept in self._listings.items() if r.name != name}
            closing = [remote for remote in self._wires if remote.name == name]
            wires = [self._wires.pop(remote)[1] for remote in closing]
        for wire in wires:
            submit(wire.client.close())

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            wires = [wire for _, wire in self._wires.values()]
            self._wires.clear()
        for wire in wires:
            submit(wire.client.close())

    def wire(self, remote: Remote) -> Wire:
        """The connections to a remote, made anew where its key has changed.

        Raises:
            RemoteError: its key cannot be read, or it was changed or removed.
        """
        from core.remotes.client import Wire  # openai takes a second to import

        key = self.book.key(remote)
        with self._lock:
            known = self._wires.get(remote)
            if known is not None and known[0] == key:
                return known[1]
            settings = self._settings
            wire = Wire(remote, key, settings.remote_connect_s, settings.remote_silence_s)
            self._wires[remote] = (key, wire)
        return wire

    async def _asked(self, remote: Remote) -> Listing:
        listing = None
        try:
            listing = await self._ask(remote)
        finally:
            with self._lock:
                self._asking.pop(remote, None)
                if listing is not None:
                    self._listings[remote] = listing
        return listing

    async def _ask(self, remote: Remote) -> Listing:
        with self._lock:
            before = self._listings.get(remote, Listing())
        try:
            wire = self.wire(remote)
            models, software = await wire.models()
        except RemoteError as error:
            kept = before.models if not isinstance(error, NoListingError) else ()
            return Listing(kept, error, at=time.monotonic())
        return Listing(
            models,
            None,
            software,
            wire.line.connect_ms,
            wire.line.round_trip_ms,
            at=time.monotonic(),
        )
