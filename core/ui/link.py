"""Keeps texts in the page's link, as long as they are short enough for one."""

from __future__ import annotations

import streamlit as st

LONGEST = 1500
"""Characters of a text in a link; servers and mail programs cut much longer ones."""


def keep_in_link(*keys: str) -> None:
    """Fill text widgets from the link when the page is first opened, then follow them.

    Widgets' own binding to the link has no limit, and a server answers a link of some 64 kB with
    an error page. Call this before the widgets are drawn.

    Args:
        keys: keys of text widgets, which are also the names in the link.
    """
    for key in keys:
        if key not in st.session_state:
            st.session_state[key] = st.query_params.get(key, "")
        text = st.session_state[key] or ""
        if 0 < len(text) <= LONGEST:
            if st.query_params.get(key) != text:
                st.query_params[key] = text
        elif key in st.query_params:
            del st.query_params[key]
