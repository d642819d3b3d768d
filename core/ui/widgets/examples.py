"""Buttons for the example instructions, by category."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from core.catalogue.presets import presets

_LABELS = {
    "starters": "Starters",
    "open_qa": "Open QA",
    "closed_qa": "Closed QA",
    "information_extraction": "Extraction",
    "summarization": "Summarisation",
    "brainstorming": "Brainstorming",
    "classification": "Classification",
    "creative_writing": "Writing",
}


def draw_examples(on_click: Callable[[str, str], None]) -> None:
    """Draw the examples of a category; the callback gets instruction and context passage."""
    group = st.segmented_control(
        "Examples",
        list(_LABELS),
        default="starters",
        format_func=_LABELS.__getitem__,
        required=True,
        key="example_group",
        persist_state="session",
        label_visibility="collapsed",
    )
    # The first ten presets are starters: one for each subject that new users like to try.
    shown = [each for each in presets() if each.category == group] or presets()[:10]
    with st.container(horizontal=True, gap="small", key="examples"):
        for number, example in enumerate(shown):
            st.button(
                example.title,
                key=f"example_{group}_{number}",
                on_click=on_click,
                args=(example.instruction, example.context),
                help=example.instruction,
            )
