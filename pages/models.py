"""The catalogue: what each model is, what it takes here, and what of it is on disk."""

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

person()  # whoever may not be here is sent away
engine = shared_engine()
read_opened()

st.title("Models", anchor=False)
st.caption(
    "Every model Paddock knows by name, and your own. Each says what it will take on this machine "
    "before you start; conversions run apart from the app, so you may leave this page meanwhile."
)
draw_notice()
draw_manage_hint()
draw_tasks(engine)
draw_in_memory(engine)

# What is listed.
with st.container(horizontal=True, vertical_alignment="center"):
    wanted = pick_filter()
    draw_add(engine)
    draw_add_server(engine)
    access = draw_hub_access()

# The models, elsewhere and here.
draw_servers(engine)
listed = 0
for heading, models in (("Your own", own_models(engine)), ("Catalogue", catalogue_models(engine))):
    found = [
        model
        for model in models
        if wanted.takes(model.candidate(fits=State.FITS not in wanted.states or model.fits(engine)))
    ]
    if not found:
        continue
    st.subheader(heading, anchor=False)
    for model in found:
        draw_card(engine, model, access)
    listed += len(found)
if not listed:
    st.info("No model matches.", icon=":material/search_off:")
write_opened()

draw_disk_use(engine)
