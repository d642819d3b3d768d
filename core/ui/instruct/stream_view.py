"""Draw an answer while it is generated, and the line of figures below it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.inference.answer import Answer, StopReason
from core.inference.job import Job, Phase, Snapshot
from core.runtimes.spec import ModelSpec
from core.ui.widgets.paragraphs import Unsent
from core.ui.widgets.safe_text import SafeMarkdown, safe_inline
from core.units import bytes_text, milliseconds_text, rate_text

READING_TOKENS_PER_S = 40.0
_DRAW_EVERY_S = 0.05
"""Tokens are drawn in batches, because each update sends the whole open block to the browser."""
_DRAW_S_PER_CHARACTER = 150e-6
"""The longer a block, the less often it is drawn (0.15 s for 1 000 characters), so that the bytes
sent grow with the duration of an answer and not with the square of its length."""
_FAST_CHARACTERS_PER_S = 500.0
_FAST_DRAW_EVERY_S = 0.25
"""Interval for text that arrives much faster than anybody reads: on a machine with few cores, the
browser's work takes processor time from the model."""
_FIGURES_EVERY_S = 0.25


class Pace(StrEnum):
    """How fast an answer appears on the screen; timings do not depend on it."""

    FULL = "full"
    READING = "reading"

    @property
    def label(self) -> str:
        """Label in the control."""
        return "Full speed" if self is Pace.FULL else "Reading pace"


def stream_answer(job: Job, pace: Pace) -> None:
    """Draw the answer from its beginning until it has finished.

    A rerun or a page switch interrupts this function. The job continues, and the next call draws
    all text generated so far.
    """
    text, figures = st.container(), st.empty()  # the figures are below, where they stay at the end
    text.write_stream(_pieces(job, pace, figures), cursor=" ▌")
    figures.empty()


def _pieces(job: Job, pace: Pace, figures: DeltaGenerator) -> Iterator[str | Callable[[], None]]:
    """Yield what ``write_stream`` draws; a callable ends a block, which is not sent again."""
    safe, read, began = SafeMarkdown(), 0, time.monotonic()
    drawn_at, drawn_phase = 0.0, None
    unsent, sent_at = Unsent(), 0.0
    # Time at which the first token was shown: after a rerun or a page switch, the reading pace
    # continues from there.
    first_shown: dict[str, float] = st.session_state.setdefault("first_shown", {})
    while True:
        ended = job.wait(_DRAW_EVERY_S)
        now = time.monotonic()
        pieces, _ = job.read(read)
        if pieces and job.id not in first_shown:
            first_shown.clear()
            first_shown[job.id] = now
        if pace is Pace.READING and pieces:
            allowed = int((now - first_shown[job.id]) * READING_TOKENS_PER_S) + 1 - read
            pieces = pieces[: max(0, allowed)]
        read += len(pieces)
        snapshot = job.snapshot()
        if snapshot.phase is not drawn_phase or now - drawn_at >= _FIGURES_EVERY_S:
            # A click only takes effect at a Streamlit call: without one, Stop would wait for the
            # first token.
            _draw_progress(figures, snapshot, pace, waited_s=now - began, behind=ended)
            drawn_at, drawn_phase = now, snapshot.phase
        unsent.feed(safe.feed("".join(pieces)))
        if ended and not job.read(read)[0]:
            break
        waited_s = now - sent_at
        if len(unsent) and waited_s >= _interval_s(len(unsent), waited_s, unsent.open_length):
            yield from _blocks(unsent)
            sent_at = now
    unsent.feed(safe.close())
    unsent.close()
    yield from _blocks(unsent)


def _interval_s(unsent: int, waited_s: float, length: int) -> float:
    """Return the minimum seconds between two updates of an open block.

    Args:
        unsent: characters that arrived in the last ``waited_s`` seconds.
        length: characters of the open block.
    """
    fast = unsent > _FAST_CHARACTERS_PER_S * waited_s
    return max(_FAST_DRAW_EVERY_S if fast else 0.0, _DRAW_S_PER_CHARACTER * length)


def _blocks(unsent: Unsent) -> Iterator[str | Callable[[], None]]:
    for piece in unsent.take():
        yield _end_block if piece is None else piece


def _end_block() -> None:
    """Do nothing: ``write_stream`` ends the current element before it calls a callable."""


def _draw_progress(
    figures: DeltaGenerator, now: Snapshot, pace: Pace, *, waited_s: float, behind: bool
) -> None:
    if now.phase is Phase.PREPARING:
        message = f":material/hourglass_top: {safe_inline(now.message)}"
        if now.fraction is None:  # an empty bar would look stuck; counting seconds do not
            figures.caption(f"{message} {waited_s:.0f} s")
        else:
            figures.progress(now.fraction, text=message)
        return
    parts = running_figures(now)
    if pace is Pace.READING:
        parts.append("finished; shown at reading pace" if behind else "shown at reading pace")
    figures.caption(" · ".join(parts))


def running_figures(now: Snapshot) -> list[str]:
    """Return the figures of a running answer whose model is loaded, as pieces of Markdown."""
    parts = [safe_inline(now.message)]
    if now.phase in (Phase.ANSWERING, Phase.DONE):
        parts = [f"**{rate_text(now.tokens_per_s)}**", f"{now.new_tokens} tokens"]
        if now.ttft_ms is not None:
            parts.append(f"TTFT {milliseconds_text(now.ttft_ms)}")
    if now.phase is not Phase.QUEUED:
        parts.append(f"{now.elapsed_s:.1f} s")
    return parts


def figures_line(answer: Answer, spec: ModelSpec, title: str | None, *, times: int = 1) -> str:
    """Return the line of figures below a finished answer, as Markdown.

    Args:
        title: unescaped display name of the model; None if it and the precision are shown above.
        times: number of answers of which the timings are medians.
    """
    timings, facts, conditions = answer.timings, answer.facts, answer.conditions
    parts = []
    if timings is not None and timings.ttft_ms is not None:
        parts.append(f"TTFT **{milliseconds_text(timings.ttft_ms)}**")
        parts.append(f"**{rate_text(timings.decode_tokens_per_s)}**")
    if times > 1:
        parts.append(f"medians of {times}")
    if timings is not None:
        noun = "token" if timings.new_tokens == 1 else "tokens"
        parts.append(f"**{timings.new_tokens}** {noun}")
    new_tokens = None if timings is None else timings.new_tokens
    parts.append(stop_text(answer.stop_reason, new_tokens))
    if facts is not None:
        memory = facts.memory
        parts.append(
            f"memory {bytes_text(memory.private_bytes)} private + "
            f"{bytes_text(memory.file_backed_bytes)} file-backed"
        )
    *precision, device, runtime = spec.words
    if conditions is not None and conditions.devices_used not in ((), (spec.device,)):
        device += f" → {', '.join(conditions.devices_used)}"
    weights = [answer.weights] if answer.weights else precision
    named = [] if title is None else [title, *weights]
    parts += map(safe_inline, [*named, device, runtime])
    if conditions is not None and conditions.note is not None:
        parts.append(safe_inline(conditions.note))
    if answer.seed is not None:
        parts.append(f"seed {answer.seed}")
    if answer.contended:
        parts.append(":material/warning: measured while busy: another generation was running")
    return " · ".join(parts)


def stop_text(reason: str, new_tokens: int | None) -> str:
    """Return why an answer ended, for a line of figures."""
    if reason == StopReason.LENGTH and new_tokens:
        return f"cut off at {new_tokens} {'token' if new_tokens == 1 else 'tokens'}"
    return f"ended: {reason}"
