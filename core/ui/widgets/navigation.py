"""The pages of the app and links to them."""

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
"""Title and icon of each page by its URL path, which is also its file name; in menu order."""


def page(name: str) -> st.Page:
    """Return the page with this URL path."""
    title, icon = _PAGES[name]
    return st.Page(FOLDER / f"{name}.py", title=title, icon=icon, url_path=name)


def all_pages() -> list[st.Page]:
    """Return all pages in menu order."""
    return [page(name) for name in _PAGES]


def link_to(name: str) -> None:
    """Draw a link to a page."""
    title, icon = _PAGES[name]
    st.page_link(page(name), label=f"Go to {title}", icon=icon)
