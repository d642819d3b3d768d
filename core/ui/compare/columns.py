"""Draw the sides of a comparison next to each other, live while they generate."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from core.compare.match import SideState, running_matches
from core.compare.setup import LETTERS, Mode
from core.inference.answer import StopReason
from core.inference.job import Phase
from core.ui.compare.state import CompareState, MatchView
from core.ui.instruct.history import model_title
from core.ui.instruct.stream_view import figures_line, running_figures
from core.ui.widgets.safe_text import safe_inline, safe_markdown
from core.ui.widgets.scripts import SCROLL_TO_MATCH

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


def draw_answers(view: MatchView, state: CompareState, *, actions: bool = True) -> None:
    """Draw all sides; text and figures of running sides are refreshed.

    The comparison runs independently of the page: a rerun, a page switch or a closed tab does not
    affect it, and the next call shows it again. Each side is a fragment. Its Stop button is outside
    the fragment, so that a click interrupts the drawing and need not wait for it.

    Args:
        actions: whether finished sides get Copy and Regenerate buttons.
    """
    sides, running = range(len(view.match.setup.sides)), view.running
    answered = view.match.answered  # read first: sides that end later are handled by their fragment
    for side, column in zip(sides, st.columns(len(sides), gap="small"), strict=True):
        with column.container(border=True, height="stretch", key=_side_key(side)):
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
    if isinstance(state.current, MatchView):
        state.current.match.begin()
    if was_running and not state.running:
        st.rerun()
    if state.running and (state.current is None or not state.current.running):
        st.fragment(_await_end, run_every=refresh_interval_s())(state)


def _await_end(state: CompareState) -> None:
    if not state.running:
        st.rerun()


def scroll_into_view(view: MatchView) -> None:
    """Scroll to a comparison that has just started; the controls above it are long."""
    place = st.empty()  # always present, so that nothing below it moves
    if view.match.id not in st.session_state.setdefault(_SCROLLED, set()):
        st.session_state[_SCROLLED].add(view.match.id)
        if view.running:
            place.html(f"<script>{SCROLL_TO_MATCH}</script>", unsafe_allow_javascript=True)


def _draw_timing(view: MatchView) -> None:
    if not view.running:
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


def _side_key(side: int) -> str:
    return f"answer_{LETTERS[side].lower()}"


def _draw_heading(view: MatchView, side: int, *, ended: bool) -> None:
    spec = view.match.setup.sides[side]
    name = "" if view.hidden else f" · {safe_inline(model_title(spec))}"
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        st.markdown(f"**{LETTERS[side]}**{name}", width="stretch")
        if not ended:
            st.button(
                f"Stop {LETTERS[side]}",
                icon=":material/stop:",
                key=f"stop_{side}",
                on_click=view.stop,
                args=(side,),
            )
    if not view.hidden:
        weights, *place = spec.words
        answer = view.match.answers[side] if ended else None
        if answer is not None and answer.weights:
            weights = answer.weights
        st.caption(" · ".join(map(safe_inline, (weights, *place))))


def _draw_waiting(view: MatchView, side: int) -> None:
    message, fraction = view.match.message(side), view.match.fraction(side)
    if view.hidden:  # a message may contain the model name
        message, fraction = "Waiting or loading.", None
    _draw_preparation(view, message, fraction)


def _draw_preparation(view: MatchView, message: str, fraction: float | None) -> None:
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
    if text := job.text:
        st.markdown(safe_markdown(text) + " ▌")
    if view.hidden:
        st.caption("Generating …")
    else:
        st.caption(" · ".join(running_figures(now)))


def _draw_ended(view: MatchView, side: int) -> None:
    answer = view.match.answers[side]
    if view.match.state(side) is SideState.SKIPPED:
        st.caption("Not started.")
    if answer is not None and answer.text:
        st.markdown(safe_markdown(answer.text))
    elif answer is not None and answer.error is None:
        st.caption("The model returned no text.")
    if sentence := view.match.error(side):
        if view.hidden:
            sentence = "This side failed. The error is shown when the names are revealed."
        st.error(safe_inline(sentence), icon=":material/error:")
    if answer is None:
        return
    if view.hidden:
        st.caption("Names and figures are shown after you vote.")
        return
    if answer.stop_reason is StopReason.TIMEOUT:
        st.warning(answer.stop_reason.sentence, icon=":material/timer_off:")
    spec, timing = view.match.setup.sides[side], view.match.timing(side)
    times = 1
    if timing is not None:
        answer, times = timing.applied_to(answer), len(timing.answers)
    st.caption(figures_line(answer, spec, None, times=times))


def _draw_actions(view: MatchView, side: int, state: CompareState) -> None:
    job = view.match.jobs[side]
    with st.container(horizontal=True, gap="small"):
        st.button(
            f"Regenerate {LETTERS[side]}",
            icon=":material/refresh:",
            key=f"again_{side}",
            type="tertiary",
            disabled=state.running,
            on_click=state.regenerate,
            args=(view, side),
            help="Run only this side again with a new seed. The other answers are kept.",
        )
        if job is not None and job.answer is not None and job.answer.text:
            with st.popover(
                "Copy", icon=":material/content_copy:", type="tertiary", key=f"copy_{side}"
            ):
                st.code(job.answer.text, language=None, wrap_lines=True)
