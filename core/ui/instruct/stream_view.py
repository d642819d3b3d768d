"""Draw an answer while it is generated, with its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.catalogue import catalogue
from core.inference.answer import StopReason, Thinking
from core.inference.job import Job, Phase, Snapshot
from core.runtimes.spec import ModelSpec
from core.ui.widgets.answer_text import StreamedAnswer, draw_plain
from core.ui.widgets.link import link_choice
from core.ui.widgets.safe_text import safe_inline
from core.units import counted, milliseconds_text, rate_text

THOUGHTS_ICON = ":material/psychology:"
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

    AUTO = "auto"
    """Reading pace for the tiny embedded models, which are faster than anybody reads."""
    FULL = "full"
    READING = "reading"

    def of(self, spec: ModelSpec) -> Pace:
        """Return the pace for a model: full speed or reading pace."""
        if self is not Pace.AUTO:
            return self
        row = catalogue().get(spec.model)
        return Pace.READING if row is not None and row.embedded else Pace.FULL


_PACES = {Pace.AUTO: "Automatic", Pace.FULL: "Full speed", Pace.READING: "Reading pace"}


def pick_pace() -> Pace:
    """Draw the control for the pace."""
    pace = st.segmented_control(
        "Display",
        list(Pace),
        format_func=_PACES.__getitem__,
        required=True,
        help="Full speed shows each token as soon as it is generated. Reading pace limits the "
        "display to about 40 tokens per second; the reported figures are not affected. Automatic "
        "uses the reading pace for the tiny demo models only.",
        **link_choice("pace", Pace.AUTO, Pace),
    )
    return pace or Pace.AUTO


def stream_answer(job: Job, pace: Pace, prefix: str = "") -> None:
    """Draw the answer from its beginning until it has finished.

    A rerun or a page switch interrupts this function. The job continues, and the next call draws
    all text generated so far.

    Args:
        pace: full speed or reading pace.
        prefix: the beginning of the answer, which the job continues.
    """
    thoughts, text = st.container(), st.container()
    figures = st.empty()  # below the text, where they stay at the end
    answer = StreamedAnswer(text)
    answer.feed(prefix)
    text.write_stream(_draws(job, pace, thoughts, answer, figures))
    figures.empty()


def _draws(
    job: Job, pace: Pace, thoughts: DeltaGenerator, answer: StreamedAnswer, figures: DeltaGenerator
) -> Iterator[Callable[[], None]]:
    """Yield the updates of the answer, which ``write_stream`` calls.

    A text that it wrote itself would be parsed as Streamlit's Markdown, with links and images.
    """
    read, began, thoughts_read = 0, time.monotonic(), 0
    thinking: StreamedAnswer | None = None
    drawn_at, drawn_phase = 0.0, None
    sent_at = 0.0
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
        new_thoughts, thoughts_read = job.read_thoughts(thoughts_read)
        if thought := "".join(new_thoughts):
            if thinking is None:
                thinking = StreamedAnswer(
                    thoughts.expander("Thoughts", icon=THOUGHTS_ICON, type="compact")
                )
            thinking.feed(thought)
        if snapshot.phase is not drawn_phase or now - drawn_at >= _FIGURES_EVERY_S:
            # A click only takes effect at a Streamlit call: without one, Stop would wait for the
            # first token.
            _draw_progress(figures, snapshot, pace, waited_s=now - began, behind=ended)
            drawn_at, drawn_phase = now, snapshot.phase
            if thinking is not None and thinking.unsent:
                yield thinking.draw
        answer.feed("".join(pieces))
        if ended and not job.read(read)[0]:
            break
        waited_s = now - sent_at
        if answer.unsent and waited_s >= _interval_s(answer.unsent, waited_s, answer.open_length):
            yield answer.draw
            sent_at = now
    if thinking is not None:
        yield thinking.finish
    yield answer.finish


def draw_thinking(thinking: Thinking) -> None:
    """Draw the thoughts of a finished answer, folded."""
    label = f"Thought for {thinking.duration} · {counted(thinking.tokens, 'token')}"
    with st.expander(label, icon=THOUGHTS_ICON, type="compact"):
        draw_plain(thinking.text)


def _interval_s(unsent: int, waited_s: float, length: int) -> float:
    """Return the minimum seconds between two updates of an open block.

    Args:
        unsent: characters that arrived in the last ``waited_s`` seconds.
        length: characters of the open block.
    """
    fast = unsent > _FAST_CHARACTERS_PER_S * waited_s
    return max(_FAST_DRAW_EVERY_S if fast else 0.0, _DRAW_S_PER_CHARACTER * length)


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
        if now.thinking_tokens:
            parts.append(f"{now.thinking_tokens} of them thoughts")
        if now.ttft_ms is not None:
            parts.append(f"TTFT {milliseconds_text(now.ttft_ms)}")
    if now.phase is not Phase.QUEUED:
        parts.append(f"{now.elapsed_s:.1f} s")
    return parts


def stop_text(reason: str, new_tokens: int | None) -> str:
    """Return why an answer ended, for a line of figures."""
    if reason == StopReason.LENGTH and new_tokens:
        return f"cut off at {new_tokens} {'token' if new_tokens == 1 else 'tokens'}"
    return f"ended: {reason}"
