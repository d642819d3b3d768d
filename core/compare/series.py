"""Runs a list of instructions on the same models, one comparison after another."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from core.compare.match import Match
from core.compare.setup import Setup
from core.errors import BadRequestError
from core.inference.engine import Engine
from core.inference.request import User

ABSENCE_S = 60.0
"""A list ends when its owner has been gone for this time; a reload or a lost connection is
shorter."""
_LOOK_EVERY_S = 1.0


class Series:
    """Runs comparisons of the same models in a background thread, see :class:`Match`."""

    def __init__(
        self,
        setups: Sequence[Setup],
        engine: Engine,
        user: User,
        *,
        owner_is_there: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            setups: one for each instruction.
            engine, user: see :class:`Match`.
            owner_is_there: asked every second; see :data:`ABSENCE_S`.

        Raises:
            BadRequestError: no instruction, or one exceeds a limit; nothing was started.
        """
        if not setups:
            raise BadRequestError("The list has no instruction. Write one per line.")
        for setup in setups:
            engine.check_size(setup.request)
        self.id = uuid.uuid4().hex
        self.asked_at = datetime.now(UTC)
        self.setups = tuple(setups)
        self._engine, self._user = engine, user
        self._matches: list[Match] = []
        self._owner_is_there, self._seen_at = owner_is_there, time.monotonic()
        self.abandoned = False
        """Whether it ended because its owner was gone."""
        self._stopped, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name=f"series {self.id}", daemon=True).start()

    @property
    def matches(self) -> tuple[Match, ...]:
        """The comparisons started so far; the last may be running."""
        return tuple(self._matches)

    @property
    def running(self) -> bool:
        """Whether neither all instructions are finished nor the series was stopped."""
        return not self._ended.is_set()

    @property
    def progress(self) -> tuple[int, int]:
        """Number of finished instructions, and of all."""
        return sum(match.done for match in self.matches), len(self.setups)

    @property
    def stopped(self) -> bool:
        """Whether the user stopped it."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Stop the running comparison and start no more; finished ones are kept."""
        self._stopped.set()
        for match in self.matches[-1:]:
            match.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return False on timeout."""
        return self._ended.wait(timeout_s)

    def _look_for_owner(self) -> None:
        now = time.monotonic()
        if self._owner_is_there():
            self._seen_at = now
        elif now - self._seen_at >= ABSENCE_S and not self._stopped.is_set():
            self.abandoned = True
            self.stop()

    def _run(self) -> None:
        try:
            for setup in self.setups:
                if self._stopped.is_set():
                    return
                match = Match(setup, self._engine, self._user)
                self._matches.append(match)
                if self._stopped.is_set():
                    match.stop()
                while not match.wait(_LOOK_EVERY_S):
                    self._look_for_owner()
                self._look_for_owner()  # answers may be shorter
        finally:
            self._ended.set()
