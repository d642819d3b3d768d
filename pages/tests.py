"""Test sets page: run a table of instructions with checks on several models, and compare."""

import streamlit as st

from core.errors import PaddockError
from core.ui.compare.setup import STYLE
from core.ui.testsets.candidates import draw_add_candidate, pick_candidates, pick_max_tokens
from core.ui.testsets.runs import draw_runs, running_run, start_run
from core.ui.testsets.sets import draw_editor, pick_set
from core.ui.widgets.actions import draw_error
from core.ui.widgets.person import in_kiosk, person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.start_button import draw_start
from core.units import counted

holder = person().holder  # redirects visitors without access to sign-in
engine = shared_engine()

st.html(STYLE)
st.title("Test sets", anchor=False)
st.caption(
    "Does the new model still do our work? Your own instructions with checks, run on several "
    "models or precisions; a pinned run shows what regressed."
)
if in_kiosk():
    st.info("Test sets are not available in kiosk mode.", icon=":material/lock:")
    st.stop()

# The cases
chosen = pick_set(engine, holder)
if chosen is None:
    st.stop()
set_id, stored = chosen
runs = engine.evaluations.runs(holder, set_id)
test_set = draw_editor(engine, set_id, stored, opened=not runs)

# The candidates and the run
running = running_run(runs)
with st.container(gap="xsmall", key="test_candidates"):
    candidates = pick_candidates(engine.store)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        draw_add_candidate()
        tokens = pick_max_tokens()
        size = len(test_set.cases) if test_set else 0
        label = f"Run {counted(size, 'case')} on {counted(len(candidates), 'candidate')}"
        with st.container(width=358):  # as wide as the page on a phone
            specs = tuple(candidate.spec for candidate in candidates)
            started = draw_start(label, specs, disabled=test_set is None or running is not None)
if started and test_set is not None and running is None:
    try:
        start_run(set_id, test_set, [each.with_max_tokens(tokens) for each in candidates])
        st.rerun()
    except PaddockError as error:
        draw_error(error)

# The results
draw_runs(engine, runs)
