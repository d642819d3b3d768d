"""Fair scheduling of answers: the limits of each user, and the queue of each model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.errors import ModelBusyError, TooManyAnswersError
from core.settings import Settings

_POLL_S = 0.05
"""Interval at which a waiting answer checks for cancellation."""


@dataclass(eq=False)
class Ticket:
    """Place of one answer in a queue; it is held until the end of :meth:`Scheduler.turn`."""

    queue: Hashable
    at_once: int
    """Number of answers of this queue that may run at the same time."""
    user: str
    round: int
    running: bool = False
    """Whether its turn has begun: no other ticket may be inserted before it."""


class Scheduler:
    """Bounded queues of all users and models, with positions; thread-safe.

    The queue of a user holds the user's own answers, first in, first out. In the queue of a model
    users take turns by round robin: a user with many answers waits behind a user with few.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queues: dict[Hashable, list[Ticket]] = {}
        """By user or model: running answers first, then waiting ones in their order."""
        self._changed = threading.Condition()

    def enter_user(self, user: str) -> Ticket:
        """Enter the queue of a user's own answers.

        Raises:
            TooManyAnswersError: the user has reached the limit.
        """
        at_once, waiting = self._settings.answers_at_once, self._settings.answers_waiting
        ticket = self._enter(("user", user), at_once, waiting, user)
        if ticket is None:
            raise TooManyAnswersError(
                f"You already have {at_once + waiting} running or waiting answers. "
                "Wait until one of them ends, or stop one."
            )
        return ticket

    def enter_model(self, model: Hashable, at_once: int, user: str) -> Ticket:
        """Enter the queue of a model.

        Args:
            model: see :attr:`core.runtimes.pool.Lease.queue`.
            at_once: number of answers that it generates at the same time.
            user: the user that the answer is for.

        Raises:
            ModelBusyError: the queue is full.
        """
        waiting = self._settings.max_queue
        ticket = self._enter(("model", model), at_once, waiting, user)
        if ticket is None:
            raise ModelBusyError(
                f"{waiting} answers are already waiting for this model. Try again in a moment."
            )
        return ticket

    @contextmanager
    def turn(
        self,
        ticket: Ticket,
        cancelled: threading.Event,
        on_place: Callable[[int], None] = lambda place: None,
    ) -> Iterator[bool]:
        """Wait for a turn, and keep it for the duration of the ``with`` block.

        Args:
            cancelled: leaves the queue when it is set.
            on_place: called with the number of answers that must end first, each time that
                changes; 0 means the turn has begun. It can grow when another user has fewer
                answers.

        Yields:
            True when the turn has begun; False when ``cancelled`` was set first.
        """
        try:
            yield self._wait(ticket, cancelled, on_place)
        finally:
            with self._changed:
                self._queues[ticket.queue].remove(ticket)
                if not self._queues[ticket.queue]:
                    del self._queues[ticket.queue]
                self._changed.notify_all()

    def _enter(self, queue: Hashable, at_once: int, waiting: int, user: str) -> Ticket | None:
        """Enter the round after the user's last one, or else the current round; None if full."""
        with self._changed:
            tickets = self._queues.setdefault(queue, [])
            if len(tickets) >= at_once + waiting:
                return None
            current = tickets[0].round if tickets else 0
            last = max((each.round for each in tickets if each.user == user), default=None)
            ticket = Ticket(queue, at_once, user, current if last is None else last + 1)
            later = (
                index
                for index, each in enumerate(tickets)
                if not each.running and each.round > ticket.round
            )
            tickets.insert(next(later, len(tickets)), ticket)
            self._changed.notify_all()
            return ticket

    def _wait(
        self, ticket: Ticket, cancelled: threading.Event, on_place: Callable[[int], None]
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

    def _place(self, ticket: Ticket) -> int:
        """Return how many answers must end before its turn."""
        return max(0, self._queues[ticket.queue].index(ticket) - ticket.at_once + 1)
