"""The line of answers that wait for one loaded model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.errors import ModelBusyError

_POLL_S = 0.05
"""How often a waiter looks whether it was cancelled."""


@dataclass(eq=False)
class _Ticket:
    lane: str
    round: int
    held: bool = False
    """Whether it has had its turn: nobody comes before it any more."""


class TurnQueue:
    """So many at a time; bounded; every waiter can see its place.

    Lanes take turns, and within a lane the first to come is the first to be served: whoever has
    asked for much waits behind whoever has asked for little. Without lanes it is one line.
    """

    def __init__(self, limit: int, at_once: int = 1) -> None:
        """
        Args:
            limit: how many may wait; the running ones are not counted.
            at_once: how many have their turn at the same time.
        """
        self._limit = limit
        self._at_once = at_once
        self._line: list[_Ticket] = []
        """The running ones first, then in the order in which they will run."""
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Answers in the line, the running ones included."""
        with self._changed:
            return len(self._line)

    @contextmanager
    def turn(
        self,
        cancelled: threading.Event,
        on_place: Callable[[int], None] = lambda place: None,
        *,
        lane: str = "",
    ) -> Iterator[bool]:
        """Wait for one's turn and hold it for the length of the ``with`` block.

        Args:
            cancelled: leaves the line when it is set.
            on_place: told how many must end before one's turn, each time that changes; 0 means
                it is one's turn. It can grow, when somebody comes who has had less.
            lane: for whom it is; lanes take turns.

        Yields:
            True once it is one's turn; False when ``cancelled`` was set first.

        Raises:
            ModelBusyError: the line is full.
        """
        with self._changed:
            if len(self._line) >= self._limit + self._at_once:
                raise ModelBusyError(
                    f"{self._limit} answers are already waiting for this model; "
                    "try again in a moment."
                )
            ticket = self._enter(lane)
        try:
            yield self._wait(ticket, cancelled, on_place)
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _enter(self, lane: str) -> _Ticket:
        """Line up: in the round after the lane's last one, or in the present one."""
        present = self._line[0].round if self._line else 0
        last = max((each.round for each in self._line if each.lane == lane), default=None)
        ticket = _Ticket(lane, present if last is None else last + 1)
        place = next(
            (n for n, each in enumerate(self._line) if not each.held and each.round > ticket.round),
            len(self._line),
        )
        self._line.insert(place, ticket)
        self._changed.notify_all()
        return ticket

    def _wait(
        self, ticket: _Ticket, cancelled: threading.Event, on_place: Callable[[int], None]
    ) -> bool:
        told: int | None = None
        while not cancelled.is_set():
            with self._changed:
                place = self._place(ticket)
                if place == told and place > 0:
                    self._changed.wait(_POLL_S)
                    place = self._place(ticket)
                ticket.held = place == 0
            if place != told:
                on_place(place)
                told = place
            if place == 0:
                return True
        return False

    def _place(self, ticket: _Ticket) -> int:
        """How many must end before its turn; those that have theirs stand first in the line."""
        return max(0, self._line.index(ticket) - self._at_once + 1)
