"""State of the Compare page in one browser session: comparisons, lists, and votes on them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import streamlit as st

from core.compare.instructions import Instruction
from core.compare.match import Match, SideState
from core.compare.series import Series
from core.compare.setup import Mode, Setup
from core.errors import PaddockError
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec
from core.ui.compare.setup import Side
from core.ui.compare.votes import Judgement, pair_ids, votes_of
from core.ui.models.access import check_use
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine, shared_votes

MOST_ENTRIES = 50
"""Most comparisons and lists kept in a session; runs and votes stay in the database."""


@dataclass
class BlindState:
    """Whether names and figures are hidden; shared by all comparisons of a list."""

    hidden: bool


@dataclass
class MatchView:
    """One comparison in this session, with the user's vote."""

    match: Match
    blind: BlindState
    judgement: Judgement | None = None

    @property
    def hidden(self) -> bool:
        """Whether names and figures are hidden."""
        return self.blind.hidden

    @property
    def running(self) -> bool:
        """Whether an answer is running or has not started yet."""
        return self.match.running

    @property
    def can_be_judged(self) -> bool:
        """Whether every side finished without an error."""
        sides = range(len(self.match.setup.sides))
        return all(self.match.state(side) is SideState.DONE for side in sides)

    def stop(self, side: int | None = None) -> None:
        """Stop one side, or all."""
        self.match.stop(side)


@dataclass
class SeriesView:
    """A list of instructions in this session."""

    series: Series
    blind: BlindState
    _views: dict[str, MatchView] = field(default_factory=dict)

    @property
    def hidden(self) -> bool:
        """Whether names and figures are hidden."""
        return self.blind.hidden

    @property
    def running(self) -> bool:
        """Whether an answer is running or has not started yet."""
        return self.series.running

    @property
    def can_be_judged(self) -> bool:
        """False: the user votes on each instruction of a list."""
        return False

    def view(self, match: Match) -> MatchView:
        """Return the view of one comparison of the list."""
        return self._views.setdefault(match.id, MatchView(match, self.blind))

    def stop(self) -> None:
        """Stop the running comparison and start no further one."""
        self.series.stop()

    @property
    def matches(self) -> list[MatchView]:
        """Views of the comparisons started so far."""
        return [self.view(match) for match in self.series.matches]


Entry = MatchView | SeriesView


