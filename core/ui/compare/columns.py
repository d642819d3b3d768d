"""The sides of a match next to each other, live while they answer."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from core.compare.match import SideState, running_matches
from core.compare.setup import LETTERS, Mode
from core.inference.answer import StopReason
from core.inference.job import Phase
from core.ui.compare.state import Comparison, Shown
from core.ui.instruct.history import model_title
from core.ui.instruct.stream_view import figures_line, running_figures
from core.ui.widgets.safe_text import safe_inline, safe_markdown
from core.ui.widgets.scripts import SCROLL_TO_MATCH

LOOK_EVERY_S = 0.2
"""The texts so far go to the browser as often as this; the figures come from the workers."""
CROWD_S = 0.1
"""As long for each match under way in the app, where that is longer. Twenty people's two columns,
looked at five times a second, kept the interpreter so busy that no page was drawn any more."""
TURN_S = 1.0
"""And as seldom where a side waits for another side's end, which draws the page anew anyway."""

TIMING_S = 0.4
"""As seldom while they are timed: whoever looks disturbs."""

_SCROLLED = "scrolled_to"


def draw_answers(shown: Shown, state: Comparison, *, actions: bool = True) -> None:
    """Draw all sides; the text and figures of one that answers are drawn again and again.

    Nothing here keeps the match going: a rerun, a page switch or a closed tab leaves it as it is,
    and the next call shows it again. Each side is a fragment of its own. Its Stop stands outside
    of it: a click then interrupts whatever is being drawn, and need not wait for it.

    Args:
        actions: whether a side that has ended can be copied and asked again.
    """
    sides, running = range(len(shown.match.setup.sides)), shown.running
    answered = shown.match.answered  # asked first: what ends later is looked at by the sides
    for side, column in zip(sides, st.columns(len(sides), gap="small"), strict=True):
        with column.container(border=True, height="stretch", key=_side_key(side)):
            ended = shown.match.state(side).ended  # asked once: it may end meanwhile
            _draw_heading(shown, side, ended=ended)
            if not ended:
                st.fragment(_draw_live, run_every=_look_every_s(shown, side))(shown, side)
                continue
            _draw_ended(shown, side)
            if actions and not running:
                _draw_actions(shown, side, state)
    if answered and running:
        st.fragment(_draw_timing, run_every=look_every_s(TIMING_S))(shown)


def look_every_s(least: float = LOOK_EVERY_S) -> float:
    """Seconds between two looks at a match, given how many people look at one."""
    return max(least, CROWD_S * running_matches())


def _look_every_s(shown: Shown, side: int) -> float:
    match = shown.match
    before = range(side) if match.setup.mode is Mode.FAIR else ()
    waits = any(not match.state(other).ended for other in before)
    return look_every_s(TURN_S if waits else LOOK_EVERY_S)


def follow_to_the_end(state: Comparison, *, was_running: bool) -> None:
    """Let a new match begin, and draw the page again when the last answer has ended.

    Called last, so that the drawing of the page does not slow the side that answers first.

    Args:
        was_running: whether anything was when this drawing of the page began.
    """
    if isinstance(state.current, Shown):
        state.current.match.begin()
    if was_running and not state.running:
        st.rerun()
    if state.running and (state.current is None or not state.current.running):
        st.fragment(_await_end, run_every=look_every_s())(state)


def _await_end(state: Comparison) -> None:
    if not state.running:
        st.rerun()


def scroll_here(shown: Shown) -> None:
    """Bring a match that has just begun into view; the controls above it are long."""
    place = st.empty()  # always there, so that nothing below it moves
    if shown.match.id not in st.session_state.setdefault(_SCROLLED, set()):
        st.session_state[_SCROLLED].add(shown.match.id)
        if shown.running:
            place.html(f"<script>{SCROLL_TO_MATCH}</script>", unsafe_allow_javascript=True)


def _draw_timing(shown: Shown) -> None:
    if not shown.running:
        st.rerun()
    st.caption(
        ":material/timer: That was too fast to time: all answer the same a few times more, unseen."
    )


