"""Sampling lab: the real distribution of the next token, and what the settings do to it."""

import streamlit as st

from core.errors import PaddockError
from core.runtimes.spec import SamplingSettings
from core.ui.lab.state import lab, other_precision
from core.ui.lab.view import SHOWN, draw_actions, draw_difference, draw_path, draw_side
from core.ui.widgets.link import is_true, link_choice, link_texts, number_in
from core.ui.widgets.person import person
from core.ui.widgets.pickers import pick_model
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.sampling import pick_sampling
from core.ui.widgets.start_button import draw_start, to_download

TEXT, LONGEST = "text", 4000

person()  # redirects visitors without access to sign-in
state, engine = lab(), shared_engine()
st.title("See the model choose", anchor=False)
st.caption(
    "A model gives every token of its vocabulary a probability. The settings decide which of them "
    "can be drawn. Click a bar, or tap it twice, to continue from there."
)

# Text and models
st.session_state.setdefault(TEXT, "The cat is")
link_texts(TEXT)
text = st.text_area("Text", key=TEXT, height=80, max_chars=LONGEST, persist_state="session") or ""
specs = []
for number, key in enumerate(("lab_", "other_")):
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if number:
            if not st.toggle("Second model", **link_choice("two", False, is_true)):
                break
            st.session_state.setdefault("other_model", specs[0].model)
            st.session_state.setdefault("other_precision", other_precision(specs[0]))
        specs.append(pick_model(engine.store, key=key, row="AB"[number], weights_only=True).spec)
missing = any(to_download(engine, spec) != 0 for spec in specs)
if missing and not draw_start("Show the probabilities", specs, disabled=False):
    st.stop()
state.begin(text, engine.store.name(specs[0].model))

left, right = st.columns([3, 1], gap="medium")
with right:
    sampling = pick_sampling(SamplingSettings(), lab=True)
    min_p = st.slider(
        "Min-p",
        0.0,
        1.0,
        step=0.01,
        help="Only tokens with at least this share of the likeliest token's probability are "
        "considered: 0.5 leaves *playing* (50 %) and *sleeping* (25 %). 0 disables it.",
        **link_choice("min_p", 0.0, number_in(0.0, 1.0)),
    )

with left:
    try:
        places = [state.place(specs[0], text)]
        places += [state.place(spec, text, places[0]) for spec in specs[1:]]
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        st.stop()
    found = [place.distribution(sampling, min_p) for place in places]
    signature = (tuple(specs), text, state.path, sampling, min_p)
    with st.container(key="lab_path"):  # a place of its own, so that nothing below it moves
        draw_path(state, places[0])
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        draw_actions(state, places[0], found[0], signature)
    same = all(place.texts.same_as(places[0].texts) for place in places)
    shown = found[0].order[:SHOWN].tolist() if same else None
    for number, column in enumerate(st.columns(len(places), gap="medium")):
        with column:
            several = len(places) > 1
            draw_side(state, number, places[number], found[number], shown, signature, several)
    if len(places) == 2:
        draw_difference(*places)
