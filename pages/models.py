"""Models page: catalogue, requirements, downloads and conversions, models on disk."""

import streamlit as st

from core.ui.models.add import draw_add
from core.ui.models.details import draw_details
from core.ui.models.disk_use import draw_disk_use
from core.ui.models.filter import pick_filter
from core.ui.models.hub_access import draw_hub_access
from core.ui.models.list import all_models
from core.ui.models.remote_servers import draw_add_server, draw_servers
from core.ui.models.rows import STYLE, draw_rows
from core.ui.models.tasks import draw_tasks
from core.ui.widgets.person import draw_manage_hint, person
from core.ui.widgets.resources import await_decode_rates, shared_engine

person()  # redirects visitors without access to sign-in
engine = shared_engine()
st.html(STYLE)

with st.container(horizontal=True, vertical_alignment="center", key="title"):
    st.title("Models", anchor=False, width="stretch")
    draw_add(engine)
    draw_add_server(engine)
    draw_hub_access()
draw_manage_hint()
draw_tasks(engine)
draw_servers(engine)

# The list, and the details of one model
with st.container(horizontal=True, vertical_alignment="center"):
    wanted = pick_filter()
await_decode_rates()
models = all_models(engine)
found = [model for model in models if wanted.matches(model, engine)]
here = [model for model in found if model.stored or model.row is None]
for heading, listed in (
    ("On this machine", here),
    ("Catalogue", [model for model in found if model not in here]),
):
    if listed:
        draw_rows(engine, heading, listed)
if not found:
    st.info("No model matches the search and filters.", icon=":material/search_off:")
draw_details(engine, models)

draw_disk_use(engine)
