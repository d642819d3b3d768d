"""State of the Instruct page in one browser session: finished answers and the running one."""

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
"""Number of finished answers that the page draws at first and that each click adds."""


@dataclass(frozen=True)
class HistoryEntry:
    """One finished answer with its request and model."""

    id: str
    asked_at: datetime
    """UTC."""
    request: GenerationRequest
    spec: ModelSpec
    title: str
    """Display name of the model."""
    answer: Answer
    run_id: str | None
    """Id of its row in the run table; None if it has none."""


@dataclass
class Conversation:
    """State of the Instruct page in one browser session.

    A plain object, so that a script run that is interrupted while it streams does not lose it.
    """

    entries: list[HistoryEntry] = field(default_factory=list)
    """The newest first."""
    shown: int = SHOWN
    """Number of entries that the page draws; limited because every click draws them again."""
    job: Job | None = None
    asked_at: datetime | None = None
    notice: str | None = None
    """Message about the last click, shown once."""

    @property
    def running(self) -> bool:
        """Whether an answer is being generated."""
        return self.job is not None

    def submit(self, spec: ModelSpec, request: GenerationRequest) -> None:
        """Start an answer; an error in the request becomes the notice."""
        self.notice = None
        engine, someone = shared_engine(), person()
        try:
            check_use(engine.store, spec, someone)
            self.job = engine.answer(
                cached_model(spec),
                request,
                origin=Origin.INSTRUCT,
                user=someone.user,
            )
            self.asked_at = datetime.now(UTC)
        except PaddockError as error:
            self.notice = str(error)

    def take_notice(self) -> str | None:
        """Return the message about the last click and clear it."""
        notice, self.notice = self.notice, None
        return notice

    def show_more(self) -> None:
        """Draw more of the older answers."""
        self.shown += SHOWN

    def stop(self) -> None:
        """Cancel the running answer."""
        if self.job is not None:
            self.job.cancel()

    def collect(self) -> None:
        """Move the running answer into the history once it has finished."""
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
        """Run the same request again with a new seed, so that a sampled answer may differ.

        Does nothing while an answer is running, so that a double click starts only one.
        """
        if self.running:
            return
        sampling = replace(entry.request.sampling, seed=None)
        self.submit(entry.spec, replace(entry.request, sampling=sampling))

    def delete(self, entry: HistoryEntry) -> None:
        """Delete an answer and its row in the run table."""
        self.entries = [kept for kept in self.entries if kept.id != entry.id]
        if entry.run_id is not None:
            try:
                shared_engine().runs.delete(entry.run_id, owner=person().owner)
            except PaddockError as error:
                self.notice = str(error)


def conversation() -> Conversation:
    """Return the conversation of this browser session."""
    if "conversation" not in st.session_state:
        st.session_state["conversation"] = Conversation()
    return st.session_state["conversation"]


def model_title(spec: ModelSpec) -> str:
    """Return the display name of a model."""
    return shared_engine().store.title(spec.model)
