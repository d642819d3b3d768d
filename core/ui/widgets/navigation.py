"""The pages there are, and the way to each."""

from __future__ import annotations

import streamlit as st

from core.settings import CHECKOUT

FOLDER = CHECKOUT / "pages"

_PAGES = {
    "instruct": ("Instruct", ":material/chat:"),
    "compare": ("Compare", ":material/compare_arrows:"),
    "metrics": ("Metrics", ":material/monitoring:"),
    "models": ("Models", ":material/deployed_code:"),
    "account": ("Account", ":material/person:"),
}
"""Path of a page, which is its file's name, to its title and icon; in the order of the menu."""


def page(name: str) -> st.Page:
    """The page of that path."""
    title, icon = _PAGES[name]
    return st.Page(FOLDER / f"{name}.py", title=title, icon=icon, url_path=name)


def all_pages() -> list[st.Page]:
    """All pages in the order of the menu."""
    return [page(name) for name in _PAGES]


def link_to(name: str) -> None:
    """Draw a link to a page."""
    title, icon = _PAGES[name]
    st.page_link(page(name), label=f"Go to {title}", icon=icon)
