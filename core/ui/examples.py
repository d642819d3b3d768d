"""Example instructions to click."""

from __future__ import annotations

import streamlit as st

from core.catalogue.presets import CATEGORIES, Preset, presets

STARTERS = "starters"
STARTER_COUNT = 10
"""The first presets, one for each subject a newcomer likes to try."""
_LABELS = {
    STARTERS: "Starters",
    "open_qa": "Open QA",
    "closed_qa": "Closed QA",
    "information_extraction": "Extraction",
    "summarization": "Summarisation",
    "brainstorming": "Brainstorming",
    "classification": "Classification",
    "creative_writing": "Writing",
}


def draw_examples(instruction_key: str, context_key: str) -> None:
    """Draw the examples; a click fills the instruction and the context.

    Args:
        instruction_key: key of the widget that holds the instruction.
        context_key: key of the widget that holds the context passage.
    """
    group = st.segmented_control(
        "Examples",
        [STARTERS, *CATEGORIES],
        default=STARTERS,
        format_func=_LABELS.__getitem__,
        required=True,
        key="example_group",
        persist_state="session",
    )
    chosen = _of_group(group or STARTERS)

    def fill() -> None:
        picked: int | None = st.session_state[f"example_{group}"]
        if picked is not None:
            st.session_state[instruction_key] = chosen[picked].instruction
            st.session_state[context_key] = chosen[picked].context
            st.session_state[f"example_{group}"] = None

    st.pills(
        "Pick one to fill the box below",
        range(len(chosen)),
        format_func=lambda index: chosen[index].title,
        key=f"example_{group}",
        on_change=fill,
        label_visibility="collapsed",
    )


def _of_group(group: str) -> tuple[Preset, ...]:
    if group == STARTERS:
        return presets()[:STARTER_COUNT]
    return tuple(preset for preset in presets() if preset.category == group)
