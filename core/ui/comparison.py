"""One instruction put to two models, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import streamlit as st

from core.errors import PaddockError
from core.generation.job import Job
from core.generation.request import GenerationRequest
from core.records import Origin
from core.runtimes.spec import ModelSpec
from core.ui.cached import cached_model, shared_engine
from core.ui.history import session_id


@dataclass
class Comparison:
    """The state of the page in one browser session; a plain object, see ``Conversation``."""

    sides: tuple[ModelSpec, ...] = ()
    request: GenerationRequest | None = None
    jobs: list[Job] = field(default_factory=list)
    """Those started so far; the next begins when the one before it has ended, so that neither
    disturbs the other's timings."""
    stopped: bool = False
    notice: str | None = None

    @property
    def running(self) -> bool:
        """Whether an answer is under way or still to come."""
        if self.request is None or (self.stopped and all(job.done for job in self.jobs)):
            return False
        return len(self.jobs) < len(self.sides) or not all(job.done for job in self.jobs)

    def ask(self, sides: tuple[ModelSpec, ...], request: GenerationRequest) -> None:
        """Begin with the first side; a mistake in the request becomes the notice."""
        self.notice, self.stopped = None, False
        try:
            # One seed for all sides, drawn here where the person gave none.
            self.request = request.validated()
        except PaddockError as error:
            self.notice = str(error)
            return
        self.sides, self.jobs = sides, []

    def job(self, side: int) -> Job | None:
        """The answer of a side, started now if it is its turn; None where it is not."""
        earlier_ended = all(job.done for job in self.jobs)
        if side == len(self.jobs) and self.request and earlier_ended and not self.stopped:
            self.jobs.append(
                shared_engine().answer(
                    cached_model(self.sides[side]),
                    self.request,
                    origin=Origin.COMPARE,
                    session=session_id(),
                )
            )
        return self.jobs[side] if side < len(self.jobs) else None

    def stop(self) -> None:
        """Cancel the answer under way and start no further one."""
        self.stopped = True
        for job in self.jobs:
            job.cancel()


def comparison() -> Comparison:
    """This browser session's."""
    if "comparison" not in st.session_state:
        st.session_state["comparison"] = Comparison()
    return st.session_state["comparison"]


def verdict(jobs: list[Job]) -> str | None:
    """Which of two ended answers was decoded faster, as a sentence; None where that is unknown."""
    rates = [
        job.answer.timings.decode_tokens_per_s
        for job in jobs
        if job.answer is not None and job.answer.timings is not None
    ]
    if len(rates) != 2 or rates[0] is None or rates[1] is None:
        return None
    (left, right), names = rates, ("left", "right")
    faster, factor = (names[0], left / right) if left >= right else (names[1], right / left)
    return f"The {faster} one decoded {factor:.2f} times as fast."
