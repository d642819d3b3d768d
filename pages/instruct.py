"""One instruction, one model, streamed."""

import streamlit as st

from core.generation.request import GenerationRequest
from core.ui.answers import draw_entry, draw_history_export, draw_question
from core.ui.cached import shared_engine
from core.ui.examples import draw_examples
from core.ui.history import conversation
from core.ui.link import keep_in_link
from core.ui.pickers import pick_model, pick_prompt_format
from core.ui.sampling import pick_sampling
from core.ui.stream_view import Pace, stream_answer

state = conversation()
state.collect()


def clear() -> None:
    """Empty the boxes."""
    st.session_state["instruction"] = st.session_state["context"] = ""


# The settings.
with st.sidebar:
    spec = pick_model(shared_engine().store)
    prompt_format = pick_prompt_format(spec)
    st.divider()
    sampling = pick_sampling()
    st.divider()
    pace = st.segmented_control(
        "Display",
        list(Pace),
        default=Pace.FULL,
        format_func=lambda value: value.label,
        required=True,
        key="pace",
        bind="query-params",
        persist_state="session",
        help="Full speed shows each token as it comes. Reading pace shows about 40 tokens a "
        "second, for fast models; the figures stay those of the model.",
    )

# The instruction.
st.title("Give a model an instruction", anchor=False)
st.caption("It answers on this machine; nothing you type leaves it.")
keep_in_link("instruction", "context")
draw_examples("instruction", "context")
instruction = st.text_area(
    "Instruction",
    key="instruction",
    persist_state="session",
    height=110,
    placeholder="Type an instruction, or pick an example above. "
    "For instance: Suggest three names for a sailing boat.",
)
with st.expander(
    "Context passage (optional)",
    icon=":material/article:",
    expanded=bool(st.session_state.get("context")),
):
    context = st.text_area(
        "Context passage",
        key="context",
        persist_state="session",
        height=160,
        placeholder="A text the instruction is about: to answer from, extract from or summarise.",
        label_visibility="collapsed",
    )
with st.container(horizontal=True):
    asked = st.button(
        "Run",
        icon=":material/play_arrow:",
        type="primary",
        shortcut="Ctrl+Enter",
        disabled=state.running,
    )
    st.button("Stop", icon=":material/stop:", on_click=state.stop, disabled=not state.running)
    st.button("Clear", icon=":material/backspace:", on_click=clear)
if asked:
    state.ask(spec, GenerationRequest(instruction or "", context or "", sampling, prompt_format))
    st.rerun()
if state.notice:
    st.warning(state.notice, icon=":material/info:")

# The answer under way.
if state.job is not None:
    with st.container(border=True):
        draw_question(state.job.request)
        with st.chat_message("assistant", avatar=":material/pets:"):
            stream_answer(state.job, pace or Pace.FULL)
    state.collect()
    st.rerun()

# What was answered in this session.
for number, entry in enumerate(state.entries):
    if number == 1:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader("Earlier in this session", anchor=False)
            draw_history_export(state)
    draw_entry(entry, state)