def _draw_live(shown: Shown, side: int) -> None:
    match shown.match.state(side):
        case SideState.WAITING:
            _draw_waiting(shown, side)
        case SideState.RUNNING:
            _draw_running(shown, side)
        case _:
            st.rerun()  # its Stop goes, its figures stay, and the page may have more to say


def _side_key(side: int) -> str:
    return f"answer_{LETTERS[side].lower()}"


def _draw_heading(shown: Shown, side: int, *, ended: bool) -> None:
    spec = shown.match.setup.sides[side]
    name = "" if shown.hidden else f" · {safe_inline(model_title(spec))}"
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        st.markdown(f"**{LETTERS[side]}**{name}", width="stretch")
        if not ended:
            st.button(
                f"Stop {LETTERS[side]}",
                icon=":material/stop:",
                key=f"stop_{side}",
                on_click=shown.stop,
                args=(side,),
            )
    if not shown.hidden:
        st.caption(" · ".join(map(safe_inline, spec.words)))


def _draw_waiting(shown: Shown, side: int) -> None:
    message, fraction = shown.match.message(side), shown.match.fraction(side)
    if shown.hidden:  # a message may name the model
        message, fraction = "Waits, or gets ready.", None
    _draw_preparation(shown, message, fraction)


def _draw_preparation(shown: Shown, message: str, fraction: float | None) -> None:
    text = f":material/hourglass_top: {safe_inline(message)}"
    if fraction is not None:
        st.progress(fraction, text=text)
    else:  # an empty bar would look stuck; seconds that count do not
        waited_s = (datetime.now(UTC) - shown.match.asked_at).total_seconds()
        st.caption(f"{text} {waited_s:.0f} s")


def _draw_running(shown: Shown, side: int) -> None:
    job = shown.match.jobs[side]
    assert job is not None, "a side that runs has a job"
    now = job.snapshot()
    if now.phase is Phase.PREPARING:
        _draw_waiting(shown, side)
        return
    if text := job.text:
        st.markdown(safe_markdown(text) + " ▌")
    if shown.hidden:
        st.caption("Answers …")
    else:
        st.caption(" · ".join(running_figures(now)))


def _draw_ended(shown: Shown, side: int) -> None:
    answer = shown.match.answers[side]
    if shown.match.state(side) is SideState.SKIPPED:
        st.caption("Not started.")
    if answer is not None and answer.text:
        st.markdown(safe_markdown(answer.text))
    elif answer is not None and answer.error is None:
        st.caption("The model gave no text.")
    if sentence := shown.match.error(side):
        if shown.hidden:
            sentence = "This side failed; the reason shows with the names."
        st.error(safe_inline(sentence), icon=":material/error:")
    if answer is None:
        return
    if shown.hidden:
        st.caption("Names and figures show once you have voted.")
        return
    if answer.stop_reason is StopReason.TIMEOUT:
        st.warning(answer.stop_reason.sentence, icon=":material/timer_off:")
    spec, timing = shown.match.setup.sides[side], shown.match.timing(side)
    times = 1
    if timing is not None:
        answer, times = timing.applied_to(answer), len(timing.answers)
    st.caption(figures_line(answer, spec, None, times=times))


def _draw_actions(shown: Shown, side: int, state: Comparison) -> None:
    job = shown.match.jobs[side]
    with st.container(horizontal=True, gap="small"):
        st.button(
            f"Regenerate {LETTERS[side]}",
            icon=":material/refresh:",
            key=f"again_{side}",
            type="tertiary",
            disabled=state.running,
            on_click=state.regenerate,
            args=(shown, side),
            help="Ask this side alone again, with a fresh seed; the others keep their answers.",
        )
        if job is not None and job.answer is not None and job.answer.text:
            with st.popover(
                "Copy", icon=":material/content_copy:", type="tertiary", key=f"copy_{side}"
            ):
                st.code(job.answer.text, language=None, wrap_lines=True)
