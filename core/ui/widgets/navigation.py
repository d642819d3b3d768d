"""The pages of the app and links to them."""

from __future__ import annotations

import streamlit as st

from core.settings import CHECKOUT
from core.ui.widgets.safe_text import unseen

_PAGES = {
    "instruct": ("Instruct", ":material/chat:"),
    "compare": ("Compare", ":material/compare_arrows:"),
    "tests": ("Test sets", ":material/checklist:"),
    "metrics": ("Metrics", ":material/monitoring:"),
    "models": ("Models", ":material/deployed_code:"),
    "lab": ("Sampling lab", ":material/science:"),
    "account": ("Account", ":material/person:"),
}
"""Title and icon of each page by its URL path, which is also its file name; in menu order."""


def page(name: str) -> st.Page:
    """Return the page with this URL path."""
    title, icon = _PAGES[name]
    shown = "hidden" if name == "lab" else "visible"  # reached from Instruct and Compare
    path = CHECKOUT / "pages" / f"{name}.py"
    return st.Page(path, title=title, icon=icon, url_path=name, visibility=shown)


def all_pages() -> list[st.Page]:
    """Return all pages in menu order."""
    return [page(name) for name in _PAGES]


def link_to(name: str) -> None:
    """Draw a link to a page."""
    title, icon = _PAGES[name]
    st.page_link(page(name), label=f"Go to {title}", icon=icon)


def draw_try_it(title: str, **query: str) -> None:
    """Draw a link to the Instruct page with a model selected, whose title screen readers tell."""
    st.page_link(
        page("instruct"),
        label=f"Try it{unseen(title)}",
        icon=":material/play_arrow:",
        query_params=query,
    )
