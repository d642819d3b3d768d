"""What this browser session asked on the Instruct page, and the answer under way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import streamlit as st

from core.db import Origin
from core.errors import PaddockError
from core.inference.answer import Answer
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec
from core.ui.models.access import check_use
from core.ui.widgets.person import person
from core.ui.widgets.resources import cached_model, shared_engine

SHOWN = 20
"""Ended answers that the page draws at first, and how many more a click adds."""


@dataclass(frozen=True)
class HistoryEntry:
    """One ended answer, with what was asked of which model."""

    id: str
    asked_at: datetime
    """UTC."""
    request: GenerationRequest
    spec: ModelSpec
    title: str
    """The model's name as people know it."""
    answer: Answer
    run_id: str | None
    """Its row in the run table, where it has one."""


@dataclass
class Conversation:
    """The state of the page in one browser session. A plain object, so that a script that is
    interrupted while it streams can leave it as it is."""

    entries: list[HistoryEntry] = field(default_factory=list)
    """The newest first."""
    shown: int = SHOWN
    """How many of them the page draws; every click draws them all again."""
    job: Job | None = None
    asked_at: datetime | None = None
    notice: str | None = None
    """A sentence about the last click, shown once."""

    @property
    def running(self) -> bool:
        """Whether an answer is under way."""
        return self.job is not None

    def ask(self, spec: ModelSpec, request: GenerationRequest) -> None:
        """Start an answer; a mistake in the request becomes the notice."""
        self.notice = None
        engine, someone = shared_engine(), person()
        try:
            check_use(engine.store, spec, someone)
            self.job = engine.answer(
                cached_model(spec),
                request,
                origin=Origin.INSTRUCT,
                session=someone.session,
                owner=someone.owner,
                lane=someone.lane,
            )
            self.asked_at = datetime.now(UTC)
        except PaddockError as error:
            self.notice = str(error)

    def take_notice(self) -> str | None:
        """The sentence about the last click, once."""
        notice, self.notice = self.notice, None
        return notice

    def show_more(self) -> None:
        """Draw older answers, too."""
        self.shown += SHOWN

    def stop(self) -> None:
        """Cancel the answer under way."""
        if self.job is not None:
            self.job.cancel()

    def collect(self) -> None:
        """Move the answer under way into the history once it has ended."""
        job = self.job
        if job is None or job.answer is None or self.asked_at is None:
            return
        self.entries.insert(
            0,
            HistoryEntry(
                id=job.id,
                asked_at=self.asked_at,
                request=job.request,
                spec=job.spec,
                title=model_title(job.spec),
                answer=job.answer,
                run_id=job.run_id,
            ),
        )
        self.job = None

    def regenerate(self, entry: HistoryEntry) -> None:
        """Ask the same again with a fresh seed, so that a sampled answer may differ.

        Nothing happens while an answer is under way: the second of two quick clicks finds it so.
        """
        if self.running:
            return
        sampling = replace(entry.request.sampling, seed=None)
        self.ask(entry.spec, replace(entry.request, sampling=sampling))

    def delete(self, entry: HistoryEntry) -> None:
        """Forget an answer, its row in the run table included."""
        self.entries = [kept for kept in self.entries if kept.id != entry.id]
        if entry.run_id is not None:
            try:
                shared_engine().runs.delete(entry.run_id, owner=person().owner)
            except PaddockError as error:
                self.notice = str(error)


def conversation() -> Conversation:
    """This browser session's."""
    if "conversation" not in st.session_state:
        st.session_state["conversation"] = Conversation()
    return st.session_state["conversation"]


def model_title(spec: ModelSpec) -> str:
    """The model's title for people."""
    return shared_engine().store.title(spec.model)
