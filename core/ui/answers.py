"""Draws ended answers, with what a person can do with each."""

from __future__ import annotations

import streamlit as st

from core.generation.answer import StopReason
from core.generation.request import GenerationRequest
from core.ui.export import to_json, to_markdown
from core.ui.history import Conversation, HistoryEntry
from core.ui.safe_text import safe_inline, safe_markdown
from core.ui.stream_view import figures_line


def draw_question(request: GenerationRequest) -> None:
    """What was asked; the person's own words are no more trusted than the model's."""
    with st.chat_message("user", avatar=":material/person:"):
        st.markdown(safe_markdown(request.instruction))
        if request.context:
            with st.expander("Context passage", icon=":material/article:"):
                st.markdown(safe_markdown(request.context))


def draw_entry(entry: HistoryEntry, state: Conversation) -> None:
    """One question and its answer, figures and buttons."""
    answer = entry.answer
    with st.container(border=True, key=f"entry_{entry.id}"):
        draw_question(entry.request)
        with st.chat_message("assistant", avatar=":material/pets:"):
            if answer.text:
                st.markdown(safe_markdown(answer.text))
            elif answer.error is None:
                st.caption("The model gave no text.")
            if answer.error_sentence:
                st.error(safe_inline(answer.error_sentence), icon=":material/error:")
            elif answer.stop_reason is StopReason.TIMEOUT:
                st.warning(answer.stop_reason.sentence, icon=":material/timer_off:")
            st.caption(figures_line(answer, entry.spec, entry.title))
            _draw_actions(entry, state)


def draw_history_export(state: Conversation) -> None:
    """Buttons that save the whole history."""
    with st.popover("Export", icon=":material/download:"):
        _draw_downloads(state.entries, "history")


def _draw_actions(entry: HistoryEntry, state: Conversation) -> None:
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Regenerate",
            icon=":material/refresh:",
            key=f"again_{entry.id}",
            type="tertiary",
            disabled=state.running,
            on_click=state.regenerate,
            args=(entry,),
            help="Ask the same again with a fresh seed.",
        )
        with st.popover("Copy", icon=":material/content_copy:", type="tertiary"):
            st.code(entry.answer.text or " ", language=None, wrap_lines=True)
        with st.popover("Export", icon=":material/download:", type="tertiary"):
            _draw_downloads([entry], entry.id)
        st.button(
            "Delete",
            icon=":material/delete:",
            key=f"delete_{entry.id}",
            type="tertiary",
            on_click=state.delete,
            args=(entry,),
            help="Forget this answer, here and in the records.",
        )


def _draw_downloads(entries: list[HistoryEntry], key: str) -> None:
    st.download_button(
        "Markdown",
        lambda: to_markdown(entries),
        file_name="paddock-answers.md",
        mime="text/markdown",
        icon=":material/markdown:",
        key=f"markdown_{key}",
        on_click="ignore",
    )
    st.download_button(
        "JSON",
        lambda: to_json(entries),
        file_name="paddock-answers.json",
        mime="application/json",
        icon=":material/data_object:",
        key=f"json_{key}",
        on_click="ignore",
    )
