"""Input boxes for the instruction and its context passage, with examples to fill them."""

from __future__ import annotations

import streamlit as st

from core.catalogue.presets import CATEGORIES, Preset, presets
from core.ui.widgets.link import link_texts
from core.ui.widgets.state import is_stale, set_widgets

INSTRUCTION, CONTEXT = "instruction", "context"
"""Keys of the two boxes, also their names in the URL."""
STARTERS = "starters"
STARTER_COUNT = 10
"""The first presets, one for each subject that new users like to try."""
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


def draw_instruction() -> tuple[str, str]:
    """Draw the examples and the two boxes.

    Instruct and Compare share the texts and keep them in their URLs.

    Returns:
        Instruction and context passage, as typed.
    """
    link_texts(INSTRUCTION, CONTEXT)
    _draw_examples()
    instruction = st.text_area(
        "Instruction",
        key=INSTRUCTION,
        persist_state="session",
        height=110,
        placeholder="Type an instruction, or pick an example above. "
        "For instance: Suggest three names for a sailing boat.",
    )
    with st.expander(
        "Context passage (optional)",
        icon=":material/article:",
        expanded=bool(st.session_state[CONTEXT]),
    ):
        context = st.text_area(
            "Context passage",
            key=CONTEXT,
            persist_state="session",
            height=160,
            placeholder="A text that the instruction refers to: to answer from, extract from or "
            "summarise.",
            label_visibility="collapsed",
        )
    return instruction or "", context or ""


def fill_in(example: Preset) -> None:
    """Callback: put an example into both boxes."""
    set_widgets({INSTRUCTION: example.instruction, CONTEXT: example.context})


def clear_instruction() -> None:
    """Callback: clear both boxes."""
    set_widgets({INSTRUCTION: "", CONTEXT: ""})


def _draw_examples() -> None:
    """Draw the examples by category; a click fills both boxes."""
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
    key = f"example_{group}"

    def fill() -> None:
        picked: int | None = st.session_state[key]
        if picked is not None and not is_stale(key):
            example = chosen[picked]
            set_widgets({INSTRUCTION: example.instruction, CONTEXT: example.context, key: None})

    st.pills(
        "Choose an example to fill in",
        range(len(chosen)),
        format_func=lambda index: chosen[index].title,
        key=key,
        on_change=fill,
        label_visibility="collapsed",
    )


def _of_group(group: str) -> tuple[Preset, ...]:
    if group == STARTERS:
        return presets()[:STARTER_COUNT]
    return tuple(preset for preset in presets() if preset.category == group)
