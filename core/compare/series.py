"""Runs a list of instructions on the same models, one comparison after another."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median

from core.compare.divergence import Divergence, compare, reference_pairs
from core.compare.figures import Figures, compare_rates, side_figures
from core.compare.instructions import Instruction
from core.compare.match import Match, SideState
from core.compare.setup import Mode, Setup
from core.compare.timed_answers import is_long_enough
from core.errors import BadRequestError
from core.inference.engine import Engine, User
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, Speculation

logger = logging.getLogger(__name__)

ABSENCE_S = 60.0
"""A list ends when its owner has been gone for this time; a reload or a lost connection is
shorter."""
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class SeriesRow:
    """One instruction of a list and its results."""

    number: int
    """Counted from 1."""
    instruction: str
    match: Match | None
    """None if it has not started."""
    states: tuple[SideState, ...]
    figures: tuple[Figures | None, ...]
    """Figures of each finished answer; None where there is none."""
    errors: tuple[str | None, ...]
    fastest: int | None = None
    """The side with the highest decode rate; None for a tie, or if not ``timed``."""
    timed: bool = False
    """Whether every answer took long enough for a meaningful rate; answers are not repeated."""
    contended: bool = False
    """Whether any timing was measured while busy."""
    divergence: Divergence | None = None
    """Between the first model in two precisions, under greedy decoding; None without one, or if an
    answer is missing."""


@dataclass(frozen=True)
class SideSummary:
    """Totals of one side over a list."""

    answered: int
    """Number of answers that finished without an error."""
    failed: int
    decode_tokens_per_s: float | None
    """Median."""
    ttft_ms: float | None
    """Median."""
    new_tokens: int
    """Total of all answers."""
    fastest: int
    """Number of instructions for which this side decoded fastest, of ``timed``."""
    timed: int
    """Number of instructions whose answers all took long enough to compare rates."""
    contended: bool
    """Whether any timing was measured while busy."""


class Series:
    """Runs a list of instructions in a background thread, see :class:`Match`."""

    def __init__(
        self,
        sides: Sequence[ModelSpec],
        instructions: Sequence[Instruction],
        request: GenerationRequest,
        mode: Mode,
        engine: Engine,
        user: User,
        *,
        formats: Sequence[str | None] = (),
        speculation: Sequence[Speculation] = (),
        owner_is_there: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            formats, speculation: see :class:`Setup`.
            request: sampling settings and prompt format. All instructions use its seed; without
                one, each instruction has a random seed, the same for all sides.
            engine, user: see :class:`Match`.
            owner_is_there: asked every second; see :data:`ABSENCE_S`.

        Raises:
            BadRequestError: no instruction, or an invalid one; nothing was started.
        """
        if not instructions:
            raise BadRequestError("The list has no instruction. Write one per line.")
        self.id = uuid.uuid4().hex
        self.asked_at = datetime.now(UTC)
        self.setups = tuple(
            Setup(
                tuple(sides),
                replace(request, instruction=item.instruction, context=item.context),
                mode,
                tuple(formats),
                tuple(speculation),
            )
            for item in instructions
        )
        for setup in self.setups:
            engine.check_size(setup.request)
        self._engine, self._user = engine, user
        self._matches: list[Match] = []
        self._rows: dict[int, SeriesRow] = {}  # of finished ones: comparing long texts is slow
        self._owner_is_there, self._seen_at = owner_is_there, time.monotonic()
        self.abandoned = False
        """Whether it ended because its owner was gone."""
        self._stopped, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name=f"series {self.id}", daemon=True).start()

    @property
    def sides(self) -> tuple[ModelSpec, ...]:
        """The models."""
        return self.setups[0].sides

    @property
    def matches(self) -> tuple[Match, ...]:
        """The comparisons started so far; the last may be running."""
        return tuple(self._matches)

    @property
    def current(self) -> Match | None:
        """The running or latest comparison; None before the first."""
        matches = self.matches
        return matches[-1] if matches else None

    @property
    def done(self) -> bool:
        """Whether all instructions are finished, or the series was stopped."""
        return self._ended.is_set()

    @property
    def running(self) -> bool:
        """Whether it is not done."""
        return not self.done

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

    def rows(self) -> tuple[SeriesRow, ...]:
        """Return the current results, one row per instruction, in order."""
        return tuple(self._row(number) for number in range(1, len(self.setups) + 1))

    def summary(self) -> tuple[SideSummary, ...]:
        """Return totals over all finished answers, one per side."""
        rows = self.rows()
        return tuple(_summary(rows, side) for side in range(len(self.sides)))

    def _row(self, number: int) -> SeriesRow:
        if (known := self._rows.get(number)) is not None:
            return known
        matches = self.matches
        match = matches[number - 1] if number <= len(matches) else None
        ended = match is not None and match.done  # before _row(): it may end in between
        row = _row(number, self.setups[number - 1], match)
        if ended:
            self._rows[number] = row
        return row

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


def _row(number: int, setup: Setup, match: Match | None) -> SeriesRow:
    count = len(setup.sides)
    if match is None:
        nothing, waiting = (None,) * count, (SideState.WAITING,) * count
        return SeriesRow(number, setup.request.instruction, None, waiting, nothing, nothing)
    answers = match.answers
    figures = tuple(
        side_figures(answer, timing=match.timing(side)) if answer else None
        for side, answer in enumerate(answers)
    )
    rates, timed = compare_rates(figures), all(map(is_long_enough, answers))
    pairs = reference_pairs(setup.sides) if setup.request.sampling.greedy else ()
    reference, other = (answers[side] for side in pairs[0]) if pairs else (None, None)
    return SeriesRow(
        number=number,
        instruction=setup.request.instruction,
        match=match,
        states=tuple(match.state(side) for side in range(count)),
        figures=figures,
        errors=tuple(match.error(side) for side in range(count)),
        fastest=rates.winner if timed else None,
        timed=timed,
        contended=rates.contended,
        divergence=compare(reference, other) if reference and other else None,
    )


def _summary(rows: Sequence[SeriesRow], side: int) -> SideSummary:
    figures = [found for row in rows if (found := row.figures[side]) is not None]
    rates = [f.decode_tokens_per_s for f in figures if f.decode_tokens_per_s is not None]
    waits = [f.ttft_ms for f in figures if f.ttft_ms is not None]
    return SideSummary(
        answered=sum(row.states[side] is SideState.DONE for row in rows),
        failed=sum(row.states[side] is SideState.FAILED for row in rows),
        decode_tokens_per_s=median(rates) if rates else None,
        ttft_ms=median(waits) if waits else None,
        new_tokens=sum(f.new_tokens or 0 for f in figures),
        fastest=sum(row.fastest == side for row in rows),
        timed=sum(row.timed for row in rows),
        contended=any(f.disturbed for f in figures),
    )
