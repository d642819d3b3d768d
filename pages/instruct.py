"""Instruct page: a conversation with one model, with the measurements of each answer."""

import streamlit as st

from core.inference.conversations import Details
from core.runtimes.sampling import default_sampling
from core.runtimes.spec import SpeculationMode
from core.ui.instruct.answers import (
    ANSWER_ICON,
    STYLE,
    draw_exchange,
    draw_question,
    scroll_to_newest,
)
from core.ui.instruct.composer import draw_composer
from core.ui.instruct.conversation import SHOWN, conversation, model_title
from core.ui.instruct.sidebar import (
    draw_conversations,
    draw_model_speed,
    pick_follow_up,
    pick_system_prompt,
)
from core.ui.instruct.stream_view import Pace, pick_pace, stream_answer
from core.ui.widgets.actions import action
from core.ui.widgets.examples import draw_examples
from core.ui.widgets.person import person
from core.ui.widgets.pickers import pick_model
from core.ui.widgets.preferences import remember
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.sampling import pick_sampling

person()  # redirects visitors without access to sign-in
state = conversation()
state.refresh()
st.html(STYLE)

# Model and settings
with st.sidebar:
    picked = pick_model(shared_engine().store, speculation=SpeculationMode.AUTO)
    spec = picked.spec
    draw_model_speed(spec)
    follow_up, template_kwargs = pick_follow_up(spec, state.exchanges)
    with st.expander("Settings", icon=":material/tune:", key="settings"):
        system = pick_system_prompt(spec)
        sampling = pick_sampling(default_sampling(shared_engine().store, spec.model))
        pace = pick_pace().of(spec)

if asked := state.to_submit(spec):
    remember(shared_engine(), person())
    details = Details(
        spec,
        model_title(spec),
        sampling,
        picked.prompt_format,
        template_kwargs,
        system,
        follow_up,
        speculation=picked.speculation,
    )
    state.submit(*asked, details)

with st.sidebar:
    draw_conversations(state)

# Conversation
welcome = st.empty()  # cleared at once when the first instruction is submitted
if state.empty:
    with welcome.container(key="welcome"):
        st.title("Give a model an instruction", anchor=False)
        named = f"**{safe_inline(model_title(spec))}** answers"
        if spec.remote:
            where = f"on the server **{safe_inline(spec.device)}**; your text is sent there."
        else:
            where = "on your own processor, with OpenVINO; your text stays here."
        st.caption(f"{named} {where}")
        draw_examples(state.ask)
running, finished = state.job, state.places
under_way = finished.pop() if running is not None else None
if (older := len(finished) - state.shown) > 0:
    label = f"Show {min(older, SHOWN)} earlier of {older}"
    action(label, "expand_less", "show_earlier", state.show_more)
with st.container(key="turns"):
    for each in finished[-state.shown :]:
        if each is None:
            st.empty()
        else:
            draw_exchange(each, state)
    if under_way is not None:
        with st.container(key="turn_under_way", gap="small"):
            draw_question(under_way)
            with st.chat_message("assistant", avatar=ANSWER_ICON):
                answer = st.container(key="answer_under_way", gap="small")
scroll_to_newest(state.exchanges[-1].id if state.exchanges else "")
with st.container(key="composer", gap="xsmall"):
    draw_composer(state)

# The answer is drawn last, so that the rest of the page is complete while it streams.
if running is not None and under_way is not None:
    with answer:
        stream_answer(running, Pace.FULL if state.stopped else pace, under_way.details.prefix)
    st.rerun()
