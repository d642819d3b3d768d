"""State of the Instruct page in one browser session: the open conversation and what to submit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import streamlit as st

from core.db import Origin
from core.errors import PaddockError, RecordsError
from core.inference.answer import Answer
from core.inference.conversations import Details, Exchange, started
from core.inference.job import Job
from core.runtimes.spec import ModelSpec
from core.ui.models.access import check_use
from core.ui.widgets.link import link_texts
from core.ui.widgets.person import person
from core.ui.widgets.resources import cached_model, shared_engine
from core.ui.widgets.start_button import may_start

CONTEXT = "context"
"""Key of the context passage in the session state, also its name in the URL."""
OPEN = "conversation"
"""Key of the id of the open conversation in the session state, also its name in the URL."""
BUSY = "An answer is being generated. Wait until it ends, or stop it."
LISTED = 8
SHOWN = 20
"""Number of exchanges that the page draws at first and that each click adds."""


@dataclass
class Conversation:
    """State of the Instruct page in one browser session.

    The conversation itself is in the database, so that every page of a person shows the same. This
    is a plain object, so that a script run that is interrupted while it streams does not lose it.
    """

    exchanges: list[Exchange] = field(default_factory=list)
    """The oldest first, as of the start of this run."""
    shown: int = SHOWN
    """Number of exchanges that the page draws; limited because every click draws them again."""
    notice: str | None = None
    """Message about the last click, shown once."""
    draft: str | None = None
    """Text to put back into the composer, because it could not be used."""
    asked: tuple[str, str] | None = None
    """Instruction and context passage to submit, at once or after a download was confirmed."""
    fresh: bool = False
    """Whether :attr:`asked` was set by the last click."""
    box: int = 0
    """Number of the box for the context passage."""
    deleted: int = 0
    """Number of exchanges that were deleted here; the page leaves their places empty."""
    stopped: bool = False
    """Whether the running answer was stopped; its text is then shown at once."""
    arrived: bool = False
    """Whether the page was drawn before in this session."""
    listed: int = LISTED
    """Number of conversations in the list at most."""

    @property
    def job(self) -> Job | None:
        """The job of the running answer; None if there is none."""
        return shared_engine().conversations.job_of(self.exchanges)

    @property
    def running(self) -> bool:
        """Whether an answer is being generated."""
        return self.job is not None

    @property
    def empty(self) -> bool:
        """Whether nothing was asked yet."""
        return not self.exchanges

    @property
    def places(self) -> list[Exchange | None]:
        """The exchanges to draw, and None in the place of each that was deleted or continued.

        An empty place keeps a running answer from moving into one that has other elements, which
        would stay until the answer ends.
        """
        texts = {each.id: each.text for each in self.exchanges}
        continued = {
            each.details.replaces
            for each in self.exchanges
            if each.details.prefix and each.details.prefix == texts.get(each.details.replaces or "")
        }
        kept = [None if each.id in continued else each for each in self.exchanges]
        return [None] * self.deleted + kept

    def refresh(self) -> None:
        """Read the open conversation again; another page may have changed it."""
        conversations, holder = shared_engine().conversations, person().holder
        link_texts(OPEN)
        try:
            if not st.session_state[OPEN] and not self.arrived:
                self._open_running()
            if st.session_state[OPEN]:
                found = conversations.read(st.session_state[OPEN], holder)
                if found is None:
                    self.new()
                    self.notice = (
                        "This conversation was deleted, or belongs to another account or browser. "
                        "Your next instruction starts a new one."
                    )
                    if self.asked is not None:
                        self.put_back(*self.asked)
                else:
                    self.exchanges = found
        except RecordsError as error:
            self.notice = self.notice or str(error)
        self.exchanges = conversations.with_answers(self.exchanges)
        self.arrived = True

    def _open_running(self) -> None:
        """Open the latest conversation if its answer is still being generated."""
        conversations, holder = shared_engine().conversations, person().holder
        for latest in conversations.store.list(holder)[:1]:
            exchanges = conversations.read(latest.id, holder) or []
            if conversations.job_of(exchanges) is not None:
                self.open(latest.id)

    def open(self, conversation: str) -> None:
        """Callback: show another conversation."""
        st.session_state[OPEN] = conversation
        self.exchanges, self.shown, self.deleted = [], SHOWN, 0
        link_texts(OPEN)

    def new(self) -> None:
        """Callback: begin a new conversation with the next instruction."""
        self.open("")

    def submit(
        self,
        instruction: str,
        context: str,
        details: Details,
        before: Iterable[Exchange] | None = None,
    ) -> None:
        """Start an answer; an error in the request becomes the notice.

        Args:
            before: the exchanges that a follow-up sends along; by default all.
        """
        if self.running:  # started in another tab
            self.notice = BUSY
            self.put_back(instruction, context)
            return
        self.stopped = False
        engine, someone, spec = shared_engine(), person(), details.spec
        asked = Exchange("", datetime.now(UTC), instruction, context, details)
        try:
            check_use(engine.store, spec, someone)
            job = engine.answer(
                cached_model(replace(spec, prefix_cache=not spec.remote)),
                asked.request(self.exchanges if before is None else before),
                origin=Origin.INSTRUCT,
                user=replace(someone.user, browser=someone.browser),
            )
        except PaddockError as error:
            self.notice = str(error)
            self.put_back(instruction, context)
            return
        asked = started(asked, job)
        self.exchanges.append(asked)
        try:
            st.session_state[OPEN] = engine.conversations.begin(
                st.session_state.get(OPEN) or None, asked, job, someone.holder
            )
            link_texts(OPEN)
        except RecordsError as error:  # the answer is shown, but not found again after a reload
            self.notice = str(error)

    def ask(self, instruction: str, context: str) -> None:
        """Callback: submit an instruction in the next run, with the settings of the page."""
        self.asked, self.fresh = (instruction, context), True

    def to_submit(self, spec: ModelSpec) -> tuple[str, str] | None:
        """Return the instruction and context to submit now.

        If the model must be downloaded first, this opens a dialog; what was asked is put back into
        the composer when the dialog is closed without agreeing.
        """
        asked, fresh, self.fresh = self.asked, self.fresh, False
        if asked is None:
            return None
        if may_start([spec], asked=fresh):
            self.asked = None
            return asked
        if not fresh:
            self.put_back(*asked)
        return None

    def put_back(self, instruction: str, context: str) -> None:
        """Put an instruction that was not used back into the composer."""
        self.asked, self.draft = None, instruction
        st.session_state[CONTEXT] = context

    def take_notice(self) -> str | None:
        """Return the message about the last click and clear it."""
        notice, self.notice = self.notice, None
        return notice

    def show_more(self) -> None:
        """Callback: draw more of the older exchanges."""
        self.shown += SHOWN

    def list_more(self) -> None:
        """Callback: list more of the older conversations."""
        self.listed += 3 * LISTED

    def stop(self) -> None:
        """Callback: cancel the running answer."""
        self.stopped = True
        if (job := self.job) is not None:
            job.cancel()

    def regenerate(self, exchange: Exchange, max_new_tokens: int | None = None) -> None:
        """Callback: run the same request again with a new seed, so that a sampled answer may
        differ.

        Does nothing while an answer is running, so that a double click starts only one.
        """
        most = max_new_tokens or exchange.details.sampling.max_new_tokens
        self._again(exchange, "", seed=None, max_new_tokens=most)

    def continue_answer(self, exchange: Exchange) -> None:
        """Callback: continue an answer that reached the maximum of new tokens."""
        self._again(exchange, exchange.text)

    def branch(self, exchange: Exchange, prefix: str) -> None:
        """Callback: answer again from another beginning of the answer, with a new seed."""
        self._again(exchange, prefix, seed=None)

    def _again(self, exchange: Exchange, prefix: str, **changed: Any) -> None:
        """Answer again from a beginning of the answer, with changed sampling settings."""
        self.refresh()  # another tab may have started an answer
        if self.running:
            return
        sampling = replace(exchange.details.sampling, **changed)
        details = replace(exchange.details, sampling=sampling, replaces=exchange.id, prefix=prefix)
        before = takewhile(lambda each: each.id != exchange.id, self.exchanges)
        self.submit(exchange.instruction, exchange.context, details, before)

    def rename(self, title: str) -> None:
        """Callback: change the title of the open conversation."""
        try:
            shared_engine().conversations.store.rename(
                st.session_state[OPEN], title, person().holder
            )
        except RecordsError as error:
            self.notice = str(error)

    def delete_conversation(self) -> None:
        """Callback: delete the open conversation, and stop its answer."""
        self.stop()
        try:
            shared_engine().conversations.store.delete(st.session_state[OPEN], person().holder)
            self.new()
        except RecordsError as error:
            self.notice = str(error)

    def delete(self, exchange: Exchange) -> None:
        """Callback: delete an answer and its row in the run table."""
        engine, someone = shared_engine(), person()
        self.exchanges = [kept for kept in self.exchanges if kept.id != exchange.id]
        self.deleted += 1
        try:
            engine.conversations.store.delete_exchange(
                exchange.id, st.session_state.get(OPEN, ""), someone.holder
            )
            if exchange.run_id is not None:
                engine.runs.delete(exchange.run_id, owner=someone.owner)
        except PaddockError as error:
            self.notice = str(error)


def conversation() -> Conversation:
    """Return the state of this browser session."""
    return st.session_state.setdefault("instruct", Conversation())


def model_title(spec: ModelSpec) -> str:
    """Return the display name of a model."""
    return shared_engine().store.title(spec.model)


def words_of(spec: ModelSpec, answer: Answer | None) -> tuple[str, ...]:
    """Return :attr:`ModelSpec.words`, after an answer with its weights and AUTO's choice."""
    weights, *place = spec.words
    if answer is not None and not spec.remote:
        weights = answer.weights or weights
        used = answer.conditions.devices_used if answer.conditions is not None else ()
        if used not in ((), (spec.device,)):
            place[0] += f" → {', '.join(used)}"
    return (weights, *place)
