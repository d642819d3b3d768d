"""Instruct page: run one instruction on one model and stream the answer."""

import streamlit as st

from core.inference.request import GenerationRequest
from core.runtimes.sampling import default_sampling
from core.ui.instruct.answers import draw_entry, draw_history_export, draw_question
from core.ui.instruct.history import SHOWN, conversation
from core.ui.instruct.question import clear_instruction, draw_instruction
from core.ui.instruct.stream_view import Pace, stream_answer
from core.ui.widgets.link import link_choice
from core.ui.widgets.person import person
from core.ui.widgets.pickers import pick_model, pick_prompt_format
from core.ui.widgets.preferences import remember
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.sampling import pick_sampling
from core.ui.widgets.start_button import draw_start

person()  # redirects visitors without access to sign-in
state = conversation()
state.collect()


# Settings
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
        help="Full speed shows each token as soon as it is generated. Reading pace limits the "
        "display to about 40 tokens per second; the reported figures are not affected.",
    )

# Instruction
st.title("Give a model an instruction", anchor=False)
st.caption(
    f"The model runs on the server **{spec.device}**; your text is sent there."
    if spec.remote
    else "The model runs on this machine; your text is not sent anywhere else."
)
instruction, context = draw_instruction()
with st.container(horizontal=True):
    started = draw_start("Run", [spec], disabled=state.running)
    st.button("Stop", icon=":material/stop:", on_click=state.stop, disabled=not state.running)
    st.button("Clear", icon=":material/backspace:", on_click=clear_instruction)
if started and not state.running:  # a double click would start a second answer
    remember(shared_engine(), person())
    state.submit(spec, GenerationRequest(instruction, context, sampling, prompt_format))
    st.rerun()
if notice := state.take_notice():
    st.warning(safe_inline(notice), icon=":material/info:")

# Answers of this session. The container of the running answer is above them but is filled last,
# so that the rest of the page is complete while the answer streams.
running_answer = st.container()
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
    st.empty()  # replaces a deleted answer and the heading, which would stay until the run ends
if state.job is not None:
    with running_answer.container(border=True, key="answer_under_way"):
        draw_question(state.job.request)
        with st.chat_message("assistant", avatar=":material/pets:"):
            stream_answer(state.job, pace or Pace.FULL)
    state.collect()
    st.rerun()
