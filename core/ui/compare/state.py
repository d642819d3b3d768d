"""State of the Compare page in one browser session: comparisons, lists, and votes on them."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import streamlit as st

from core.compare.instructions import Instruction
from core.compare.match import Match, SideState
from core.compare.series import Series
from core.compare.setup import Mode, Setup
from core.db import Holder
from core.errors import PaddockError
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, Speculation
from core.ui.compare.votes import Judgement, pair_ids, votes_of
from core.ui.models.access import check_use
from core.ui.widgets.person import person
from core.ui.widgets.pickers import PickedModel
from core.ui.widgets.resources import shared_engine, shared_votes
from core.ui.widgets.visits import page_presence

MOST_ENTRIES = 50
"""Most comparisons and lists kept in a session; runs and votes stay in the database."""
MOST_STATES = 200
"""Most sessions whose comparisons are found again after a reload; the newest."""
PARAMETER = "comparison"
"""Name of the URL parameter with the id of the state, also its key in the session state."""


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
    def setup(self) -> Setup:
        """The models and the request."""
        return self.match.setup

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
        """Whether every side finished without an error, with an answer of the model's own."""
        sides = range(len(self.match.setup.sides))
        done = all(self.match.state(side) is SideState.DONE for side in sides)
        return done and not self.continued

    @property
    def continued(self) -> bool:
        """Whether an answer goes on from a token that the user chose."""
        return any(
            self.match.request(side).continues for side in range(len(self.match.setup.sides))
        )

    def stop(self, side: int | None = None) -> None:
        """Stop one side, or all."""
        self.match.stop(side)


@dataclass
class SeriesView:
    """A list of instructions in this session."""

    series: Series
    blind: BlindState
    selected: int = 0
    """Index of the instruction that is selected when the list has ended; a vote moves it on."""
    _views: dict[str, MatchView] = field(default_factory=dict)

    @property
    def setup(self) -> Setup:
        """The models and the request of the first instruction."""
        return self.series.setups[0]

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
    """State of the Compare page in one browser session, found again after a reload.

    A plain object: the comparisons run in their own threads, and an interrupted script run does not
    affect it. It is kept in memory: after a restart of the server, only runs and votes remain.
    """

    holder: Holder
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    pages: list[Callable[[], bool]] = field(default_factory=list)
    """Whether each page that shows it is still there; a reload adds one."""
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

    @property
    def present(self) -> bool:
        """Whether a page that shows it is open."""
        return any(page() for page in self.pages)

    @property
    def names_hidden(self) -> bool:
        """Whether the names of the comparison on the page are hidden."""
        return self.current is not None and self.current.hidden

    @property
    def hidden_setup(self) -> Setup | None:
        """The models of the comparison on the page if their names are hidden."""
        return self.current.setup if self.current is not None and self.names_hidden else None

    @property
    def votes_hidden(self) -> bool:
        """Whether ratings would tell the names of a blind comparison: it is on the page, or a list
        that waits for its last vote."""
        return self.names_hidden or any(
            view.judgement is not None for view in _matches(self.entries) if view.hidden
        )

    def submit(
        self, sides: Sequence[PickedModel], request: GenerationRequest, mode: Mode, *, blind: bool
    ) -> None:
        """Start one instruction on all sides; an error in the request becomes the notice."""
        self.notice = None
        specs, formats, speculation = _in_order(sides, blind=blind)
        try:
            setup = Setup(specs, request, mode, formats, speculation)
            _check_use(specs)
            match = Match(setup, shared_engine(), person().user, repeat=True, deferred=True)
        except PaddockError as error:
            self.notice = str(error)
            return
        self._show(MatchView(match, BlindState(blind)))

    def submit_list(
        self,
        sides: Sequence[PickedModel],
        instructions: Sequence[Instruction],
        request: GenerationRequest,
        mode: Mode,
        *,
        blind: bool,
        unattended: bool,
    ) -> None:
        """Start a list of instructions on all sides, one instruction after the other.

        Args:
            unattended: whether it goes on after this page was closed.
        """
        self.notice = None
        specs, formats, speculation = _in_order(sides, blind=blind)
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
                speculation=speculation,
                owner_is_there=(lambda: True) if unattended else lambda: self.present,
            )
        except PaddockError as error:
            self.notice = str(error)
            return
        self._show(SeriesView(series, BlindState(blind)))

    def regenerate(self, view: MatchView, side: int | None = None) -> None:
        """Run the same request again with a new seed, on one side or on all."""
        sides = view.match.setup.sides
        self._run_again(
            view, sides if side is None else [sides[side]], lambda: view.match.regenerate(side)
        )

    def branch(self, view: MatchView, side: int, beginning: str) -> None:
        """Generate the rest of one side's answer again, from another beginning."""
        self._run_again(
            view,
            [view.match.setup.sides[side]],
            lambda: view.match.regenerate(side, beginning=beginning),
        )

    def add_side(self, view: MatchView, spec: ModelSpec) -> None:
        """Run the same request on one more model, next to the answers that are there."""
        self._run_again(view, [spec], lambda: view.match.with_side(spec))

    def _run_again(
        self, view: MatchView, sides: Sequence[ModelSpec], start: Callable[[], Match]
    ) -> None:
        """Start a comparison that follows another one.

        Does nothing while an answer is running, so that a double click starts only one run.
        """
        if self.running:
            return
        try:
            _check_use(sides)
            match = start()
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
        self._select_next(view)
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

    def _select_next(self, view: MatchView) -> None:
        """After a vote in a list, select the next instruction without one."""
        entry = self.current
        if isinstance(entry, SeriesView) and view in entry.matches:
            after = entry.matches.index(view) + 1
            numbers = [*range(after, len(entry.matches)), *range(after)]
            entry.selected = next((n for n in numbers if not entry.matches[n].judgement), after - 1)

    def _show(self, entry: Entry) -> None:
        self.entries.insert(0, entry)
        del self.entries[MOST_ENTRIES:]
        self.current = entry
        states = _states()
        states[self.id] = self
        while len(states) > MOST_STATES:
            states.pop(next(iter(states)), None)


