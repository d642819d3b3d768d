"""Snapshot of a comparison, from which the result and the exports are written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.compare.divergence import DiffKind, Divergence, compare, readable_diff, reference_pairs
from core.compare.figures import DeltaRow, Figures, deltas, side_figures, stored_model
from core.compare.match import Match, SideState
from core.compare.setup import LETTERS, Mode
from core.compare.timed_answers import Timeline, is_long_enough, timeline
from core.hardware.devices import HostFacts, host_facts, library_versions
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec
from core.store import ModelStore, StoredModel


@dataclass(frozen=True)
class SideReport:
    """One side and its result."""

    letter: str
    title: str
    spec: ModelSpec
    state: SideState
    request: GenerationRequest
    """A kept answer may have another seed than the other sides."""
    text: str
    token_times_ms: tuple[float, ...]
    error: str | None
    figures: Figures | None
    timeline: Timeline | None
    run_id: str | None
    """Id of its row in the run table, if it has one."""

    @property
    def label(self) -> str:
        """Title, precision, device with AUTO's choice, runtime; for a remote model, the server."""
        if self.spec.remote:
            host = self.figures.host if self.figures is not None else None
            return " · ".join([self.title, *self.spec.words, *([host] if host else [])])
        used = self.figures.devices_used if self.figures is not None else ()
        device = self.spec.device
        if used and used != (device,):
            device = f"{device} → {', '.join(used)}"
        runtime = self.spec.runtime.short_name
        return f"{self.title} · {self.weights} · {device} · {runtime}"

    @property
    def weights(self) -> str:
        """Display name of a local model's weights: ``INT8``, ``INT8 from Q4_1``."""
        named = self.figures.weights if self.figures is not None else None
        return named or self.spec.precision.label


@dataclass(frozen=True)
class Pair:
    """A model in two precisions, by the indices of the sides."""

    a: int
    """The reference: the side with the higher precision."""
    b: int
    divergence: Divergence
    diff: tuple[tuple[DiffKind, str], ...]


@dataclass(frozen=True)
class MatchReport:
    """A comparison with all its results."""

    id: str
    asked_at: datetime
    """UTC."""
    mode: Mode
    request: GenerationRequest
    sides: tuple[SideReport, ...]
    rows: tuple[DeltaRow, ...]
    pairs: tuple[Pair, ...]
    """Each reference with its lower precisions; only under greedy decoding."""
    verdict: str | None
    """The user's vote, as a sentence."""
    versions: dict[str, str]
    host: HostFacts

    @property
    def contended(self) -> bool:
        """Whether any timing is not comparable, see :attr:`Figures.disturbed`."""
        return any(side.figures is not None and side.figures.disturbed for side in self.sides)

    @property
    def timed(self) -> bool:
        """Whether every answer was long enough to compare rates without repetitions."""
        return all(is_long_enough(side.token_times_ms) for side in self.sides)

    @property
    def fastest(self) -> int | None:
        """The side with the highest decode rate; None for a tie, or if not :attr:`timed`."""
        return self.rows[0].winner if self.timed else None


def describe(match: Match, store: ModelStore, *, verdict: str | None = None) -> MatchReport:
    """Return the report of a comparison; a running one is reported as it is now.

    Args:
        store: used for titles, sizes and tokenizers of the models.
        verdict: the user's vote, as a sentence.
    """
    stored = [stored_model(store, spec) for spec in match.setup.sides]
    sides = tuple(_side(match, index, model, store) for index, model in enumerate(stored))
    return MatchReport(
        id=match.id,
        asked_at=match.asked_at,
        mode=match.setup.mode,
        request=match.setup.request,
        sides=sides,
        rows=deltas([side.figures for side in sides]),
        pairs=_pairs(match),
        verdict=verdict,
        versions=library_versions(),
        host=host_facts(),
    )


def _side(match: Match, index: int, stored: StoredModel | None, store: ModelStore) -> SideReport:
    spec, job, answer = match.setup.sides[index], match.jobs[index], match.answers[index]
    timing = match.timing(index)
    return SideReport(
        letter=LETTERS[index],
        title=store.title(spec.model),
        spec=spec,
        state=match.state(index),
        request=match.request(index),
        text=match.text(index),
        token_times_ms=answer.token_times_ms if answer is not None else (),
        error=match.error(index),
        figures=side_figures(answer, stored, timing) if answer is not None else None,
        timeline=timeline(timing) if timing is not None else None,
        run_id=job.run_id if job is not None else None,
    )


def _pairs(match: Match) -> tuple[Pair, ...]:
    if not match.setup.request.sampling.greedy:
        return ()
    pairs = []
    for a, b in reference_pairs(match.setup.sides):
        if match.request(a).continues or match.request(b).continues:
            continue  # another token than the model's own was chosen
        reference, other = match.answers[a], match.answers[b]
        if reference is not None and other is not None and reference.token_ids and other.token_ids:
            diff = tuple(readable_diff(reference.text, other.text))
            pairs.append(Pair(a, b, compare(reference, other), diff))
    return tuple(pairs)
