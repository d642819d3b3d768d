"""One instruction, two models, side by side."""

import streamlit as st

from core.generation.request import GenerationRequest
from core.ui.cached import shared_engine
from core.ui.comparison import comparison, verdict
from core.ui.history import model_title
from core.ui.pickers import pick_model
from core.ui.question import ask_for_instruction
from core.ui.safe_text import safe_markdown
from core.ui.sampling import pick_sampling
from core.ui.stream_view import Pace, figures_line, stream_answer

state = comparison()

# The settings, the same for both.
with st.sidebar:
    sampling = pick_sampling()

# The instruction and the two models.
st.title("Put two models side by side", anchor=False)
st.caption(
    "The same instruction, settings and seed for both. They answer one after the other, so that "
    "neither disturbs the other's figures."
)
instruction, context = ask_for_instruction()
columns = st.columns(2, gap="medium")
store = shared_engine().store
with columns[0]:
    left = pick_model(store, key="left_")
with columns[1]:
    right = pick_model(store, key="right_", default=1)
with st.container(horizontal=True):
    asked = st.button(
        "Run both",
        icon=":material/play_arrow:",
        type="primary",
        shortcut="Ctrl+Enter",
        disabled=state.running,
    )
    st.button("Stop", icon=":material/stop:", on_click=state.stop, disabled=not state.running)
if asked:
    state.ask((left, right), GenerationRequest(instruction, context, sampling))
    st.rerun()
if state.notice:
    st.warning(safe_markdown(state.notice), icon=":material/info:")

# The answers.
if not state.sides:
    st.stop()
was_running = state.running
for side, column in enumerate(st.columns(2, gap="medium")):
    spec = state.sides[side]
    title = safe_markdown(model_title(spec))
    with column.container(border=True):
        st.markdown(f"**{title}** · {spec.precision.label} · {safe_markdown(spec.device)}")
        job = state.job(side)
        if job is None:
            st.caption("Was not asked." if state.stopped else "Waits for the other to finish.")
        elif not job.done:
            stream_answer(job, Pace.FULL)
        if job is not None and job.answer is not None:
            if not was_running:
                st.markdown(safe_markdown(job.answer.text))
            if job.answer.error_sentence:
                st.error(safe_markdown(job.answer.error_sentence), icon=":material/error:")
            st.caption(figures_line(job.answer, spec, title))
if was_running:
    st.rerun()
if sentence := verdict(state.jobs):
    st.markdown(f":material/trophy: {sentence}")
