"""What this browser session compared: matches, lists, and the judgements on them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import streamlit as st

from core.compare.instructions import Instruction
from core.compare.match import Match, SideState, Start
from core.compare.series import Series
from core.compare.setup import Mode, Setup
from core.db import Origin
from core.errors import PaddockError
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec
from core.ui.compare.setup import Side
from core.ui.compare.votes import Judgement, pair_ids, votes_of
from core.ui.models.access import check_use
from core.ui.widgets.person import person
from core.ui.widgets.resources import cached_model, shared_engine, shared_votes

MOST_ENTRIES = 50
"""Matches and lists that a session remembers; the runs and votes stay in the records."""


@dataclass
class Veil:
    """Hides names and figures in a blind comparison; the matches of a list share one."""

    drawn: bool
    """Whether they are hidden now."""


@dataclass
class Shown:
    """A match as this session sees it."""

    match: Match
    veil: Veil
    judgement: Judgement | None = None

    @property
    def hidden(self) -> bool:
        """Whether names and figures are hidden."""
        return self.veil.drawn

    @property
    def running(self) -> bool:
        """Whether an answer is under way or still to come."""
        return self.match.running

    @property
    def can_be_judged(self) -> bool:
        """Whether every side ended without a failure."""
        sides = range(len(self.match.setup.sides))
        return all(self.match.state(side) is SideState.DONE for side in sides)

    def stop(self, side: int | None = None) -> None:
        """Stop a side, or all."""
        self.match.stop(side)


@dataclass
class ShownList:
    """A list of instructions as this session sees it."""

    series: Series
    veil: Veil
    _shown: dict[str, Shown] = field(default_factory=dict)

    @property
    def hidden(self) -> bool:
        """Whether names and figures are hidden."""
        return self.veil.drawn

    @property
    def running(self) -> bool:
        """Whether an answer is under way or still to come."""
        return self.series.running

    @property
    def can_be_judged(self) -> bool:
        """Lists are judged instruction by instruction."""
        return False

    def shown(self, match: Match) -> Shown:
        """One match of the list, under the list's veil."""
        return self._shown.setdefault(match.id, Shown(match, self.veil))

    def stop(self) -> None:
        """Stop what is under way and begin nothing further."""
        self.series.stop()

    @property
    def matches(self) -> list[Shown]:
        """Those begun so far."""
        return [self.shown(match) for match in self.series.matches]


Entry = Shown | ShownList


