"""Figures of the answers of a comparison, and which side is better in each.

The figures equal those of the run table: both come from
:func:`core.inference.recorder.run_result`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.compare.setup import LETTERS
from core.compare.timed_answers import Timing
from core.db import RunResult
from core.errors import PaddockError
from core.inference.answer import Answer
from core.inference.recorder import run_result
from core.runtimes.spec import ModelSpec
from core.store import ModelStore, StoredModel
from core.units import bytes_text, milliseconds_text, rate_text

TIMING_TIE = 0.05
"""Relative difference up to which timings are a tie: timings of one model differ by a few per cent
from answer to answer. The same holds for memory, measured as the growth of a whole process."""
SIGNIFICANT_DEVIATIONS = 2.5
"""If both sides were timed several times, the winner must be ahead in more pairs of answers than
expected by chance, by this many standard deviations of the Mann–Whitney U statistic. Answers of one
and the same model exceed this in one of eighty cases. With few answers the winner must be ahead in
all pairs."""
SIZE_TIE = 0.005
"""Relative difference up to which the factor would be shown as 1.00."""


@dataclass(frozen=True, kw_only=True)
class Figures(RunResult):
    """What the run table has of a finished answer, with medians, and what only a comparison has.

    None where unknown. Times in ms, sizes in bytes.
    """

    weights: str | None
    """See :attr:`core.inference.answer.Answer.weights`."""
    disk_bytes: int | None
    """All files of the stored model."""
    cores_apart: bool
    """Whether the host had moved the machine's cores apart (:mod:`core.compare.timed_answers`): the
    timings are not comparable, as if :attr:`contended`."""
    seed: int | None
    prompt_format: str | None
    tokens_per_step: float | None
    """None without speculation."""
    acceptance_rate: float | None
    host: str | None
    """Host and port of the remote server; None for this machine."""
    note: str | None
    """A sentence about how the model was run."""
    timed_answers: int | None
    """Number of answers of which times and rates are the median (see
    :mod:`core.compare.timed_answers`); None where nothing was timed."""
    samples: dict[str, tuple[float, ...]]
    """Times and rates of each of those answers, by the names of the fields above."""

    @property
    def disturbed(self) -> bool:
        """Whether the timings are not comparable, for either reason."""
        return bool(self.contended) or self.cores_apart


def side_figures(
    answer: Answer, stored: StoredModel | None = None, timing: Timing | None = None
) -> Figures:
    """Return the figures of a finished answer.

    Args:
        stored: the model on disk, for its size; None if unknown.
        timing: the answers of which times and rates are the medians; by default this answer only.
    """
    timing = timing or Timing((answer,), cores_apart=False)
    timings, conditions = answer.timings, answer.conditions
    return Figures(
        **vars(run_result(timing.applied_to(answer))),
        weights=answer.weights,
        disk_bytes=stored.manifest.folder_bytes if stored is not None else None,
        cores_apart=timing.cores_apart,
        timed_answers=sum(each.timings is not None for each in timing.answers) or None,
        samples={key: _samples(timing, key) for key in _SAMPLED},
        seed=answer.seed,
        tokens_per_step=timings.tokens_per_step if timings else None,
        acceptance_rate=timings.acceptance_rate if timings else None,
        prompt_format=answer.prompt_format,
        host=conditions.host if conditions else None,
        note=conditions.note if conditions else None,
    )


_SAMPLED = ("decode_tokens_per_s", "ttft_ms", "tpot_ms")


def _samples(timing: Timing, key: str) -> tuple[float, ...]:
    known = [getattr(each.timings, key) for each in timing.answers if each.timings is not None]
    return tuple(value for value in known if value is not None)


def stored_model(store: ModelStore, spec: ModelSpec) -> StoredModel | None:
    """Return the model of ``spec`` on disk; None if it is missing or cannot be read."""
    try:
        return store.get(store.resolve(spec.model), spec.precision)
    except PaddockError:
        return None


class Direction(StrEnum):
    """Which values of a row are better."""

    HIGHER = "higher is better"
    LOWER = "lower is better"
    NEITHER = ""


@dataclass(frozen=True)
class Measure:
    """One figure by which sides are compared."""

    key: str
    """Name of the field of :class:`Figures`."""
    name: str
    direction: Direction
    text: Callable[[float], str]
    """Formats a value."""
    words: tuple[str, str] = ("", "")
    """Template of the winner's factor, with two sides and with more."""
    tie: float = TIMING_TIE
    timing: bool = False
    """Whether other work on the machine affects it."""


