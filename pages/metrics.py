"""Metrics page: measured speed and memory of models, and benchmarks."""

import streamlit as st

from core.ui.compare.state import hidden_runs
from core.ui.metrics.benchmark import draw_benchmark, draw_first_benchmark
from core.ui.metrics.board import draw_charts
from core.ui.metrics.comparison import draw_comparison
from core.ui.metrics.data import read_data
from core.ui.metrics.files import draw_export, draw_import
from core.ui.metrics.filter import draw_all_excluded, pick_filter, show_all
from core.ui.metrics.live import draw_live
from core.ui.metrics.progress import draw_measure_again, draw_progress, draw_unfinished
from core.ui.metrics.tables import draw_tables
from core.ui.metrics.tuning import draw_tuning
from core.ui.widgets.actions import action
from core.ui.widgets.navigation import link_to
from core.ui.widgets.person import draw_manage_hint, in_kiosk, person
from core.ui.widgets.resources import shared_benchmark, shared_engine

person()  # redirects visitors without access to sign-in
engine = shared_engine()

st.title("Speed and memory", anchor=False)
st.caption(
    "Results of benchmarks, which run each configuration in a separate process, and of the answers "
    "given in this app. All values are listed with their conditions."
)
draw_manage_hint()
data = read_data(engine)

# Benchmark: running, unfinished, setup
draw_progress()
draw_unfinished(engine)
sweep = shared_benchmark().current
if not in_kiosk():
    if data.empty and (sweep is None or not sweep.running):
        draw_first_benchmark()
    draw_benchmark(engine)

# No data yet
if data.empty:
    with st.container(horizontal=True, vertical_alignment="center"):
        draw_import(engine)
        link_to("instruct")
    if not in_kiosk():
        draw_tuning(engine)
    draw_live(engine)
    st.stop()

# Filters
with st.container(horizontal=True, vertical_alignment="center"):
    which = pick_filter(data.subjects())
    chosen = data.chosen(which, hidden_runs())
    draw_export(engine, chosen, which)
    draw_import(engine)

# Which model to take, and charts
if chosen.points:
    if chosen.contended:
        st.caption(
            ":material/visibility_off: Values measured while busy are left out "
            f"({chosen.contended:,})."
        )
    draw_comparison(chosen.points)
    draw_charts(engine, chosen)
elif data.without_figures:
    st.info(
        "Figures and charts appear here as soon as there are results.", icon=":material/monitoring:"
    )
elif chosen.contended:
    with draw_all_excluded():
        draw_measure_again(engine)
else:
    st.info("No values match the filter.", icon=":material/search_off:")
    action("Show all", "filter_list_off", "show_all_2", show_all, kind="secondary")

# All values, tuning and live load
st.subheader("All measurements and answers", anchor=False)
draw_tables(chosen)
if not in_kiosk():
    draw_tuning(engine)
st.subheader("Current load of this machine", anchor=False)
draw_live(engine)
