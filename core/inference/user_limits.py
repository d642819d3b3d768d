"""Limits of one user: concurrent answers, and waiting answers."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from core.errors import TooManyAnswersError

_POLL_S = 0.05
"""Interval at which a waiting answer checks for cancellation."""


@dataclass
class _Lane:
    running: int = 0
    waiting: list[object] = field(default_factory=list)
    """Slots in the order of reservation, including those of answers not started yet."""


class UserLimits:
    """The lanes of all users; thread-safe."""

    def __init__(self, at_once: int, waiting: int) -> None:
        """
        Args:
            at_once: answers per lane that may be prepared, wait for a model or run.
            waiting: additional answers per lane that may wait for one of these to end.
        """
        self._at_once = at_once
        self._waiting = waiting
        self._lanes: defaultdict[str, _Lane] = defaultdict(_Lane)
        self._changed = threading.Condition()

    def reserve(self, lane: str) -> Slot:
        """Reserve a slot for one answer.

        Raises:
            TooManyAnswersError: the lane has reached its limit.
        """
        with self._changed:
            mine = self._lanes[lane]
            if mine.running + len(mine.waiting) >= self._at_once + self._waiting:
                raise TooManyAnswersError(
                    f"You already have {self._at_once + self._waiting} running or waiting answers. "
                    "Wait until one of them ends, or stop one."
                )
            slot = Slot(self, lane)
            mine.waiting.append(slot)
            return slot

    @contextmanager
    def _turn(
        self, slot: Slot, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> Iterator[bool]:
        begun = self._begin(slot, cancelled, on_place)
        try:
            yield begun
        finally:
            with self._changed:
                if begun:
                    self._lanes[slot.lane].running -= 1
            self._release(slot)

    def _begin(
        self, slot: Slot, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> bool:
        reported = 0
        while not cancelled.is_set():
            with self._changed:
                mine = self._lanes[slot.lane]
                place = mine.waiting.index(slot)
                if mine.running + place < self._at_once:
                    mine.waiting.remove(slot)
                    mine.running += 1
                    return True
            if place + 1 != reported:
                reported = place + 1
                on_place(reported)
            with self._changed:
                self._changed.wait(_POLL_S)
        return False

    def _release(self, slot: Slot) -> None:
        with self._changed:
            mine = self._lanes[slot.lane]
            if slot in mine.waiting:
                mine.waiting.remove(slot)
            if not mine.running and not mine.waiting:
                del self._lanes[slot.lane]
            self._changed.notify_all()


@dataclass(frozen=True, eq=False)
class Slot:
    """Slot of one answer in its user's lane."""

    _limits: UserLimits
    lane: str

    def turn(
        self, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> AbstractContextManager[bool]:
        """Wait until the lane allows it to run, and keep the slot during the ``with`` block.

        Args:
            cancelled: stops waiting when it is set.
            on_place: called with the number of the lane's answers that must start or end first.

        Yields:
            True when it may run; False when ``cancelled`` was set first.
        """
        return self._limits._turn(self, cancelled, on_place)

    def release(self) -> None:
        """Release the slot of an answer that was never started."""
        self._limits._release(self)
