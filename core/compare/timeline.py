"""How an answer grew: its tokens over time, for charts."""

from __future__ import annotations

from dataclasses import dataclass

from core.compare.timed_answers import Timing


@dataclass(frozen=True)
class Timeline:
    """Tokens of one answer over time; a point a token, after one at the start of work.

    Between two points nothing changes: a chart draws it in steps.
    """

    seconds: tuple[float, ...]
    """Since work on the answer started: prefill included, its place in line not."""
    tokens: tuple[int, ...]
    """Tokens that existed then."""
    contended: bool
    """Whether anything else was generating at the time, or the cores were apart."""


def timeline(timing: Timing) -> Timeline:
    """The timeline of the typical answer of a side; without tokens, it is the start alone.

    A server elsewhere may send several tokens in one piece, and tell their number at the end: all
    pieces are taken to have as many.
    """
    answer = timing.typical
    times = answer.token_times_ms
    told = answer.timings.new_tokens if answer.timings is not None else 0
    each = told / len(times) if times and told else 1.0
    return Timeline(
        seconds=(0.0, *(time_ms / 1000 for time_ms in times)),
        tokens=tuple(round(each * count) for count in range(len(times) + 1)),
        contended=answer.contended or timing.cores_apart,
    )
