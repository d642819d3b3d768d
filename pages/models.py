"""The catalogue: what each model is, and what of it is on disk."""

import streamlit as st

from core.catalogue import catalogue
from core.ui.cached import shared_engine
from core.ui.model_cards import draw_loaded, draw_model, draw_other

engine = shared_engine()
on_disk = engine.store.list()

st.title("Models", anchor=False)
st.caption(
    "Every model Paddock knows by name, and what of it is on disk. Others are added by typing "
    "their Hugging Face id or folder on the Instruct page."
)

draw_loaded(engine)

wanted = st.text_input(
    "Search",
    key="search",
    bind="query-params",
    placeholder="Name, licence or architecture",
    icon=":material/search:",
    label_visibility="collapsed",
)
found = [
    row
    for row in catalogue().values()
    if (wanted or "").lower()
    in f"{row.key} {row.title} {row.licence} {row.architecture} {row.hub_id}".lower()
]
for row in found:
    draw_model(engine, row, [stored for stored in on_disk if stored.key == row.key])
if not found:
    st.info("No model of the catalogue matches.", icon=":material/search_off:")

others = [stored for stored in on_disk if stored.key not in catalogue()]
if others:
    st.subheader("Your own", anchor=False)
    draw_other(engine, others)
