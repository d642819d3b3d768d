"""Compare page: run one instruction, or a list, on two to four models side by side."""

import streamlit as st

from core.compare.fit import fit_together
from core.compare.setup import Mode
from core.inference.request import GenerationRequest
from core.runtimes.sampling import default_sampling
from core.ui.compare.columns import draw_answers, follow_to_the_end, scroll_here
from core.ui.compare.history import draw_actions, draw_history, draw_link
from core.ui.compare.judge import draw_judge, draw_ratings
from core.ui.compare.list import ask_for_list, draw_list, list_linked
from core.ui.compare.result import draw_result
from core.ui.compare.setup import draw_side_buttons, pick_blind, pick_mode, pick_sides
from core.ui.compare.state import Shown, comparison
from core.ui.instruct.question import CONTEXT, INSTRUCTION, draw_instruction
from core.ui.widgets.link import link_choice, one_of, texts_linked
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import emphasised, safe_inline
from core.ui.widgets.sampling import pick_sampling
from core.ui.widgets.start_button import draw_start

ONE, LIST = "one", "list"
LABELS = {ONE: "One instruction", LIST: "A list of instructions"}

person()  # whoever may not be here is sent away
state, engine = comparison(), shared_engine()
running = state.running  # asked once: it may end while the page is drawn

# The instruction, and who is to answer it.
st.title("Put models side by side", anchor=False)
st.caption("The same instruction, settings and seed for all of them; you say which answer is best.")
link_choice("ask", ONE, one_of([ONE, LIST]))
kind = st.segmented_control(
    "What to ask",
    [ONE, LIST],
    format_func=LABELS.__getitem__,
    required=True,
    key="ask",
    persist_state="session",
    label_visibility="collapsed",
)
instructions, instruction, context = (), "", ""
if kind == LIST:
    instructions = ask_for_list()
else:
    instruction, context = draw_instruction()
sides = pick_sides(engine.store)
specs = tuple(side.spec for side in sides)

# The settings, the same for all: at first those of A's model.
with st.sidebar:
    sampling = pick_sampling(default_sampling(engine.store, specs[0].model))

with st.container(horizontal=True, gap="medium"):
    draw_side_buttons(engine.store, specs)
    link = st.empty()  # drawn once all settings stand in it

# How they run, and the start.
tight = fit_together(engine.pool, engine.store, specs)
all_of_them = "both" if len(sides) == 2 else "all"
with st.container(horizontal=True, gap="small", vertical_alignment="center"):
    start = st.empty()  # drawn once it is known whether it may be pressed
    st.button(
        f"Stop {all_of_them}",
        icon=":material/stop:",
        on_click=state.stop,
        disabled=not running,
    )
    mode = pick_mode(specs)
    blind = pick_blind()
with link.container():
    draw_link(whole=list_linked() if kind == LIST else texts_linked(INSTRUCTION, CONTEXT))
with start.container():
    too_tight = tight is not None and mode is Mode.RACE
    asked = draw_start(f"Run {all_of_them}", specs, disabled=running or too_tight)
st.caption(mode.sentence)
if tight is not None:
    remedy = "" if mode is Mode.RACE else " Fair can still load them one after the other."
    st.warning(safe_inline(tight) + remedy, icon=":material/memory:")
if asked and not state.running:  # the second of two quick clicks finds it running
    if kind == LIST:
        request = GenerationRequest("", sampling=sampling)
        state.ask_all(sides, instructions, request, mode, blind=blind)
    else:
        state.ask(sides, GenerationRequest(instruction, context, sampling), mode, blind=blind)
    st.rerun()
if notice := state.take_notice():
    st.warning(safe_inline(notice), icon=":material/info:")

# The answers, and what they show.
entry = state.current
shown = entry if entry is None or isinstance(entry, Shown) else draw_list(entry, state)
if shown is not None:
    with st.container(key="current"):
        scroll_here(shown)
        st.markdown(emphasised(shown.match.setup.request.instruction))
        draw_answers(shown, state)
        if not shown.running:
            draw_judge(shown, state)
            draw_result(shown, engine.store)
            draw_actions(shown, state, engine.store)

draw_history(state)
draw_ratings()
follow_to_the_end(state, was_running=running)
