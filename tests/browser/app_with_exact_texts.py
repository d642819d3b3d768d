"""App that draws instructions and answers as the Instruct page does; started by the tests.

Each ``text`` parameter of the URL is drawn as an instruction and as its answer.
"""

from dataclasses import replace

import streamlit as st

from core.inference.request import GenerationRequest
from core.ui.instruct.answers import draw_entry
from core.ui.instruct.history import Conversation
from tests.ui.test_figures_and_export import ANSWER, ENTRY

for number, text in enumerate(st.query_params.get_all("text")):
    entry = replace(
        ENTRY,
        id=f"text_{number}",
        request=GenerationRequest(text),
        answer=replace(ANSWER, text=text),
    )
    draw_entry(entry, Conversation())
st.text("Drawing finished.")
