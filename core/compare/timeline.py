"""Tokens of an answer over time, for charts."""

from __future__ import annotations

from dataclasses import dataclass

from core.compare.timed_answers import Timing


@dataclass(frozen=True)
class Timeline:
    """Tokens of one answer over time: one point at the start, then one per token.

    The number of tokens is constant between two points, so draw it as a step line.
    """

    seconds: tuple[float, ...]
    """Seconds since processing started: prefill included, queueing excluded."""
    tokens: tuple[int, ...]
    """Number of tokens at that time."""
    contended: bool
    """Whether other work ran at the same time, or the cores were apart."""


def timeline(timing: Timing) -> Timeline:
    """Return the timeline of a side's median answer; only the start if it has no tokens.

    A remote server may send several tokens per chunk and report the total at the end: the tokens
    are then divided evenly among the chunks.
    """
    answer = timing.typical
    times = answer.token_times_ms
    reported = answer.timings.new_tokens if answer.timings is not None else 0
    each = reported / len(times) if times and reported else 1.0
    return Timeline(
        seconds=(0.0, *(time_ms / 1000 for time_ms in times)),
        tokens=tuple(round(each * count) for count in range(len(times) + 1)),
        contended=answer.contended or timing.cores_apart,
    )
