"""The result of a generation."""

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
        """The reason as a sentence for users."""
        return _SENTENCES[self]


_SENTENCES = {
    StopReason.END_OF_TEXT: "The model ended its answer.",
    StopReason.STOP_MARKER: "The model ended its answer with its stop marker.",
    StopReason.LENGTH: "The answer reached the maximum number of new tokens.",
    StopReason.CANCELLED: "You stopped the answer.",
    StopReason.TIMEOUT: "The answer took longer than the time limit.",
    StopReason.ERROR: "The answer failed.",
}


@dataclass(frozen=True)
class Answer:
    """An answer that has ended, successfully or not."""

    text: str
    token_ids: tuple[int, ...]
    """All generated ids, including an end-of-text token."""
    token_times_ms: tuple[float, ...]
    """When each token was generated, in milliseconds since work started."""
    stop_reason: StopReason
    seed: int | None
    """The seed that was used; None for greedy decoding."""
    prompt_format: str | None = None
    timings: Timings | None = None
    """None if it ended before work started."""
    conditions: Conditions | None = None
    facts: LoadFacts | None = None
    weights: str | None = None
    """Display name of the weights if the precision is not specific enough: ``INT8 from Q4_1``."""
    contended: bool = False
    """Whether other work ran at the same time; such timings are not comparable."""
    error: Exception | None = None
    """Its message is shown to users if it is a PaddockError."""

    @property
    def error_sentence(self) -> str | None:
        """The error message for users."""
        return None if self.error is None else str(self.error)
