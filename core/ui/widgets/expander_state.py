"""Which model cards of the Models page are expanded; kept in the URL and across page switches."""

from __future__ import annotations

import streamlit as st

from core.ui.widgets.link import link_texts

_OPEN = "open"


def read_opened() -> None:
    """Read the expanded cards from the URL; call it before the first card is drawn."""
    link_texts(_OPEN)


def is_open(key: str) -> bool:
    """Return whether the card of this model is expanded."""
    return key in _opened()


def open_card(key: str) -> None:
    """Expand a card in the next run."""
    note(key, opened=True)
    st.session_state.pop(widget_key(key), None)


def note(key: str, *, opened: bool) -> None:
    """Record that the user expanded or collapsed a card."""
    keys = [each for each in _opened() if each != key]
    st.session_state[_OPEN] = ",".join([*keys, key] if opened else keys)


def write_opened() -> None:
    """Update the URL; call it after the last card was drawn."""
    link_texts(_OPEN)


def widget_key(key: str) -> str:
    """Return the widget key of a model's card."""
    return f"card_{key}"


def _opened() -> list[str]:
    return [key for key in str(st.session_state.get(_OPEN) or "").split(",") if key]
