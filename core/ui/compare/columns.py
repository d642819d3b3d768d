"""Draw the sides of a comparison next to each other, live while they generate."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import streamlit as st

from core.compare.match import SideState, running_matches
from core.compare.setup import LETTERS, Mode
from core.inference.answer import Answer, StopReason
from core.inference.job import Phase
from core.ui.compare.setup import SIDE_BADGES
from core.ui.compare.state import CompareState, MatchView
from core.ui.instruct.conversation import model_title, words_of
from core.ui.instruct.stream_view import THOUGHTS_ICON, draw_thinking, running_figures, stop_text
from core.ui.widgets.actions import action
from core.ui.widgets.answer_text import draw_answer, draw_growing_answer, draw_plain
from core.ui.widgets.resources import rerun_when
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.scripts import SCROLL_TO_MATCH
from core.ui.widgets.tokens import draw_tokens
from core.units import counted, milliseconds_text, rate_text

REFRESH_S = 0.2
"""Interval at which the text is sent to the browser; timings are measured by the workers."""
REFRESH_PER_MATCH_S = 0.1
"""Minimum interval per comparison running in the app. Two columns of twenty users, refreshed five
times per second, kept the interpreter so busy that no page was drawn any more."""
WAITING_REFRESH_S = 1.0
"""Interval for a side that waits for another one, whose end redraws the page anyway."""
TIMING_REFRESH_S = 0.4
"""Interval while answers are repeated for their timings, because each refresh disturbs them."""

_SCROLLED = "scrolled_to"
_PLACES = ("1st", "2nd", "3rd", "4th")


def draw_answers(view: MatchView, state: CompareState, *, actions: bool = True) -> None:
    """Draw all sides; text and figures of running sides are refreshed.

    The comparison runs independently of the page: a rerun, a page switch or a closed tab does not
    affect it, and the next call shows it again. Each side is a fragment. Its Stop button is outside
    the fragment, so that a click interrupts the drawing and need not wait for it.

    Args:
        actions: whether finished sides get Copy and Regenerate buttons.
    """
    sides, running = range(len(view.match.setup.sides)), view.match.running
    answered = view.match.answered  # read first: sides that end later are handled by their fragment
    for side, column in zip(sides, st.columns(len(sides), gap="small"), strict=True):
        with column.container(border=True, height="stretch", key=f"answer_{LETTERS[side].lower()}"):
            ended = view.match.state(side).ended  # read once: it may end while it is drawn
            _draw_heading(view, side, ended=ended)
            if not ended:
                st.fragment(_draw_live, run_every=_side_interval_s(view, side))(view, side)
                continue
            _draw_ended(view, side)
            if actions and not running:
                _draw_actions(view, side, state)
    if answered and running:
        st.fragment(_draw_timing, run_every=refresh_interval_s(TIMING_REFRESH_S))(view)


def refresh_interval_s(minimum_s: float = REFRESH_S) -> float:
    """Return the refresh interval, which grows with the number of running comparisons."""
    return max(minimum_s, REFRESH_PER_MATCH_S * running_matches())


def _side_interval_s(view: MatchView, side: int) -> float:
    match = view.match
    before = range(side) if match.setup.mode is Mode.FAIR else ()
    waits = any(not match.state(other).ended for other in before)
    return refresh_interval_s(WAITING_REFRESH_S if waits else REFRESH_S)


def follow_run(state: CompareState, *, was_running: bool) -> None:
    """Start a new comparison, and rerun the page when the last answer has finished.

    Called last, so that drawing the page does not slow down the side that generates first.

    Args:
        was_running: whether an answer was running at the beginning of this script run.
    """
    entry = state.current
    for match in entry.run.matches if entry is not None else ():
        match.begin()
    if was_running and not state.running:
        st.rerun()
    if entry is None or not entry.run.running:
        rerun_when(lambda: not state.running)


def scroll_into_view(view: MatchView) -> None:
    """Scroll to a comparison that has just started, where the window is small."""
    place = st.empty()  # always present, so that nothing below it moves
    if view.match.id not in st.session_state.setdefault(_SCROLLED, set()):
        st.session_state[_SCROLLED].add(view.match.id)
        if view.match.running:
            place.html(f"<script>{SCROLL_TO_MATCH}</script>", unsafe_allow_javascript=True)


def _draw_timing(view: MatchView) -> None:
    if not view.match.running:
        st.rerun()
    st.caption(
        ":material/timer: The answers were too short to time. They are repeated a few times in the "
        "background."
    )


def _draw_live(view: MatchView, side: int) -> None:
    match view.match.state(side):
        case SideState.WAITING:
            _draw_waiting(view, side)
        case SideState.RUNNING:
            _draw_running(view, side)
        case _:
            st.rerun()  # removes Stop, keeps the figures and updates the rest of the page


def _draw_heading(view: MatchView, side: int, *, ended: bool) -> None:
    spec, letter = view.match.setup.sides[side], LETTERS[side]
    name = f":{SIDE_BADGES[side]}-badge[{letter}]"
    if not view.hidden:
        answer = view.match.answers[side] if ended else None
        details = " · ".join(map(safe_inline, words_of(spec, answer)))
        name += f" **{safe_inline(model_title(spec))}**  \n:small[{details}]"
    with st.container(horizontal=True, wrap=False, gap="small"):
        st.markdown(name, width="stretch")
        if not ended:
            label, key = f"Stop {letter}", f"icon_stop_{side}"
            action(label, "stop", key, view.match.stop, side, kind="secondary", help=label)


def _draw_waiting(view: MatchView, side: int) -> None:
    message, fraction = view.match.message(side), view.match.fraction(side)
    if view.hidden:  # a message may contain the model name
        message, fraction = "Waiting or loading.", None
    text = f":material/hourglass_top: {safe_inline(message)}"
    if fraction is not None:
        st.progress(fraction, text=text)
    else:  # an empty bar would look stuck; counting seconds do not
        waited_s = (datetime.now(UTC) - view.match.asked_at).total_seconds()
        st.caption(f"{text} {waited_s:.0f} s")


def _draw_running(view: MatchView, side: int) -> None:
    job = view.match.jobs[side]
    assert job is not None, "a running side has a job"
    now = job.snapshot()
    if now.phase is Phase.PREPARING:
        _draw_waiting(view, side)
        return
    # Above the text, so that they stay in place while it grows.
    st.caption("Generating …" if view.hidden else " · ".join(running_figures(now)))
    if thoughts := job.thoughts:
        with st.expander("Thoughts", icon=THOUGHTS_ICON, type="compact", key=f"thoughts_{side}"):
            draw_plain(thoughts)
    if text := view.match.text(side):
        draw_growing_answer(text)


def _draw_ended(view: MatchView, side: int) -> None:
    answer = view.match.answers[side]
    st.caption(_ending(view, side))
    if answer is not None and answer.thinking is not None:
        if view.hidden:  # time and tokens would tell the model
            with st.expander("Thoughts", icon=THOUGHTS_ICON, type="compact"):
                draw_plain(answer.thinking.text)
        else:
            draw_thinking(answer.thinking)
    if text := view.match.text(side):
        draw_answer(text, f"{view.match.id}_{side}")
    elif answer is not None and answer.error is None:
        st.caption(answer.sentence if answer.thinking else "The model returned no text.")
    if sentence := view.match.error(side):
        if view.hidden:
            sentence = "This side failed. The error is shown when the names are revealed."
        st.error(safe_inline(sentence), icon=":material/error:")
    if answer is not None and answer.stop_reason is StopReason.TIMEOUT and not view.hidden:
        st.warning(answer.stop_reason.sentence, icon=":material/timer_off:")


def _ending(view: MatchView, side: int) -> str:
    """Return how a side ended, with its place in a race and the most important figures."""
    answer, timing = view.match.answers[side], view.match.timing(side)
    if answer is None:
        return "Failed." if view.match.error(side) else "Not started."
    if view.hidden:
        return "Finished."
    times = 1
    if timing is not None:
        answer, times = timing.applied_to(answer), len(timing.answers)
    place = view.match.place(side)
    finished = f":material/sports_score: **{_PLACES[place - 1]}** · " if place else ""
    line = finished + figures_line(answer, times=times)
    return f"{line} · from another token" if view.match.request(side).continues else line


def figures_line(answer: Answer, *, times: int = 1) -> str:
    """Return the most important figures of an answer, as Markdown; the table below has all.

    Args:
        times: number of answers of which the timings are medians.
    """
    timings, conditions = answer.timings, answer.conditions
    parts = []
    if timings is not None and timings.decode_tokens_per_s is not None:
        parts.append(f"**{rate_text(timings.decode_tokens_per_s)}**")
    if times > 1:
        parts.append(f"medians of {times}")
    if timings is not None and answer.stop_reason is not StopReason.LENGTH:  # named below
        parts.append(counted(timings.new_tokens, "token"))
    if timings is not None and timings.ttft_ms is not None:
        parts.append(f"TTFT {milliseconds_text(timings.ttft_ms)}")
    parts.append(stop_text(answer.stop_reason, None if timings is None else timings.new_tokens))
    if conditions is not None and conditions.note is not None:
        parts.append(safe_inline(conditions.note))
    if answer.contended:
        parts.append(":material/warning: measured while busy")
    return " · ".join(parts)


def _draw_actions(view: MatchView, side: int, state: CompareState) -> None:
    job = view.match.jobs[side]
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        action(
            f"Regenerate {LETTERS[side]}",
            "refresh",
            f"again_{side}",
            *(state.regenerate, view, side),
            disabled=state.running,
            help="Run only this side again with a new seed. The other answers are kept.",
        )
        if text := view.match.text(side):
            with st.popover(
                "Copy", icon=":material/content_copy:", type="tertiary", key=f"copy_{side}"
            ):
                st.code(text, language=None, wrap_lines=True)
        by_token = False
        if job is not None and job.answer is not None and not view.hidden:
            by_token = st.toggle(f"Tokens {LETTERS[side]}", key=f"by_token_{job.id}")
    if by_token and job is not None and job.answer is not None:
        may_branch = job.answer.thinking is None and not state.running
        branch = partial(state.branch, view, side) if may_branch else None
        draw_tokens(job.id, job.spec, job.request, job.answer, branch)
