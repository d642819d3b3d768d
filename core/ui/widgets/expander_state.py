"""Which cards of the Models page are open; kept in its link and when the page is left."""

from __future__ import annotations

import streamlit as st

from core.ui.widgets.link import link_texts

_OPEN = "open"


def read_opened() -> None:
    """Take over what the link says; before the first card is drawn."""
    link_texts(_OPEN)


def is_open(key: str) -> bool:
    """Whether the card of this model is to be open."""
    return key in _opened()


def open_card(key: str) -> None:
    """Open a card at the next drawing."""
    note(key, opened=True)
    st.session_state.pop(widget_key(key), None)


def note(key: str, *, opened: bool) -> None:
    """Remember what the person did with a card."""
    keys = [each for each in _opened() if each != key]
    st.session_state[_OPEN] = ",".join([*keys, key] if opened else keys)


def write_opened() -> None:
    """Bring the link up to date; after the last card was drawn."""
    link_texts(_OPEN)


def widget_key(key: str) -> str:
    """Key of the expander of a model's card."""
    return f"card_{key}"


def _opened() -> list[str]:
    return [key for key in str(st.session_state.get(_OPEN) or "").split(",") if key]