@dataclass
class CompareState:
    """State of the Compare page in one browser session.

    A plain object: the comparisons run in their own threads, and an interrupted script run does not
    affect it.
    """

    entries: list[Entry] = field(default_factory=list)
    """The newest first."""
    current: Entry | None = None
    """The entry whose answers the page shows."""
    notice: str | None = None
    """Message about the last click, shown once."""

    @property
    def running(self) -> bool:
        """Whether an answer is running or has not started yet."""
        return any(entry.running for entry in self.entries)

    def submit(
        self, sides: Sequence[Side], request: GenerationRequest, mode: Mode, *, blind: bool
    ) -> None:
        """Start one instruction on all sides; an error in the request becomes the notice."""
        self.notice = None
        specs, formats = _in_order(sides, blind=blind)
        try:
            setup = Setup(specs, request, mode, formats)
            _check_use(specs)
            match = Match(setup, shared_engine(), person().user, repeat=True, deferred=True)
        except PaddockError as error:
            self.notice = str(error)
            return
        self._show(MatchView(match, BlindState(blind)))

    def submit_list(
        self,
        sides: Sequence[Side],
        instructions: Sequence[Instruction],
        request: GenerationRequest,
        mode: Mode,
        *,
        blind: bool,
    ) -> None:
        """Start a list of instructions on all sides, one instruction after the other."""
        self.notice = None
        specs, formats = _in_order(sides, blind=blind)
        try:
            _check_use(specs)
            series = Series(
                specs,
                instructions,
                request,
                mode,
                shared_engine(),
                person().user,
                formats=formats,
            )
        except PaddockError as error:
            self.notice = str(error)
            return
        self._show(SeriesView(series, BlindState(blind)))

    def regenerate(self, view: MatchView, side: int | None = None) -> None:
        """Run the same request again with a new seed, on one side or on all.

        Does nothing while an answer is running, so that a double click starts only one run.
        """
        if self.running:
            return
        sides = view.match.setup.sides
        try:
            _check_use(sides if side is None else [sides[side]])
            match = view.match.regenerate(side)
        except PaddockError as error:
            self.notice = str(error)
            return
        self._show(MatchView(match, BlindState(view.hidden)))

    def stop(self) -> None:
        """Stop everything that is running."""
        for entry in self.entries:
            if entry.running:
                entry.stop()

    def show(self, entry: Entry) -> None:
        """Show an earlier entry again."""
        self.current = entry

    def delete(self, entry: Entry) -> None:
        """Delete a comparison or a list with its runs and votes in the database."""
        entry.stop()
        self.entries = [kept for kept in self.entries if kept is not entry]
        if self.current is entry:
            self.current = None
        still_shown = {job.run_id for job in _jobs(self.entries)}
        try:
            for job in _jobs([entry]):
                if job.run_id is not None and job.run_id not in still_shown:
                    shared_engine().runs.delete(job.run_id, owner=person().owner)
            for view in _matches([entry]):
                if view.judgement is not None:
                    _withdraw(view)
        except PaddockError as error:
            self.notice = str(error)

    def take_notice(self) -> str | None:
        """Return the message about the last click and clear it."""
        notice, self.notice = self.notice, None
        return notice

    def judge(self, view: MatchView, judgement: Judgement) -> None:
        """Store a vote, replacing an earlier one, and reveal the names of a blind comparison."""
        # A vote that is changed after the names were revealed is not blind.
        judgement = replace(judgement, blind=view.hidden)
        try:
            votes = shared_votes()
            someone = person()
            wanted = votes_of(view.match, judgement, session=someone.session, owner=someone.owner)
            for vote in wanted:
                votes.cast(vote)
            for other in set(pair_ids(view.match)) - {vote.comparison for vote in wanted}:
                votes.withdraw(other, owner=someone.owner)
        except PaddockError as error:
            self.notice = str(error)
            return
        view.judgement = judgement
        self._reveal_if_judged(view)

    def withdraw_vote(self, view: MatchView) -> None:
        """Withdraw the vote on a comparison."""
        try:
            _withdraw(view)
        except PaddockError as error:
            self.notice = str(error)
            return
        view.judgement = None

    def reveal(self, entry: Entry) -> None:
        """Show names and figures without a vote."""
        entry.blind.hidden = False

    def _reveal_if_judged(self, view: MatchView) -> None:
        """Reveal the names after a vote; in a list, only after the last vote."""
        for entry in self.entries:
            if isinstance(entry, SeriesView) and entry.blind is view.blind:
                missing = [
                    each for each in entry.matches if each.can_be_judged and not each.judgement
                ]
                if entry.running or missing:
                    return
        view.blind.hidden = False

    def _show(self, entry: Entry) -> None:
        self.entries.insert(0, entry)
        del self.entries[MOST_ENTRIES:]
        self.current = entry


def compare_state() -> CompareState:
    """Return the state of this browser session."""
    if "comparison" not in st.session_state:
        st.session_state["comparison"] = CompareState()
    return st.session_state["comparison"]


def _in_order(
    sides: Sequence[Side], *, blind: bool
) -> tuple[tuple[ModelSpec, ...], tuple[str | None, ...]]:
    """Return models and prompt formats in the order of the sides.

    In a blind comparison the order is random, so that neither the place nor the time of an answer
    reveals the model.
    """
    order = secrets.SystemRandom().sample(list(sides), len(sides)) if blind else sides
    return tuple(side.spec for side in order), tuple(side.prompt_format for side in order)


def _check_use(sides: Sequence[ModelSpec]) -> None:
    """Check that the user may run the models.

    Raises:
        AccessDeniedError: this user may not run one of the models.
    """
    engine, someone = shared_engine(), person()
    for spec in sides:
        check_use(engine.store, spec, someone)


def _withdraw(view: MatchView) -> None:
    for pair in pair_ids(view.match):
        shared_votes().withdraw(pair, owner=person().owner)


def _matches(entries: Iterable[Entry]) -> list[MatchView]:
    return [
        view
        for entry in entries
        for view in (entry.matches if isinstance(entry, SeriesView) else [entry])
    ]


def _jobs(entries: Iterable[Entry]) -> list[Job]:
    return [job for view in _matches(entries) for job in view.match.jobs if job is not None]