@dataclass
class Comparison:
    """The state of the page in one browser session.

    A plain object: the matches live in threads of their own, and a script that is interrupted
    leaves it as it is.
    """

    entries: list[Entry] = field(default_factory=list)
    """The newest first."""
    current: Entry | None = None
    """What the page shows large."""
    notice: str | None = None
    """A sentence about the last click, shown once."""

    @property
    def running(self) -> bool:
        """Whether an answer is under way or still to come."""
        return any(entry.running for entry in self.entries)

    # What a person asks for

    def ask(
        self, sides: Sequence[Side], request: GenerationRequest, mode: Mode, *, blind: bool
    ) -> None:
        """Put one instruction to all; a mistake in it becomes the notice."""
        self.notice = None
        specs, formats = _in_order(sides, blind=blind)
        try:
            match = Match(
                Setup(specs, request, mode, formats),
                _starter(specs),
                repeat=_starter(specs, recorded=False),
                lease=shared_engine().lease,
                deferred=True,
            )
        except PaddockError as error:
            self.notice = str(error)
            return
        self._show(Shown(match, Veil(blind)))

    def ask_all(
        self,
        sides: Sequence[Side],
        instructions: Sequence[Instruction],
        request: GenerationRequest,
        mode: Mode,
        *,
        blind: bool,
    ) -> None:
        """Put a list of instructions to all, one after the other."""
        self.notice = None
        specs, formats = _in_order(sides, blind=blind)
        try:
            series = Series(
                specs,
                instructions,
                request,
                mode,
                _starter(specs),
                formats=formats,
                lease=shared_engine().lease,
            )
        except PaddockError as error:
            self.notice = str(error)
            return
        self._show(ShownList(series, Veil(blind)))

    def regenerate(self, shown: Shown, side: int | None = None) -> None:
        """Ask the same again with a fresh seed, on one side or on all.

        Nothing happens while an answer is under way: the second of two quick clicks finds it so.
        """
        if self.running:
            return
        sides = shown.match.setup.sides
        try:
            _check_use(sides if side is None else [sides[side]])
            match = shown.match.regenerate(side)
        except PaddockError as error:
            self.notice = str(error)
            return
        self._show(Shown(match, Veil(shown.hidden)))

    def stop(self) -> None:
        """Stop everything that is under way."""
        for entry in self.entries:
            if entry.running:
                entry.stop()

    def show(self, entry: Entry) -> None:
        """Show an earlier one again."""
        self.current = entry

    def delete(self, entry: Entry) -> None:
        """Forget a match or a list, its runs and votes in the records included."""
        entry.stop()
        self.entries = [kept for kept in self.entries if kept is not entry]
        if self.current is entry:
            self.current = None
        still_shown = {job.run_id for job in _jobs(self.entries)}
        try:
            for job in _jobs([entry]):
                if job.run_id is not None and job.run_id not in still_shown:
                    shared_engine().runs.delete(job.run_id, owner=person().owner)
            for shown in _matches([entry]):
                if shown.judgement is not None:
                    _withdraw(shown)
        except PaddockError as error:
            self.notice = str(error)

    def take_notice(self) -> str | None:
        """The sentence about the last click, once."""
        notice, self.notice = self.notice, None
        return notice

    # What a person judges

    def judge(self, shown: Shown, judgement: Judgement) -> None:
        """Keep a judgement in the place of an earlier one; a blind match shows its names then."""
        judgement = replace(judgement, blind=_was_blind(shown))
        try:
            votes = shared_votes()
            someone = person()
            wanted = votes_of(shown.match, judgement, session=someone.session, owner=someone.owner)
            for vote in wanted:
                votes.cast(vote)
            for other in set(pair_ids(shown.match)) - {vote.comparison for vote in wanted}:
                votes.withdraw(other, owner=someone.owner)
        except PaddockError as error:
            self.notice = str(error)
            return
        shown.judgement = judgement
        self._lift(shown)

    def take_back(self, shown: Shown) -> None:
        """Withdraw the judgement on a match."""
        try:
            _withdraw(shown)
        except PaddockError as error:
            self.notice = str(error)
            return
        shown.judgement = None

    def reveal(self, entry: Entry) -> None:
        """Show names and figures without a vote."""
        entry.veil.drawn = False

    def _lift(self, shown: Shown) -> None:
        """A single match is unveiled by its vote, a list by the vote on its last match."""
        for entry in self.entries:
            if isinstance(entry, ShownList) and entry.veil is shown.veil:
                open_ones = [
                    each for each in entry.matches if each.can_be_judged and not each.judgement
                ]
                if entry.running or open_ones:
                    return
        shown.veil.drawn = False

    def _show(self, entry: Entry) -> None:
        self.entries.insert(0, entry)
        del self.entries[MOST_ENTRIES:]
        self.current = entry


def comparison() -> Comparison:
    """This browser session's."""
    if "comparison" not in st.session_state:
        st.session_state["comparison"] = Comparison()
    return st.session_state["comparison"]


def _in_order(
    sides: Sequence[Side], *, blind: bool
) -> tuple[tuple[ModelSpec, ...], tuple[str | None, ...]]:
    """Models and prompt formats in the order they run and stand in.

    In a blind comparison nobody can foresee it, and who answers first tells nothing.
    """
    order = secrets.SystemRandom().sample(list(sides), len(sides)) if blind else sides
    return tuple(side.spec for side in order), tuple(side.prompt_format for side in order)


def _starter(sides: Sequence[ModelSpec], *, recorded: bool = True) -> Start:
    """What starts an answer; used in the threads of a match, without a session.

    Raises:
        AccessDeniedError: this person may not make one of them answer.
    """
    _check_use(sides)
    engine, someone = shared_engine(), person()
    handles = {spec: cached_model(spec) for spec in sides}

    if recorded:
        begin = partial(engine.answer, session=someone.session)
    else:
        begin = engine.answer_unrecorded

    def start(spec: ModelSpec, request: GenerationRequest) -> Job:
        return begin(
            handles[spec],
            request,
            origin=Origin.COMPARE,
            owner=someone.owner,
            lane=someone.lane,
        )

    return start


def _check_use(sides: Sequence[ModelSpec]) -> None:
    """
    Raises:
        AccessDeniedError: this person may not make one of them answer now.
    """
    engine, someone = shared_engine(), person()
    for spec in sides:
        check_use(engine.store, spec, someone)


def _was_blind(shown: Shown) -> bool:
    """A judgement that is changed after the names were seen is no longer blind."""
    return shown.hidden


def _withdraw(shown: Shown) -> None:
    for pair in pair_ids(shown.match):
        shared_votes().withdraw(pair, owner=person().owner)


def _matches(entries: Iterable[Entry]) -> list[Shown]:
    return [
        shown
        for entry in entries
        for shown in (entry.matches if isinstance(entry, ShownList) else [entry])
    ]


def _jobs(entries: Iterable[Entry]) -> list[Job]:
    return [job for shown in _matches(entries) for job in shown.match.jobs if job is not None]
