"""State of the Compare page in one browser session: comparisons, lists, and votes on them."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import streamlit as st

from core.compare.match import Match, SideState
from core.compare.report import MatchReport, describe
from core.compare.series import Series
from core.compare.setup import Mode, Setup
from core.db import Holder
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec
from core.ui.compare.votes import Judgement, pairs_of, votes_of
from core.ui.models.access import check_use
from core.ui.widgets.actions import errors_told
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


@dataclass(eq=False)
class Entry:
    """One comparison in this session, or a list of them."""

    run: Match | Series
    hidden: bool
    """Whether names and figures are hidden."""
    selected: int = 0
    """Index of the instruction that is selected when a list has ended; a vote moves it on."""
    _views: dict[str, MatchView] = field(default_factory=dict)

    @property
    def setup(self) -> Setup:
        """The models and the request of the first instruction."""
        return self.run.setups[0]

    @property
    def is_list(self) -> bool:
        """Whether it is a list of instructions."""
        return isinstance(self.run, Series)

    @property
    def views(self) -> list[MatchView]:
        """The comparisons started so far."""
        found = self._views
        return [found.setdefault(each.id, MatchView(each, self)) for each in self.run.matches]


@dataclass(eq=False)
class MatchView:
    """One comparison of an entry, with the user's vote."""

    match: Match
    entry: Entry
    judgement: Judgement | None = None
    _report: MatchReport | None = None

    @property
    def hidden(self) -> bool:
        """Whether names and figures are hidden."""
        return self.entry.hidden

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

    @property
    def report(self) -> MatchReport:
        """The report, including the user's vote."""
        if (report := self._report) is None:
            ended = self.match.done  # read first: it may end in between
            report = describe(self.match, shared_engine().store)
            if ended and self.entry.is_list:
                self._report = report  # comparing many long texts is slow
        judgement = self.judgement
        return replace(report, verdict=judgement.sentence(len(report.sides)) if judgement else None)


@dataclass
class CompareState:
    """State of the Compare page in one browser session, found again after a reload.

    A plain object: the comparisons run in their own threads, and an interrupted script run does not
    affect it. It is kept in memory: after a restart of the server, only runs and votes remain.
    Its methods raise PaddockError, which the buttons of the page tell.
    """

    holder: Holder
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    pages: list[Callable[[], bool]] = field(default_factory=list)
    """Whether each page that shows it is still there; a reload adds one."""
    entries: list[Entry] = field(default_factory=list)
    """The newest first."""
    current: Entry | None = None
    """The entry whose answers the page shows."""

    @property
    def running(self) -> bool:
        """Whether an answer is running or has not started yet."""
        return any(entry.run.running for entry in self.entries)

    @property
    def present(self) -> bool:
        """Whether a page that shows it is open."""
        return any(page() for page in self.pages)

    @property
    def hidden_setup(self) -> Setup | None:
        """The models of the comparison on the page if their names are hidden."""
        return self.current.setup if self.current is not None and self.current.hidden else None

    @property
    def votes_hidden(self) -> bool:
        """Whether ratings would tell the names of a blind comparison: it is on the page, or a list
        that waits for its last vote."""
        return self.hidden_setup is not None or any(
            view.judgement is not None for view in _views(self.entries) if view.hidden
        )

    def submit(
        self,
        sides: Sequence[PickedModel],
        requests: Sequence[GenerationRequest],
        mode: Mode,
        *,
        blind: bool,
        as_list: bool,
        unattended: bool = False,
    ) -> None:
        """Start an instruction, or a list of them, on all sides.

        Args:
            blind: whether names are hidden until the vote. The order of the sides is then random,
                so that neither the place nor the time of an answer reveals the model.
            unattended: whether a list goes on after this page was closed.
        """
        order = secrets.SystemRandom().sample(list(sides), len(sides)) if blind else list(sides)
        specs = tuple(side.spec for side in order)
        formats = tuple(side.prompt_format for side in order)
        speculation = tuple(side.speculation for side in order)
        setups = [Setup(specs, request, mode, formats, speculation) for request in requests]
        _check_use(specs)
        engine, user = shared_engine(), person().user
        run: Match | Series
        if as_list:
            there = (lambda: True) if unattended else (lambda: self.present)
            run = Series(setups, engine, user, owner_is_there=there)
        else:
            run = Match(setups[0], engine, user, repeat=True, deferred=True)
        self._show(Entry(run, blind))

    def regenerate(self, view: MatchView, side: int | None = None) -> None:
        """Run the same request again with a new seed, on one side or on all."""
        sides = view.match.setup.sides
        self._run_again(
            view, sides if side is None else [sides[side]], lambda: view.match.regenerate(side)
        )

    def branch(self, view: MatchView, side: int, beginning: str) -> None:
        """Generate the rest of one side's answer again, from another beginning; a callback."""
        with errors_told():
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
        if not self.running:
            _check_use(sides)
            self._show(Entry(start(), view.hidden))

    def stop(self) -> None:
        """Stop everything that is running."""
        for entry in self.entries:
            if entry.run.running:
                entry.run.stop()

    def show(self, entry: Entry) -> None:
        """Show an earlier entry again."""
        self.current = entry

    def delete(self, entry: Entry) -> None:
        """Delete a comparison or a list with its runs and votes in the database."""
        entry.run.stop()
        self.entries = [kept for kept in self.entries if kept is not entry]
        if self.current is entry:
            self.current = None
        still_shown = {job.run_id for job in _jobs(self.entries)}
        for job in _jobs([entry]):
            if job.run_id is not None and job.run_id not in still_shown:
                shared_engine().runs.delete(job.run_id, owner=person().owner)
        for view in entry.views:
            if view.judgement is not None:
                self.withdraw_vote(view)

    def judge(self, view: MatchView, judgement: Judgement) -> None:
        """Store a vote, replacing an earlier one, and select the next instruction without one.

        After the last vote, the names of a blind comparison are revealed.
        """
        # A vote that is changed after the names were revealed is not blind.
        judgement = replace(judgement, blind=view.hidden)
        votes, someone = shared_votes(), person()
        wanted = votes_of(view.match, judgement, session=someone.session, owner=someone.owner)
        for vote in wanted:
            votes.cast(vote)
        for other in set(pairs_of(view.match)) - {vote.comparison for vote in wanted}:
            votes.withdraw(other, owner=someone.owner)
        view.judgement = judgement
        entry, views = view.entry, view.entry.views
        after = views.index(view) + 1
        numbers = [*range(after, len(views)), *range(after)]
        entry.selected = next((n for n in numbers if not views[n].judgement), after - 1)
        if not entry.run.running and all(each.judgement for each in views if each.can_be_judged):
            entry.hidden = False

    def withdraw_vote(self, view: MatchView) -> None:
        """Withdraw the vote on a comparison."""
        for pair in pairs_of(view.match):
            shared_votes().withdraw(pair, owner=person().owner)
        view.judgement = None

    def reveal(self, entry: Entry) -> None:
        """Show names and figures without a vote."""
        entry.hidden = False

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


def _check_use(sides: Sequence[ModelSpec]) -> None:
    """Check that the user may run the models.

    Raises:
        AccessDeniedError: this user may not run one of the models.
    """
    engine, someone = shared_engine(), person()
    for spec in sides:
        check_use(engine.store, spec, someone)


def _views(entries: Iterable[Entry]) -> list[MatchView]:
    return [view for entry in entries for view in entry.views]


def _jobs(entries: Iterable[Entry]) -> list[Job]:
    return [job for view in _views(entries) for job in view.match.jobs if job is not None]
