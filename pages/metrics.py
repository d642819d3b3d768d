"""Tokens/s and memory of the answers given so far, per device and precision."""

import streamlit as st

from core.errors import RecordsError
from core.records import RunState
from core.ui.cached import shared_engine
from core.ui.charts import by_configuration, decode_rate_chart, memory_chart
from core.ui.navigation import link_to
from core.ui.runs_table import COLUMNS, runs_table

LATEST = 1000

st.title("What speed and memory does it cost?", anchor=False)
st.caption(
    "From the answers this Paddock has given, each with its conditions. Rates are of the decode "
    "phase; memory is what loading and warming up added to the app's process, of which the first "
    "model after a start also bears the runtime's own share."
)

try:
    runs = shared_engine().runs.recent(LATEST, state=RunState.DONE)
except RecordsError as error:
    st.error(str(error), icon=":material/error:")
    st.stop()

if not runs:
    st.info(
        "Nothing has been measured yet. Give a model an instruction, then come back.",
        icon=":material/monitoring:",
    )
    link_to("instruct")
    st.stop()

with_contended = st.toggle(
    "Include contended answers",
    key="contended",
    bind="query-params",
    help="Answers given while something else was generating are slower than the machine allows.",
)
shown = [run for run in runs if with_contended or not (run.result and run.result.contended)]
groups = by_configuration(shown)

left, right = st.columns(2)
if groups:
    left.plotly_chart(decode_rate_chart(groups), key="decode_rate")
    right.plotly_chart(memory_chart(groups), key="memory")
else:
    st.info("No answer here has the two tokens that a rate needs.", icon=":material/monitoring:")

st.subheader("Answers", anchor=False)
st.dataframe(runs_table(shown), column_config=COLUMNS, hide_index=True, key="runs")
