"""App that draws random texts as answers; started by a check.

URL parameters: the first ``seed`` and the ``count`` of texts.
"""

import random

import streamlit as st

from core.ui.widgets.answer_text import draw_answer, draw_plain
from tests.random_texts import prose, text

first, count = int(st.query_params["seed"]), int(st.query_params["count"])
for seed in range(first, first + count):
    with st.container(key=f"answer_{seed}"):
        draw_answer(text(random.Random(seed)), str(seed))
    with st.container(key=f"prose_{seed}"):
        draw_answer(prose(random.Random(seed)), f"prose_{seed}")
    with st.container(key=f"plain_{seed}"):
        draw_plain(text(random.Random(seed)))
st.text("Drawing finished.")
