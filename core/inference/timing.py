"""Timings of an answer, from the time of each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_SHORTEST_S = 0.05
"""A remote answer whose chunks arrive within this time was held back until its end."""
_TOGETHER_S = 0.5e-3
"""Chunks that are received at shorter intervals were sent together: it is the time that reading a
chunk takes."""
_PAUSE_S = 2e-3
"""The first such interval ends the chunks that may have been sent together with the first one."""


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
    """See :func:`time_per_token_s`."""
    total_ms: float
    """Start of work to end of work."""
    prompt_tokens: int | None
    """None if a remote server reports no count."""
    new_tokens: int
    """Generated token ids, including an end-of-text token; for a remote server, the count that it
    reports, or else the number of received chunks."""
    cached_tokens: int | None = None
    """Prompt tokens taken from the prefix cache; None without one."""
    draft_tokens: int | None = None
    """Tokens guessed by speculation; None if none were."""
    accepted_tokens: int | None = None
    """Guessed tokens that the model accepted; None if none were guessed."""

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted / guessed tokens; None without speculation."""
        if not self.draft_tokens or self.accepted_tokens is None:
            return None
        return self.accepted_tokens / self.draft_tokens

    @property
    def tokens_per_step(self) -> float | None:
        """New tokens / steps of the model; None without speculation."""
        if not self.draft_tokens or self.accepted_tokens is None:
            return None
        return self.new_tokens / (self.new_tokens - self.accepted_tokens)

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
        """Prompt tokens that were computed / TTFT."""
        if self.prompt_tokens is None or not self.ttft_ms:
            return None
        return 1000.0 * (self.prompt_tokens - (self.cached_tokens or 0)) / self.ttft_ms


def measure(
    queued_s: float,
    started_s: float,
    ended_s: float,
    prompt_tokens: int | None,
    stamps_s: Sequence[float],
    new_tokens: int | None = None,
    cached_tokens: int | None = None,
    draft_tokens: int | None = None,
    *,
    received: bool = False,
) -> Timings:
    """Return the timings for clock readings in seconds.

    Args:
        queued_s: when the answer was queued.
        started_s: when work on it started.
        ended_s: when work on it ended.
        stamps_s: when each token was generated, or each chunk of a remote server received.
        new_tokens: number of tokens, if it may differ from the number of timestamps.
        cached_tokens: prompt tokens taken from the prefix cache.
        draft_tokens: tokens guessed by speculation; the tokens of a step have the same time.
        received: whether the timestamps are of a remote server's chunks.
    """
    seen = len(stamps_s)
    count = seen if new_tokens is None else new_tokens
    per_token_s = time_per_token_s(started_s, stamps_s, count, received=received)
    return Timings(
        queue_ms=1000 * (started_s - queued_s),
        ttft_ms=1000 * (stamps_s[0] - started_s) if seen else None,
        tpot_ms=None if per_token_s is None else 1000 * per_token_s,
        total_ms=1000 * (ended_s - started_s),
        prompt_tokens=prompt_tokens,
        new_tokens=count,
        cached_tokens=cached_tokens,
        draft_tokens=draft_tokens,
        accepted_tokens=None if draft_tokens is None else sum(accepted(stamps_s)),
    )


def accepted(stamps: Sequence[float]) -> list[bool]:
    """Return for each token whether it was guessed and accepted.

    The tokens of a step have the same time, and the last of them is the model's own.

    Args:
        stamps: time of each token, in any unit.
    """
    return [now == after for now, after in pairwise(stamps)] + [False] * bool(stamps)


def time_per_token_s(
    started_s: float, stamps_s: Sequence[float], tokens: int, *, received: bool
) -> float | None:
    """Return the time per output token, (last − first token time) / (tokens − 1), in seconds.

    A remote server, or a proxy before it, may send several tokens together. Those that arrive with
    the first one are not counted, and an answer that arrives all at once has no time per token.

    Args:
        received: whether the timestamps are of a remote server's chunks.
    """
    seen = len(stamps_s)
    if min(seen, tokens) < 2:
        return None
    span = stamps_s[-1] - stamps_s[0]
    if not received:
        return span / (tokens - 1)
    if span < max(_SHORTEST_S, _TOGETHER_S * (seen - 1)):
        return None
    gaps = (after - before for before, after in pairwise(stamps_s))
    first = next((at for at, gap in enumerate(gaps, start=1) if gap >= _PAUSE_S), 1)
    together = first > 1 and stamps_s[first - 1] - stamps_s[0] < _TOGETHER_S * (first - 1)
    return span / (tokens * (seen - first) / seen if together else tokens - 1)
