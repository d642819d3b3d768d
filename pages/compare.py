"""Compare page: run one instruction, or a list, on two to four models side by side."""

import streamlit as st

from core.compare.fit import fit_together
from core.compare.setup import Mode
from core.errors import PaddockError
from core.inference.request import GenerationRequest
from core.runtimes.sampling import default_sampling
from core.ui.compare.columns import draw_answers, follow_run, scroll_into_view
from core.ui.compare.history import draw_actions, draw_history, draw_link
from core.ui.compare.instruction import (
    CONTEXT,
    INSTRUCTION,
    draw_context,
    draw_instruction,
    draw_invitation,
    list_chosen,
    pick_kind,
)
from core.ui.compare.judge import draw_judge, draw_ratings
from core.ui.compare.list import (
    UNATTENDED,
    draw_list,
    draw_list_input,
    draw_list_options,
    list_linked,
)
from core.ui.compare.result import draw_result
from core.ui.compare.setup import STYLE, draw_side_buttons, pick_blind, pick_mode, pick_sides
from core.ui.compare.state import compare_state
from core.ui.widgets.answer_text import draw_plain
from core.ui.widgets.link import texts_linked
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.sampling import pick_sampling
from core.ui.widgets.start_button import draw_start

person()  # redirects visitors without access to sign-in
state, engine = compare_state(), shared_engine()
running = state.running  # read once: the run may end while the page is drawn
hidden = state.hidden_setup
st.html(STYLE)

# Instruction and start
as_list = list_chosen()
cases, instruction, context = (), "", ""
with st.container(gap="xsmall", key="setup"):
    box, buttons = st.columns([5, 1], gap="small")
    with box:
        if as_list:
            cases = draw_list_input()
        else:
            instruction = draw_instruction()

    # Models and their settings; the names of a blind comparison are not on the page
    sides = pick_sides(engine.store, hidden)
    specs = tuple(side.spec for side in sides)
    both_or_all = "both" if len(sides) == 2 else "all"
    with st.sidebar, st.expander("Settings", icon=":material/tune:", key="settings", expanded=True):
        # The same for all models; the defaults are those of the first one picked.
        sampling = pick_sampling(default_sampling(engine.store, specs[0].model))

    # How they run
    memory_problem = fit_together(engine.pool, engine.store, specs)
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="how"):
        mode = pick_mode(specs)
        blind = pick_blind()
        pick_kind()
        if as_list:
            draw_list_options(len(cases))
        else:
            context = draw_context()
        if hidden is None:
            draw_side_buttons(engine.store, specs)
            draw_link(whole=list_linked() if as_list else texts_linked(INSTRUCTION, CONTEXT))
    with buttons:
        does_not_fit = memory_problem is not None and mode is Mode.RACE
        started = draw_start(f"Run {both_or_all}", specs, disabled=running or does_not_fit)
        st.button(
            f"Stop {both_or_all}",
            icon=":material/stop:",
            on_click=state.stop,
            disabled=not running,
            width="stretch",
        )
if memory_problem is not None and hidden is None:
    remedy = "" if mode is Mode.RACE else " Fair mode can still load them one at a time."
    st.warning(safe_inline(memory_problem) + remedy, icon=":material/memory:")
if started and not state.running:  # a double click would start a second run
    texts = [(instruction, context)]
    if as_list:
        texts = [(case.instruction.strip(), case.context.strip()) for case in cases]
    try:
        state.submit(
            sides,
            [GenerationRequest(*each, sampling) for each in texts],
            mode,
            blind=blind,
            as_list=as_list,
            unattended=bool(st.session_state.get(UNATTENDED)),
        )
        st.rerun()
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/info:")
if state.current is None:
    draw_invitation(mode, examples=not as_list)

# Answers and results
entry, view = state.current, None
if entry is not None:
    view = draw_list(entry, state) if entry.is_list else entry.views[0]
if view is not None:
    with st.container(key="current"):
        if view.match.setup.request.instruction != instruction:
            draw_plain(view.match.setup.request.instruction, bold=True)
        draw_answers(view, state)
        scroll_into_view(view)
        if not view.match.running:
            draw_judge(view, state)
            draw_result(view, state, engine)
            draw_actions(view, state)

if state.votes_hidden:  # a vote in the ratings, or an earlier comparison, would tell the names
    st.caption(":material/visibility_off: Ratings are shown after the last blind vote.")
if hidden is None:
    draw_history(state)
if not state.votes_hidden:
    draw_ratings()
follow_run(state, was_running=running)
