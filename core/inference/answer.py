"""What came out of a generation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from core.inference.timing import Timings
from core.runtimes.base import Conditions
from core.runtimes.pool import LoadFacts


class StopReason(StrEnum):
    """Why an answer ended."""

    END_OF_TEXT = "end of text"
    STOP_MARKER = "stop marker"
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    ERROR = "error"

    @property
    def sentence(self) -> str:
        """The reason in words for the person."""
        return _SENTENCES[self]


_SENTENCES = {
    StopReason.END_OF_TEXT: "The model ended its answer.",
    StopReason.STOP_MARKER: "The model ended its answer with its stop marker.",
    StopReason.LENGTH: "The answer reached the number of new tokens asked for.",
    StopReason.CANCELLED: "You stopped the answer.",
    StopReason.TIMEOUT: "The answer took longer than the time limit.",
    StopReason.ERROR: "The answer failed.",
}


@dataclass(frozen=True)
class Answer:
    """An ended answer, well or not."""

    text: str
    token_ids: tuple[int, ...]
    """All ids the model produced, an end token included."""
    token_times_ms: tuple[float, ...]
    """When each of them existed, in milliseconds since work started."""
    stop_reason: StopReason
    seed: int | None
    """The seed that was used; None where decoding was greedy."""
    prompt_format: str | None = None
    timings: Timings | None = None
    """None where it ended before work started."""
    conditions: Conditions | None = None
    facts: LoadFacts | None = None
    contended: bool = False
    """Whether anything else was generating at the time: such timings are not comparable."""
    error: Exception | None = None
    """Of which the text is meant for the person, where it is a PaddockError."""

    @property
    def error_sentence(self) -> str | None:
        """What the person reads of the error."""
        return None if self.error is None else str(self.error)
