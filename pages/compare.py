"""Compare page: run one instruction, or a list, on two to four models side by side."""

import streamlit as st

from core.compare.fit import fit_together
from core.compare.setup import Mode
from core.inference.request import GenerationRequest
from core.runtimes.sampling import default_sampling
from core.ui.compare.columns import draw_answers, follow_run, scroll_into_view
from core.ui.compare.history import draw_actions, draw_history, draw_link
from core.ui.compare.judge import draw_judge, draw_ratings
from core.ui.compare.list import draw_list, draw_list_input, list_linked
from core.ui.compare.result import draw_result
from core.ui.compare.setup import draw_side_buttons, pick_blind, pick_mode, pick_sides
from core.ui.compare.state import MatchView, compare_state
from core.ui.instruct.question import CONTEXT, INSTRUCTION, draw_instruction
from core.ui.widgets.link import link_choice, one_of, texts_linked
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import emphasised, safe_inline
from core.ui.widgets.sampling import pick_sampling
from core.ui.widgets.start_button import draw_start

ONE, LIST = "one", "list"
LABELS = {ONE: "One instruction", LIST: "A list of instructions"}

person()  # redirects visitors without access to sign-in
state, engine = compare_state(), shared_engine()
running = state.running  # read once: the run may end while the page is drawn

# Instruction and models
st.title("Compare models side by side", anchor=False)
st.caption("All models get the same instruction, settings and seed. You vote for the best answer.")
link_choice("ask", ONE, one_of([ONE, LIST]))
kind = st.segmented_control(
    "Input",
    [ONE, LIST],
    format_func=LABELS.__getitem__,
    required=True,
    key="ask",
    persist_state="session",
    label_visibility="collapsed",
)
instructions, instruction, context = (), "", ""
if kind == LIST:
    instructions = draw_list_input()
else:
    instruction, context = draw_instruction()
sides = pick_sides(engine.store)
specs = tuple(side.spec for side in sides)

# Settings, the same for all models; the defaults are those of model A.
with st.sidebar:
    sampling = pick_sampling(default_sampling(engine.store, specs[0].model))

with st.container(horizontal=True, gap="medium"):
    draw_side_buttons(engine.store, specs)
    link = st.empty()  # drawn after all settings have been written to the URL

# Mode and start
memory_problem = fit_together(engine.pool, engine.store, specs)
both_or_all = "both" if len(sides) == 2 else "all"
with st.container(horizontal=True, gap="small", vertical_alignment="center"):
    start = st.empty()  # drawn after the mode, which decides whether it is enabled
    st.button(
        f"Stop {both_or_all}",
        icon=":material/stop:",
        on_click=state.stop,
        disabled=not running,
    )
    mode = pick_mode(specs)
    blind = pick_blind()
with link.container():
    draw_link(whole=list_linked() if kind == LIST else texts_linked(INSTRUCTION, CONTEXT))
with start.container():
    does_not_fit = memory_problem is not None and mode is Mode.RACE
    started = draw_start(f"Run {both_or_all}", specs, disabled=running or does_not_fit)
st.caption(mode.sentence)
if memory_problem is not None:
    remedy = "" if mode is Mode.RACE else " Fair mode can still load them one at a time."
    st.warning(safe_inline(memory_problem) + remedy, icon=":material/memory:")
if started and not state.running:  # a double click would start a second run
    if kind == LIST:
        request = GenerationRequest("", sampling=sampling)
        state.submit_list(sides, instructions, request, mode, blind=blind)
    else:
        state.submit(sides, GenerationRequest(instruction, context, sampling), mode, blind=blind)
    st.rerun()
if notice := state.take_notice():
    st.warning(safe_inline(notice), icon=":material/info:")

# Answers and results
entry = state.current
view = entry if entry is None or isinstance(entry, MatchView) else draw_list(entry, state)
if view is not None:
    with st.container(key="current"):
        scroll_into_view(view)
        st.markdown(emphasised(view.match.setup.request.instruction))
        draw_answers(view, state)
        if not view.running:
            draw_judge(view, state)
            draw_result(view, engine.store)
            draw_actions(view, state, engine.store)

draw_history(state)
draw_ratings()
follow_run(state, was_running=running)
