"""The result of a generation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from core.inference.timing import Timings, accepted
from core.runtimes.base import Conditions
from core.runtimes.pool import LoadFacts
from core.units import duration_text, milliseconds_text


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
    StopReason.LENGTH: "The answer reached the maximum of new tokens, or of the context length.",
    StopReason.CANCELLED: "You stopped the answer.",
    StopReason.TIMEOUT: "The answer took longer than the time limit.",
    StopReason.ERROR: "The answer failed.",
}


@dataclass(frozen=True)
class Thinking:
    """The thoughts of a reasoning model."""

    text: str
    tokens: int
    """Their tokens, markers included; for a remote server, received chunks."""
    seconds: float
    """From their first token to their last."""

    @property
    def duration(self) -> str:
        """The duration as text: ``4 s``, or ``320 ms`` where it is short."""
        short = self.seconds < 1
        return milliseconds_text(1000 * self.seconds) if short else duration_text(self.seconds)


@dataclass(frozen=True)
class Answer:
    """An answer that has ended, successfully or not."""

    __pydantic_config__: ClassVar = {"arbitrary_types_allowed": True}  # for the error

    text: str
    """Without the thoughts."""
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
    thinking: Thinking | None = None
    """None if the model wrote no thoughts."""
    dropped: int = 0
    """Earlier messages that were left out because they did not fit into the context length."""
    error: Exception | None = None
    """Its message is shown to users if it is a PaddockError."""

    @property
    def answer_tokens(self) -> int:
        """New tokens without those of the thoughts."""
        new = self.timings.new_tokens if self.timings is not None else 0
        # A remote server may count tokens where the thoughts are counted by chunks.
        return max(0, new - (self.thinking.tokens if self.thinking is not None else 0))

    @property
    def accepted_guesses(self) -> list[bool]:
        """Whether each token was guessed by speculation and accepted; empty if none were guessed,
        or if the times of the tokens are unknown."""
        guessed = self.timings is not None and self.timings.draft_tokens
        return accepted(self.token_times_ms) if guessed else []

    @property
    def error_sentence(self) -> str | None:
        """The error message for users."""
        return None if self.error is None else str(self.error)

    @property
    def sentence(self) -> str:
        """Why it ended, for users."""
        if self.error is not None:
            return str(self.error)
        if self.stop_reason is StopReason.LENGTH and self.thinking and not self.text:
            count = self.timings.new_tokens if self.timings else self.thinking.tokens
            return f"All {count:,} new tokens went into thinking. Raise the maximum of new tokens."
        return self.stop_reason.sentence
