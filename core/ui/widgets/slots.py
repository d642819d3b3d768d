"""Fixed places in a row of buttons whose content changes while the user looks at it.

Streamlit removes an old button some tenths of a second after it has drawn its replacement. Side by
side, the two would move each other away from under the mouse, and a click would be lost. In a
container of its own, the replacement is at its final position at once.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

STYLE = Path(__file__).with_suffix(".css")
"""Style sheet, drawn by the shell."""


def place(name: str) -> DeltaGenerator:
    """Return a container for one button or none.

    Always draw the same number of places in a row, and put optional buttons on the left: the row is
    aligned to the right.

    Args:
        name: name of the place, unique on the page.
    """
    return st.container(key=f"place_{name}", width="content", horizontal_alignment="right")
