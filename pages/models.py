"""Models page: catalogue, requirements, downloads and conversions, models on disk."""

import streamlit as st

from core.ui.models.add import draw_add
from core.ui.models.cards import draw_card, draw_in_memory
from core.ui.models.disk_use import draw_disk_use
from core.ui.models.filter import State, pick_filter
from core.ui.models.hub_access import draw_hub_access
from core.ui.models.list import catalogue_models, own_models
from core.ui.models.remote_servers import draw_add_server, draw_servers
from core.ui.models.results import draw_notice
from core.ui.models.tasks import draw_tasks
from core.ui.widgets.expander_state import read_opened, write_opened
from core.ui.widgets.person import draw_manage_hint, person
from core.ui.widgets.resources import shared_engine

person()  # redirects visitors without access to sign-in
engine = shared_engine()
read_opened()

st.title("Models", anchor=False)
st.caption(
    "All models of the catalogue, and your own. Details show the requirements on this machine. "
    "Downloads and conversions run in the background, so you can leave this page."
)
draw_notice()
draw_manage_hint()
draw_tasks(engine)
draw_in_memory(engine)

# Search, filters and forms
with st.container(horizontal=True, vertical_alignment="center"):
    wanted = pick_filter()
    draw_add(engine)
    draw_add_server(engine)
    access = draw_hub_access()

# Remote servers and models
draw_servers(engine)
listed = 0
for heading, models in (
    ("Your models", own_models(engine)),
    ("Catalogue", catalogue_models(engine)),
):
    found = [
        model
        for model in models
        if wanted.matches(
            model.candidate(fits=State.FITS not in wanted.states or model.fits(engine))
        )
    ]
    if not found:
        continue
    st.subheader(heading, anchor=False)
    for model in found:
        draw_card(engine, model, access)
    listed += len(found)
if not listed:
    st.info("No model matches the search and filters.", icon=":material/search_off:")
write_opened()

draw_disk_use(engine)
