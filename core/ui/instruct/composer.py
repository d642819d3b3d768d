"""Composer at the bottom of the Instruct page: instruction, context passage, examples, Stop."""

from __future__ import annotations

import streamlit as st

from core.inference.request import readable
from core.ui.instruct.conversation import BUSY, CONTEXT, Conversation
from core.ui.widgets.actions import place
from core.ui.widgets.examples import draw_examples
from core.ui.widgets.link import link_texts
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.units import counted

INSTRUCTION = "instruction"
"""Name of the instruction in a link."""
BOX = "composer_box"
MAX_FILE_MB = 20
"""Of what the browser sends; the limit of a text is smaller, and its message says more."""
USUAL_ENCODINGS = ["ascii", "utf_8", "utf_16", "cp1252"]
"""Of text files in western languages; among more, a short text would be mistaken for another."""


def draw_composer(state: Conversation) -> None:
    """Draw the composer; what is submitted is in the state at the start of the next run."""
    if text := st.query_params.get(INSTRUCTION):  # of a link; from now on it is not in the URL
        st.session_state[BOX] = text
        del st.query_params[INSTRUCTION]
    link_texts(CONTEXT)
    if state.draft is not None:
        st.session_state[BOX], state.draft = state.draft, None
    if notice := state.take_notice():
        st.warning(safe_inline(notice), icon=":material/info:")
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        _draw_context(state)
        if not state.empty:
            with st.popover("Examples", icon=":material/lightbulb:", type="tertiary"):
                draw_examples(state.ask)
        st.space("stretch")
        with place("stop"):
            if state.running:
                # Not an action: the answer stops even where the session's record cannot be read.
                st.button(
                    "Stop",
                    icon=":material/stop:",
                    shortcut="Escape",
                    key="stop",
                    on_click=state.stop,
                )
    st.chat_input(
        "Type an instruction",
        key=BOX,
        accept_file=True,
        max_upload_size=MAX_FILE_MB,
        on_submit=_submit,
        args=(state,),
    )


def _draw_context(state: Conversation) -> None:
    """Draw the box for the context passage behind a button that states its length.

    While it is closed, the browser does not take a new value for the box, and would send the old
    one again. A passage that does not come from the box therefore gets a new box.
    """
    passage = st.session_state[CONTEXT]
    if st.session_state.get(f"context_box_{state.box}", passage) != passage:
        state.box += 1
    box, length = f"context_box_{state.box}", len(passage)

    def changed() -> None:
        st.session_state[CONTEXT] = st.session_state[box] or ""

    with st.popover(
        f"Context: {counted(length, 'character')}" if length else "Context",
        icon=":material/article:",
        type="secondary" if length else "tertiary",
    ):
        st.text_area(
            "Context passage",
            passage,
            key=box,
            on_change=changed,
            height=200,
            placeholder="A text that the instruction refers to: to answer from, extract from or "
            "summarise. You can also drop a text file on the instruction.",
        )


def _submit(state: Conversation) -> None:
    """Callback: ask what is in the composer; what cannot be used is put back, with a notice."""
    sent, context = st.session_state[BOX], st.session_state[CONTEXT] or ""
    most = shared_engine().settings.max_characters
    passages = [context] if context.strip() else []
    for file in sent.files:
        if file.size > 4 * most or len(text := _decoded(file.getvalue())) > most:
            state.notice = f"The file {file.name} is too long. The maximum is {most:,} characters."
        elif not text and file.size:
            state.notice = (
                f"The file {file.name} is not a text file. Save it as UTF-8 text and try again."
            )
        else:
            passages.append(text)
    context = "\n\n".join(passages)
    if state.running:
        state.notice = BUSY
    elif not sent.text.strip():
        state.notice = "The instruction is empty. Type one about the context passage."
    if state.notice is None:
        state.ask(sent.text, context)
        st.session_state[CONTEXT] = ""
    else:
        state.put_back(sent.text, context)


def _decoded(content: bytes) -> str:
    """Return the text of a file in any common encoding; empty if it is not text."""
    from charset_normalizer import from_bytes

    found = from_bytes(content, cp_isolation=USUAL_ENCODINGS).best() or from_bytes(content).best()
    text = "" if found is None else str(found)
    return "" if "\0" in text else readable(text)
