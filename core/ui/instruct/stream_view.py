"""Shows an answer while it is made, and the line of figures below it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.inference.answer import Answer
from core.inference.job import Job, Phase, Snapshot
from core.runtimes.spec import ModelSpec
from core.ui.widgets.paragraphs import Unsent
from core.ui.widgets.safe_text import SafeMarkdown, safe_inline
from core.units import bytes_text, milliseconds_text, rate_text

READING_TOKENS_PER_S = 40.0
_DRAW_EVERY_S = 0.05
"""The open block of the text goes to the browser with each piece: tokens are drawn in batches."""
_DRAW_S_PER_CHARACTER = 150e-6
"""A long block is drawn the less often the longer it is (0.15 s for 1 000 characters), so that the
bytes sent grow with the time that an answer takes and not with the square of its length."""
_FAST_CHARACTERS_PER_S = 500.0
_FAST_DRAW_EVERY_S = 0.25
"""What comes much faster than anybody reads is drawn less often: on a machine with few cores the
browser's work takes them from the model."""
_FIGURES_EVERY_S = 0.25


class Pace(StrEnum):
    """How fast an answer appears on the screen; timings never depend on it."""

    FULL = "full"
    READING = "reading"

    @property
    def label(self) -> str:
        """Words for the control."""
        return "Full speed" if self is Pace.FULL else "Reading pace"


def stream_answer(job: Job, pace: Pace) -> None:
    """Draw the answer as it grows, from its beginning, until it has ended.

    A rerun or a page switch leaves in the middle; the job goes on, and the next call begins again
    with all the text there is.
    """
    text, figures = st.container(), st.empty()  # the figures stay below, where they end up
    text.write_stream(_pieces(job, pace, figures), cursor=" ▌")
    figures.empty()


def _pieces(job: Job, pace: Pace, figures: DeltaGenerator) -> Iterator[str | Callable[[], None]]:
    """What ``write_stream`` draws; a callable ends the block, which is not sent again after it."""
    safe, read, began = SafeMarkdown(), 0, time.monotonic()
    drawn_at, drawn_phase = 0.0, None
    unsent, sent_at = Unsent(), 0.0
    # When its first token was shown: the pace goes on from there after a rerun or a page switch.
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
            # Every Streamlit call is a point where a click takes effect: without one, Stop
            # would wait for the first token.
            _draw_progress(figures, snapshot, pace, waited_s=now - began, behind=ended)
            drawn_at, drawn_phase = now, snapshot.phase
        unsent.feed(safe.feed("".join(pieces)))
        if ended and not job.read(read)[0]:
            break
        waited_s = now - sent_at
        if len(unsent) and waited_s >= _least_s(len(unsent), waited_s, unsent.open_length):
            yield from _drawn(unsent)
            sent_at = now
    unsent.feed(safe.close())
    unsent.close()
    yield from _drawn(unsent)


def _least_s(unsent: int, waited_s: float, length: int) -> float:
    """Seconds between two drawings of an open block of ``length`` characters, of which ``unsent``
    came in the last ``waited_s``."""
    fast = unsent > _FAST_CHARACTERS_PER_S * waited_s
    return max(_FAST_DRAW_EVERY_S if fast else 0.0, _DRAW_S_PER_CHARACTER * length)


def _drawn(unsent: Unsent) -> Iterator[str | Callable[[], None]]:
    for piece in unsent.take():
        yield _end_block if piece is None else piece


def _end_block() -> None:
    """``write_stream`` finishes what it has drawn before it calls what it is given."""


def _draw_progress(
    figures: DeltaGenerator, now: Snapshot, pace: Pace, *, waited_s: float, behind: bool
) -> None:
    if now.phase is Phase.PREPARING:
        message = f":material/hourglass_top: {safe_inline(now.message)}"
        if now.fraction is None:  # an empty bar would look stuck; seconds that count do not
            figures.caption(f"{message} {waited_s:.0f} s")
        else:
            figures.progress(now.fraction, text=message)
        return
    parts = running_figures(now)
    if pace is Pace.READING:
        parts.append("answered; shown at reading pace" if behind else "shown at reading pace")
    figures.caption(" · ".join(parts))


def running_figures(now: Snapshot) -> list[str]:
    """What can be said of an answer under way once its model is ready, as pieces of Markdown."""
    parts = [safe_inline(now.message)]
    if now.phase in (Phase.ANSWERING, Phase.DONE):
        parts = [f"**{rate_text(now.tokens_per_s)}**", f"{now.new_tokens} tokens"]
        if now.ttft_ms is not None:
            parts.append(f"TTFT {milliseconds_text(now.ttft_ms)}")
    if now.phase is not Phase.QUEUED:
        parts.append(f"{now.elapsed_s:.1f} s")
    return parts


def figures_line(answer: Answer, spec: ModelSpec, title: str | None, *, times: int = 1) -> str:
    """The one steady line of figures below an ended answer, as Markdown.

    Args:
        title: the model's name, as it is; None where it and the precision stand above already.
        times: of how many answers the timings are medians.
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
    parts.append(f"ended: {answer.stop_reason.value}")
    if facts is not None:
        memory = facts.memory
        parts.append(
            f"memory {bytes_text(memory.private_bytes)} private + "
            f"{bytes_text(memory.file_backed_bytes)} file-backed"
        )
    *precision, device, runtime = spec.words
    if conditions is not None and conditions.devices_used not in ((), (spec.device,)):
        device += f" → {', '.join(conditions.devices_used)}"
    named = [] if title is None else [title, *precision]
    parts += map(safe_inline, [*named, device, runtime])
    if conditions is not None and conditions.note is not None:
        parts.append(safe_inline(conditions.note))
    if answer.seed is not None:
        parts.append(f"seed {answer.seed}")
    if answer.contended:
        parts.append(":material/warning: contended: something else was generating")
    return " · ".join(parts)
