"""Draw finished answers with their figures and buttons."""

from __future__ import annotations

import random
from dataclasses import replace

import streamlit as st

from core.catalogue import catalogue
from core.catalogue.presets import presets
from core.embedded.tasks import is_refusal
from core.inference.answer import StopReason
from core.inference.request import GenerationRequest
from core.runtimes.sampling import default_sampling
from core.ui.instruct.export import to_json, to_markdown
from core.ui.instruct.history import Conversation, HistoryEntry
from core.ui.instruct.question import fill_in
from core.ui.instruct.stream_view import figures_line
from core.ui.widgets.model_choices import (
    INSTALL_MODELS_HINT,
    packaged_model,
    preferred_precision,
)
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline, safe_markdown


def draw_question(request: GenerationRequest) -> None:
    """Draw the instruction and context; the user's text is as untrusted as the model's."""
    with st.chat_message("user", avatar=":material/person:"):
        st.markdown(safe_markdown(request.instruction))
        if request.context:
            with st.expander("Context passage", icon=":material/article:"):
                st.markdown(safe_markdown(request.context))


def draw_entry(entry: HistoryEntry, state: Conversation) -> None:
    """Draw one instruction with its answer, figures and buttons."""
    answer = entry.answer
    with st.container(border=True, key=f"entry_{entry.id}"):
        draw_question(entry.request)
        with st.chat_message("assistant", avatar=":material/pets:"):
            if answer.text:
                st.markdown(safe_markdown(answer.text))
            elif answer.error is None:
                st.caption("The model returned no text.")
            if answer.error_sentence:
                st.error(safe_inline(answer.error_sentence), icon=":material/error:")
            elif answer.stop_reason is StopReason.TIMEOUT:
                st.warning(answer.stop_reason.sentence, icon=":material/timer_off:")
            st.caption(figures_line(answer, entry.spec, entry.title))
            _draw_refusal_actions(entry, state)
            _draw_actions(entry, state)


def draw_history_export(state: Conversation) -> None:
    """Draw the buttons that download the whole history."""
    with st.popover("Export", icon=":material/download:"):
        _draw_downloads(state.entries, "history")


def _draw_refusal_actions(entry: HistoryEntry, state: Conversation) -> None:
    """Below a refusal of a tiny demo model, offer an example and a larger model."""
    row = catalogue().get(entry.spec.model)
    if row is None or not row.embedded or not is_refusal(entry.answer.text):
        return
    larger = packaged_model()
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if larger is not None:
            st.button(
                f"Run with {catalogue()[larger].title}",
                icon=":material/forum:",
                key=f"ask_real_{entry.id}",
                disabled=state.running,
                on_click=_run_with,
                args=(state, larger, entry),
            )
        st.button(
            "Try an example",
            icon=":material/lightbulb:",
            key=f"example_{entry.id}",
            on_click=fill_in,
            args=(random.choice(presets()),),
            help="Fill in an example of the kind that this model was trained on.",
        )
        if larger is None:
            st.caption(INSTALL_MODELS_HINT)


def _run_with(state: Conversation, model: str, entry: HistoryEntry) -> None:
    """Callback: run the same instruction on another model with that model's own settings."""
    store = shared_engine().store
    precision = preferred_precision(store, model)
    defaults = default_sampling(store, model)
    sampling = replace(defaults, max_new_tokens=entry.request.sampling.max_new_tokens)
    request = replace(entry.request, sampling=sampling, prompt_format=None)
    if not state.running:
        state.submit(replace(entry.spec, model=model, precision=precision), request)


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
            help="Run the same request again with a new seed.",
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
            help="Delete this answer here and from the database.",
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
