"""Timings of an answer, from the time of each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """Timings of one answer.

    All times are from the worker's monotonic clock. Figures that need two tokens are None with
    fewer; the time to first token is None without tokens.
    """

    queue_ms: float
    """Milliseconds in the queue before work started; not part of the other figures."""
    ttft_ms: float | None
    """Time to first token: start of work to first token, prefill included."""
    tpot_ms: float | None
    """Time per output token: (last − first token time) / (tokens − 1)."""
    total_ms: float
    """Start of work to end of work."""
    prompt_tokens: int | None
    """None if a remote server reports no count."""
    new_tokens: int
    """Generated token ids, including an end-of-text token; for a remote server, the count that it
    reports, or else the number of received chunks."""

    @property
    def decode_tokens_per_s(self) -> float | None:
        """1 / TPOT."""
        return 1000.0 / self.tpot_ms if self.tpot_ms else None

    @property
    def end_to_end_tokens_per_s(self) -> float | None:
        """New tokens / total time."""
        timed = self.new_tokens and self.total_ms
        return 1000.0 * self.new_tokens / self.total_ms if timed else None

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Prompt tokens / TTFT."""
        timed = self.prompt_tokens is not None and self.ttft_ms
        return 1000.0 * self.prompt_tokens / self.ttft_ms if timed else None


def measure(
    queued_s: float,
    started_s: float,
    ended_s: float,
    prompt_tokens: int | None,
    stamps_s: Sequence[float],
    new_tokens: int | None = None,
) -> Timings:
    """Return the timings for clock readings in seconds.

    Args:
        queued_s: when the answer was queued.
        started_s: when work on it started.
        ended_s: when work on it ended.
        stamps_s: when each token was generated, or each chunk of a remote server received.
        new_tokens: number of tokens, if it may differ from the number of timestamps.
    """
    seen = len(stamps_s)
    count = seen if new_tokens is None else new_tokens
    return Timings(
        queue_ms=1000 * (started_s - queued_s),
        ttft_ms=1000 * (stamps_s[0] - started_s) if seen else None,
        tpot_ms=1000 * (stamps_s[-1] - stamps_s[0]) / (count - 1) if min(seen, count) > 1 else None,
        total_ms=1000 * (ended_s - started_s),
        prompt_tokens=prompt_tokens,
        new_tokens=count,
    )
