"""Shell of the app, run before every page: access check, navigation and shared styles."""

from pathlib import Path

import streamlit as st

from core.errors import PaddockError
from core.ui.widgets.actions import draw_error, draw_messages
from core.ui.widgets.link import note_page
from core.ui.widgets.navigation import all_pages, page
from core.ui.widgets.person import enter
from core.ui.widgets.preferences import recall
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.state import mark_sent, restore_pending
from core.ui.widgets.visits import first_screen_drawn

ICON = str(Path(__file__).with_name("icon.svg"))
"""A local file, because Streamlit loads named icons for the browser tab from a font server."""

WORDMARK = str(Path(__file__).with_name("wordmark.svg"))

STYLE = Path(__file__).with_name("theme.css")
"""Styles for which Streamlit's theme has no settings."""


def to_first_page() -> None:
    """Switch from the root path to the Instruct page, which has its own path."""
    st.switch_page(page("instruct"))


try:
    someone = enter()
    recall(shared_engine, someone)
    st.set_page_config(
        page_title="Paddock", page_icon=ICON, layout="wide", initial_sidebar_state=340
    )
    st.logo(WORDMARK, size="large")
    st.html(STYLE)
    root = st.Page(
        to_first_page, title="Paddock", url_path="home", default=True, visibility="hidden"
    )
    chosen = st.navigation([root, *all_pages()], position="top")
    note_page(chosen.url_path)
    restore_pending()
    draw_messages()
    try:
        chosen.run()
    except PaddockError as error:  # such as a database that cannot be read
        draw_error(error)
    mark_sent()
finally:
    first_screen_drawn.set()
