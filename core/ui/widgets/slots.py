"""Places in a row of buttons, for what changes while a person looks on.

Streamlit takes an old button away some tenths of a second after it has drawn what comes instead of
it. Side by side the two push each other away from under the mouse, and a click is lost. In a place
of its own what comes is at once where it stays.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

STYLE = Path(__file__).with_suffix(".css")
"""For the shell to draw."""


def place(name: str) -> DeltaGenerator:
    """A container for one button, or for none.

    Draw as many places in a row whatever is in them, and what is not always there on the left: the
    row ends at its right edge.

    Args:
        name: of the place, the only one on the page.
    """
    return st.container(key=f"place_{name}", width="content", horizontal_alignment="right")
