"""How much of the machine one person may ask for: answers at once, and answers that wait."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from core.errors import TooManyAnswersError

_POLL_S = 0.05
"""How often a waiter looks whether it was cancelled."""


@dataclass
class _Lane:
    running: int = 0
    waiting: list[object] = field(default_factory=list)
    """In the order in which they came, those that have not been started included."""


class Shares:
    """The lanes of all people; threads share it."""

    def __init__(self, at_once: int, waiting: int) -> None:
        """
        Args:
            at_once: answers of one lane that may be prepared, wait for a model or run.
            waiting: further answers of it that may wait for one of these to end.
        """
        self._at_once = at_once
        self._waiting = waiting
        self._lanes: defaultdict[str, _Lane] = defaultdict(_Lane)
        self._changed = threading.Condition()

    def claim(self, lane: str) -> Share:
        """A place for one answer.

        Raises:
            TooManyAnswersError: the lane has as many as it may have.
        """
        with self._changed:
            mine = self._lanes[lane]
            if mine.running + len(mine.waiting) >= self._at_once + self._waiting:
                raise TooManyAnswersError(
                    f"{self._at_once + self._waiting} answers of yours are under way or wait "
                    "already; wait until one of them has ended, or stop one."
                )
            share = Share(self, lane)
            mine.waiting.append(share)
            return share

    @contextmanager
    def _turn(
        self, share: Share, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> Iterator[bool]:
        begun = self._begin(share, cancelled, on_place)
        try:
            yield begun
        finally:
            with self._changed:
                if begun:
                    self._lanes[share.lane].running -= 1
            self._give_back(share)

    def _begin(
        self, share: Share, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> bool:
        told = 0
        while not cancelled.is_set():
            with self._changed:
                mine = self._lanes[share.lane]
                place = mine.waiting.index(share)
                if mine.running + place < self._at_once:
                    mine.waiting.remove(share)
                    mine.running += 1
                    return True
            if place + 1 != told:
                told = place + 1
                on_place(told)
            with self._changed:
                self._changed.wait(_POLL_S)
        return False

    def _give_back(self, share: Share) -> None:
        with self._changed:
            mine = self._lanes[share.lane]
            if share in mine.waiting:
                mine.waiting.remove(share)
            if not mine.running and not mine.waiting:
                del self._lanes[share.lane]
            self._changed.notify_all()


@dataclass(frozen=True, eq=False)
class Share:
    """One answer's place among those of its lane."""

    _shares: Shares
    lane: str

    def turn(
        self, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> AbstractContextManager[bool]:
        """Wait until the lane has room, and hold the place for the ``with`` block.

        Args:
            cancelled: leaves when it is set.
            on_place: told how many answers of the lane must begin or end before this one.

        Yields:
            True once there is room; False when ``cancelled`` was set first.
        """
        return self._shares._turn(self, cancelled, on_place)

    def give_back(self) -> None:
        """For an answer that is never started."""
        self._shares._give_back(self)
