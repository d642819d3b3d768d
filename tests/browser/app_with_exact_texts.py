"""App that draws instructions and answers as the Instruct page does; started by the tests.

Each ``text`` parameter of the URL is drawn as an instruction and as its answer.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import streamlit as st

from core.ui.instruct.answers import draw_exchange
from core.ui.instruct.conversation import Conversation
from core.ui.widgets import actions
from tests.ui.test_figures_and_export import ANSWER, EXCHANGE

# Without the server's middleware nobody is signed in; buttons would redirect to the sign-in page.
access = SimpleNamespace(kiosk=False, manage=True)
actions.person = lambda: SimpleNamespace(access=access)  # type: ignore[assignment]

st.html(Path("core/ui/theme.css"))
for number, text in enumerate(st.query_params.get_all("text")):
    entry = replace(
        EXCHANGE,
        id=f"text_{number}",
        instruction=text,
        context="",
        answer=replace(ANSWER, text=text),
    )
    draw_exchange(entry, Conversation())
st.text("Drawing finished.")
