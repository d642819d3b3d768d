"""What is asked: one instruction with a context passage, or a list."""

from __future__ import annotations

import streamlit as st

from core.compare.setup import Mode
from core.ui.widgets.examples import draw_examples
from core.ui.widgets.link import link_choice, link_texts, one_of
from core.ui.widgets.state import set_widgets

INSTRUCTION, CONTEXT = "instruction", "context"
"""Keys of the two boxes, also their names in the URL."""


ONE, LIST = "one", "list"
_KINDS = {ONE: "One instruction", LIST: "List"}


def list_chosen() -> bool:
    """Return the choice of :func:`pick_kind`, which is drawn below what depends on it."""
    link_choice("ask", ONE, one_of(list(_KINDS)))
    return st.session_state["ask"] == LIST


def pick_kind() -> None:
    """Draw the choice between one instruction and a list."""
    st.segmented_control(
        "Input",
        list(_KINDS),
        format_func=_KINDS.__getitem__,
        required=True,
        key="ask",
        persist_state="session",
        label_visibility="collapsed",
    )


def draw_invitation(mode: Mode, *, examples: bool) -> None:
    """Draw what the page does, and examples, in the place of the answers."""
    st.title("Compare models side by side", anchor=False)
    st.caption(
        "All models get the same instruction, settings and seed. You vote for the best one. "
        + mode.sentence
    )
    if examples:
        draw_examples(
            lambda instruction, context: set_widgets({INSTRUCTION: instruction, CONTEXT: context})
        )


def draw_instruction() -> str:
    """Draw the box of the instruction, whose text is kept in the URL, and return it as typed."""
    link_texts(INSTRUCTION, CONTEXT)
    instruction = st.text_area(
        "Instruction",
        key=INSTRUCTION,
        persist_state="session",
        height=96,
        placeholder="Type an instruction for all models, for instance: Suggest three names for a "
        "sailing boat.",
        label_visibility="collapsed",
    )
    return instruction or ""


def draw_context() -> str:
    """Draw the context passage in a popover and return it as typed; after the instruction."""
    given = bool(st.session_state[CONTEXT])
    with st.popover(
        "Context (1)" if given else "Context",
        icon=":material/article:",
        type="tertiary",
        key="context_box",
        width="content",
    ):
        context = st.text_area(
            "Context passage",
            key=CONTEXT,
            persist_state="session",
            height=220,
            width=520,
            placeholder="A text that the instruction refers to: to answer from, extract from or "
            "summarise.",
        )
    return context or ""
