"""Queue of the answers that wait for one loaded model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.errors import ModelBusyError

_POLL_S = 0.05
"""Interval at which a waiting answer checks for cancellation."""


@dataclass(eq=False)
class _Ticket:
    lane: str
    round: int
    running: bool = False
    """Whether its turn has begun: no other ticket may be inserted before it."""


class TurnQueue:
    """Bounded queue that runs a fixed number of answers at a time and reports positions.

    Fair across lanes by round robin, first in, first out within a lane: a user with many requests
    waits behind a user with few. With a single lane it is a plain FIFO queue.
    """

    def __init__(self, limit: int, at_once: int = 1) -> None:
        """
        Args:
            limit: maximum number of waiting answers, running ones not counted.
            at_once: maximum number of running answers.
        """
        self._limit = limit
        self._at_once = at_once
        self._tickets: list[_Ticket] = []
        """Running ones first, then waiting ones in the order in which they will run."""
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Number of answers in the queue, running ones included."""
        with self._changed:
            return len(self._tickets)

    @contextmanager
    def turn(
        self,
        cancelled: threading.Event,
        on_place: Callable[[int], None] = lambda place: None,
        *,
        lane: str = "",
    ) -> Iterator[bool]:
        """Wait for a turn, and keep it for the duration of the ``with`` block.

        Args:
            cancelled: leaves the queue when it is set.
            on_place: called with the number of answers that must end first, each time that
                changes; 0 means the turn has begun. It can grow when another lane has fewer
                answers.
            lane: the user that the answer is for; lanes take turns.

        Yields:
            True when the turn has begun; False when ``cancelled`` was set first.

        Raises:
            ModelBusyError: the queue is full.
        """
        with self._changed:
            if len(self._tickets) >= self._limit + self._at_once:
                raise ModelBusyError(
                    f"{self._limit} answers are already waiting for this model. "
                    "Try again in a moment."
                )
            ticket = self._enter(lane)
        try:
            yield self._wait(ticket, cancelled, on_place)
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def _enter(self, lane: str) -> _Ticket:
        """Insert a ticket in the round after the lane's last one, or else in the current round."""
        current = self._tickets[0].round if self._tickets else 0
        last = max((each.round for each in self._tickets if each.lane == lane), default=None)
        ticket = _Ticket(lane, current if last is None else last + 1)
        place = next(
            (
                index
                for index, each in enumerate(self._tickets)
                if not each.running and each.round > ticket.round
            ),
            len(self._tickets),
        )
        self._tickets.insert(place, ticket)
        self._changed.notify_all()
        return ticket

    def _wait(
        self, ticket: _Ticket, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> bool:
        reported: int | None = None
        while not cancelled.is_set():
            with self._changed:
                place = self._place(ticket)
                if place == reported and place > 0:
                    self._changed.wait(_POLL_S)
                    place = self._place(ticket)
                ticket.running = place == 0
            if place != reported:
                on_place(place)
                reported = place
            if place == 0:
                return True
        return False

    def _place(self, ticket: _Ticket) -> int:
        """Return how many answers must end before its turn."""
        return max(0, self._tickets.index(ticket) - self._at_once + 1)
