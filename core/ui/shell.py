"""Runs before every page, whichever is opened first: the door, and what all pages share."""

from pathlib import Path

import streamlit as st

from core.ui.widgets import slots
from core.ui.widgets.link import note_page
from core.ui.widgets.navigation import all_pages, page
from core.ui.widgets.person import enter
from core.ui.widgets.preferences import recall
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.state import hold_settled, page_was_drawn
from core.ui.widgets.visits import first_screen_drawn

ICON = str(Path(__file__).with_name("icon.svg"))
"""A file of our own: Streamlit takes named icons for the browser tab from a font server."""

CONTRAST = Path(__file__).with_name("contrast.css")
"""What Streamlit's theme has no settings for."""


def to_first_page() -> None:
    """The root path leads to the first page, which has a path of its own."""
    st.switch_page(page("instruct"))


try:
    someone = enter()
    recall(shared_engine, someone)
    st.set_page_config(
        page_title="Paddock", page_icon=ICON, layout="wide", initial_sidebar_state=340
    )
    st.logo(ICON, size="large")
    st.html(CONTRAST)
    st.html(slots.STYLE)
    root = st.Page(
        to_first_page, title="Paddock", url_path="home", default=True, visibility="hidden"
    )
    chosen = st.navigation([root, *all_pages()], position="top")
    note_page(chosen.url_path)
    hold_settled()
    chosen.run()
    page_was_drawn()
finally:
    first_screen_drawn.set()
