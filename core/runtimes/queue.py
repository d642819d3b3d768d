"""The line of answers that wait for one loaded model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.errors import ModelBusyError

_POLL_S = 0.05
"""How often a waiter looks whether it was cancelled."""


class TurnQueue:
    """First come, first served; so many at a time; bounded; every waiter can see its place."""

    def __init__(self, limit: int, at_once: int = 1) -> None:
        """
        Args:
            limit: how many may wait; the running ones are not counted.
            at_once: how many have their turn at the same time.
        """
        self._limit = limit
        self._at_once = at_once
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Answers in the line, the running ones included."""
        with self._changed:
            return len(self._line)

    @contextmanager
    def turn(
        self, cancelled: threading.Event, on_place: Callable[[int], None] = lambda place: None
    ) -> Iterator[bool]:
        """Wait for one's turn and hold it for the length of the ``with`` block.

        Args:
            cancelled: leaves the line when it is set.
            on_place: told how many must end before one's turn, each time that changes; 0 means
                it is one's turn.

        Yields:
            True once it is one's turn; False when ``cancelled`` was set first.

        Raises:
            ModelBusyError: the line is full.
        """
        ticket = object()
        with self._changed:
            if len(self._line) >= self._limit + self._at_once:
                raise ModelBusyError(
                    f"{self._limit} answers are already waiting for this model; "
                    "try again in a moment."
                )
            self._line.append(ticket)
        try:
            yield self._wait(ticket, cancelled, on_place)
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _wait(
        self, ticket: object, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> bool:
        told: int | None = None
        while not cancelled.is_set():
            with self._changed:
                place = self._place(ticket)
                if place == told and place > 0:
                    self._changed.wait(_POLL_S)
                    place = self._place(ticket)
            if place != told:
                on_place(place)
                told = place
            if place == 0:
                return True
        return False

    def _place(self, ticket: object) -> int:
        """How many must end before its turn; those that have theirs stand first in the line."""
        return max(0, self._line.index(ticket) - self._at_once + 1)
