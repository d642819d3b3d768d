"""Style sheet of the Instruct page, and scrolling to the newest question."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.ui.widgets.scripts import SCROLL_TO_NEWEST

STYLE = Path(__file__).with_name("instruct.css")


def scroll_to_newest(exchange_id: str) -> None:
    """Scroll to the newest exchange.

    The element is drawn in every run and changes with the exchange: the browser runs the script
    once for each, even if the answer ends before the browser has drawn its beginning.
    """
    st.html(
        f'<span data-exchange="{exchange_id}"></span><script>{SCROLL_TO_NEWEST}</script>',
        unsafe_allow_javascript=True,
    )