def compare_state() -> CompareState:
    """Return the state of this browser session, or the one in the URL after a reload."""
    if PARAMETER not in st.session_state:
        found = _states().get(st.query_params.get(PARAMETER, ""))
        holder = person().holder
        state = found if found is not None and found.holder == holder else CompareState(holder)
        state.pages.append(page_presence())
        st.session_state[PARAMETER] = state
    state = st.session_state[PARAMETER]
    if state.entries:
        st.query_params[PARAMETER] = state.id
    else:
        st.query_params.pop(PARAMETER, None)
    return state


def hidden_runs() -> set[str]:
    """Return the ids of the runs of this person's comparisons whose names are hidden."""
    hidden = [entry for state in _my_states() for entry in state.entries if entry.hidden]
    return {job.run_id for job in _jobs(hidden) if job.run_id is not None}


def votes_hidden() -> bool:
    """Return whether ratings would tell the names of a blind comparison of this person."""
    return any(state.votes_hidden for state in _my_states())


def _my_states() -> list[CompareState]:
    holder = person().holder
    states = list(_states().values())
    return [state for state in states if state.holder == holder and state.present]


@st.cache_resource(show_spinner=False)
def _states() -> dict[str, CompareState]:
    """Return the states of all sessions with comparisons, by id, the oldest first."""
    return {}


def _in_order(
    sides: Sequence[PickedModel], *, blind: bool
) -> tuple[tuple[ModelSpec, ...], tuple[str | None, ...], tuple[Speculation, ...]]:
    """Return models, prompt formats and speculation in the order of the sides.

    In a blind comparison the order is random, so that neither the place nor the time of an answer
    reveals the model.
    """
    order = secrets.SystemRandom().sample(list(sides), len(sides)) if blind else sides
    return (
        tuple(side.spec for side in order),
        tuple(side.prompt_format for side in order),
        tuple(side.speculation for side in order),
    )


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
