"""One instruction, one model, streamed."""

import streamlit as st

from core.inference.request import GenerationRequest
from core.runtimes.sampling import default_sampling
from core.ui.instruct.answers import draw_entry, draw_history_export, draw_question
from core.ui.instruct.history import SHOWN, conversation
from core.ui.instruct.question import ask_for_instruction, clear_instruction
from core.ui.instruct.stream_view import Pace, stream_answer
from core.ui.widgets.link import link_choice
from core.ui.widgets.person import person
from core.ui.widgets.pickers import pick_model, pick_prompt_format
from core.ui.widgets.preferences import remember
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.sampling import pick_sampling
from core.ui.widgets.start_button import draw_start

person()  # whoever may not be here is sent away
state = conversation()
state.collect()


# The settings.
with st.sidebar:
    spec = pick_model(shared_engine().store)
    prompt_format = pick_prompt_format(spec)
    st.divider()
    sampling = pick_sampling(default_sampling(shared_engine().store, spec.model))
    st.divider()
    link_choice("pace", Pace.FULL, Pace)
    pace = st.segmented_control(
        "Display",
        list(Pace),
        format_func=lambda value: value.label,
        required=True,
        key="pace",
        persist_state="session",
        help="Full speed shows each token as it comes. Reading pace shows about 40 tokens a "
        "second, for fast models; the figures stay those of the model.",
    )

# The instruction.
st.title("Give a model an instruction", anchor=False)
st.caption(
    f"It answers on the server **{spec.device}**; what you type is sent there."
    if spec.remote
    else "It answers on this machine; nothing you type leaves it."
)
instruction, context = ask_for_instruction()
with st.container(horizontal=True):
    asked = draw_start("Run", [spec], disabled=state.running)
    st.button("Stop", icon=":material/stop:", on_click=state.stop, disabled=not state.running)
    st.button("Clear", icon=":material/backspace:", on_click=clear_instruction)
if asked and not state.running:  # the second of two quick clicks finds it running
    remember(shared_engine(), person())
    state.ask(spec, GenerationRequest(instruction, context, sampling, prompt_format))
    st.rerun()
if notice := state.take_notice():
    st.warning(safe_inline(notice), icon=":material/info:")

# What was answered in this session, and above it the place of the answer under way: that comes
# last, so that the rest of the page stands while it streams.
under_way = st.container()
for number, entry in enumerate(state.entries[: state.shown]):
    if number == 1:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader("Earlier in this session", anchor=False)
            draw_history_export(state)
    draw_entry(entry, state)
if (hidden := len(state.entries) - state.shown) > 0:
    st.button(
        f"Show {min(hidden, SHOWN)} more of {hidden}",
        icon=":material/expand_more:",
        type="tertiary",
        key="show_more",
        on_click=state.show_more,
    )
for _ in range(2):
    st.empty()  # in the place of a deleted answer and the heading, which would stay till the end
if state.job is not None:
    with under_way.container(border=True, key="answer_under_way"):
        draw_question(state.job.request)
        with st.chat_message("assistant", avatar=":material/pets:"):
            stream_answer(state.job, pace or Pace.FULL)
    state.collect()
    st.rerun()