@dataclass(frozen=True)
class DeltaRow:
    """One measure of all sides."""

    measure: Measure
    values: tuple[float | None, ...]
    """One value per side; None where it is missing."""
    leaders: tuple[int, ...]
    """Indices of the best side and those about equal to it, best first; empty if the measure has no
    better direction or fewer than two values are known."""
    factor: float | None
    """Ratio between the winner and the next best, above 1; None without a winner or where the
    smaller value is 0."""
    contended: bool
    """Whether the row has timings that are not comparable: other work ran, or the cores were
    apart."""

    @property
    def winner(self) -> int | None:
        """The best side; None if several are about equal, or none is best."""
        return self.leaders[0] if len(self.leaders) == 1 else None

    @property
    def equal(self) -> bool:
        """Whether all sides that have a value are about equal."""
        known = sum(value is not None for value in self.values)
        return len(self.leaders) == known > 1

    @property
    def better_letters(self) -> tuple[str, ...]:
        """Letters of the sides that are better than others; empty if all are about equal."""
        return () if self.equal else tuple(LETTERS[side] for side in sorted(self.leaders))

    @property
    def texts(self) -> tuple[str, ...]:
        """The formatted values; a dash where one is missing."""
        return tuple("—" if value is None else self.measure.text(value) for value in self.values)

    @property
    def factor_text(self) -> str | None:
        """The factor in words, such as ``1.34 × as fast``; None without a winner."""
        if self.winner is None or self.factor is None:
            return None
        digits = 2 if self.factor < 10 else 0
        several = sum(value is not None for value in self.values) > 2
        words = self.measure.words[1 if several else 0]
        return words.format(factor=f"{self.factor:,.{digits}f} ×")


_FASTER = ("{factor} as fast", "{factor} as fast as the next")
_SMALLER = ("the other takes {factor} as much", "the next takes {factor} as much")

_HIGHER, _LOWER = Direction.HIGHER, Direction.LOWER

MEASURES = (
    Measure("decode_tokens_per_s", "Decode rate", _HIGHER, rate_text, _FASTER, timing=True),
    Measure("ttft_ms", "Time to first token", _LOWER, milliseconds_text, _FASTER, timing=True),
    Measure("tpot_ms", "Time per output token", _LOWER, milliseconds_text, _FASTER, timing=True),
    Measure("new_tokens", "New tokens", Direction.NEITHER, lambda count: f"{count:,.0f}"),
    Measure("memory_private_bytes", "Private memory", _LOWER, bytes_text, _SMALLER),
    Measure("memory_file_backed_bytes", "File-backed memory", _LOWER, bytes_text, _SMALLER),
    Measure("disk_bytes", "Disk", _LOWER, bytes_text, _SMALLER, tie=SIZE_TIE),
)
"""In display order."""


def deltas(figures: Sequence[Figures | None]) -> tuple[DeltaRow, ...]:
    """Return one row per measure; a side without figures has no values."""
    return tuple(_row(measure, figures) for measure in MEASURES)


def _row(measure: Measure, figures: Sequence[Figures | None]) -> DeltaRow:
    values = tuple(getattr(side, measure.key) if side is not None else None for side in figures)
    leaders, factor = _leaders(measure, values, figures)
    contended = measure.timing and any(side is not None and side.disturbed for side in figures)
    return DeltaRow(measure, values, leaders, factor, contended)


def _leaders(
    measure: Measure, values: Sequence[float | None], figures: Sequence[Figures | None]
) -> tuple[tuple[int, ...], float | None]:
    """Return the best sides, and the factor if there is only one."""
    known = [(value, side) for side, value in enumerate(values) if value is not None]
    if measure.direction is Direction.NEITHER or len(known) < 2:
        return (), None
    known.sort(reverse=measure.direction is Direction.HIGHER)
    best, first = known[0]
    leaders = [first]
    for value, side in known[1:]:
        if _is_ahead(measure, best, value, figures[first], figures[side]):
            break
        leaders.append(side)
    if len(leaders) > 1:
        return tuple(leaders), None
    small, large = sorted((best, known[1][0]))
    return tuple(leaders), large / small if small > 0 else None


def _is_ahead(
    measure: Measure, best: float, value: float, winner: Figures | None, other: Figures | None
) -> bool:
    small, large = sorted((best, value))
    if large <= 0 or (small > 0 and large / small <= 1 + measure.tie):
        return False
    return not measure.timing or _is_significant(measure, winner, other)


def _is_significant(measure: Measure, winner: Figures | None, other: Figures | None) -> bool:
    """Whether the single answers confirm the medians, if both sides were timed several times."""
    ahead, behind = (
        side.samples.get(measure.key, ()) if side is not None else () for side in (winner, other)
    )
    if len(ahead) < 2 or len(behind) < 2:
        return True
    higher = measure.direction is Direction.HIGHER
    won = sum(0.5 if a == b else (a > b) is higher for a in ahead for b in behind)
    pairs = len(ahead) * len(behind)
    deviation = math.sqrt(pairs * (len(ahead) + len(behind) + 1) / 12)
    return won >= min(pairs, pairs / 2 + SIGNIFICANT_DEVIATIONS * deviation)
