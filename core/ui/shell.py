"""Runs before every page, whichever is opened first: navigation and what all pages share."""

from pathlib import Path

import streamlit as st

from core.ui.server import first_screen_drawn

PAGES = Path(__file__).resolve().parents[2] / "pages"
ICON = str(Path(__file__).with_name("icon.svg"))
"""A file of our own: Streamlit takes named icons for the browser tab from a font server."""


def to_first_page() -> None:
    """The root path leads to the first page, which has a path of its own."""
    st.switch_page(instruct)


st.set_page_config(
    page_title="Paddock",
    page_icon=ICON,
    layout="wide",
    initial_sidebar_state=340,
)

root = st.Page(to_first_page, title="Paddock", url_path="home", default=True, visibility="hidden")
instruct = st.Page(
    PAGES / "instruct.py", title="Instruct", icon=":material/chat:", url_path="instruct"
)
compare = st.Page(
    PAGES / "compare.py", title="Compare", icon=":material/compare_arrows:", url_path="compare"
)
metrics = st.Page(
    PAGES / "metrics.py", title="Metrics", icon=":material/monitoring:", url_path="metrics"
)
models = st.Page(
    PAGES / "models.py", title="Models", icon=":material/deployed_code:", url_path="models"
)
account = st.Page(
    PAGES / "account.py", title="Account", icon=":material/person:", url_path="account"
)

st.logo(ICON, size="large")
page = st.navigation([root, instruct, compare, metrics, models, account], position="top")
try:
    page.run()
finally:
    first_screen_drawn.set()
