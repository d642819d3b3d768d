"""Metrics page: measured speed and memory of models, and benchmarks."""

import streamlit as st

from core.errors import RecordsError
from core.ui.metrics.baseline import draw_key_figures
from core.ui.metrics.benchmark import draw_benchmark, draw_first_benchmark
from core.ui.metrics.board import draw_charts
from core.ui.metrics.data import read_data
from core.ui.metrics.files import draw_export, draw_import, draw_notice
from core.ui.metrics.filter import draw_excluded, pick_filter, show_all
from core.ui.metrics.live import draw_live
from core.ui.metrics.progress import draw_progress, draw_unfinished
from core.ui.metrics.tables import draw_tables
from core.ui.metrics.tuning import draw_tuning
from core.ui.widgets.navigation import link_to
from core.ui.widgets.person import draw_manage_hint, in_kiosk, person
from core.ui.widgets.resources import shared_benchmark, shared_engine
from core.ui.widgets.safe_text import safe_inline

person()  # redirects visitors without access to sign-in
engine = shared_engine()

st.title("Speed and memory", anchor=False)
st.caption(
    "Results of benchmarks, which run each configuration in a separate process, and of the answers "
    "given in this app. All values are listed with their conditions."
)
draw_notice()
draw_manage_hint()
try:
    data = read_data(engine)
except RecordsError as error:
    st.error(safe_inline(str(error)), icon=":material/error:")
    st.stop()

# Benchmark: running, unfinished, setup
draw_progress()
draw_unfinished(engine)
sweep = shared_benchmark().current
if not in_kiosk():
    if data.empty and (sweep is None or not sweep.running):
        draw_first_benchmark()
    draw_benchmark(engine)
    draw_tuning(engine)

# No data yet
if data.empty:
    with st.container(horizontal=True, vertical_alignment="center"):
        draw_import(engine)
        link_to("instruct")
    draw_live(engine)
    st.stop()

# Filters
with st.container(horizontal=True, vertical_alignment="center"):
    which = pick_filter(data.subjects())
    chosen = data.chosen(which)
    draw_export(engine, chosen, which)
    draw_import(engine)

# Figures and charts
if chosen.points:
    if chosen.contended:
        draw_excluded(chosen.contended, all_of_them=False)
    draw_key_figures(chosen.points)
    draw_charts(engine, chosen)
elif data.without_figures:
    st.info(
        "Figures and charts appear here as soon as there are results.", icon=":material/monitoring:"
    )
elif chosen.contended:
    draw_excluded(chosen.contended, all_of_them=True)
else:
    st.info("No values match the filter.", icon=":material/search_off:")
    st.button("Show all", icon=":material/filter_list_off:", on_click=show_all, key="show_all_2")

# Tables and live load
st.subheader("All measurements and answers", anchor=False)
draw_tables(chosen)
st.subheader("Current load of this machine", anchor=False)
draw_live(engine)
