"""Draws ended answers, with what a person can do with each."""

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
from core.ui.widgets.model_choices import GET_A_REAL_ONE, packaged_model, usual_precision
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline, safe_markdown


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
            _draw_way_on(entry, state)
            _draw_actions(entry, state)


def draw_history_export(state: Conversation) -> None:
    """Buttons that save the whole history."""
    with st.popover("Export", icon=":material/download:"):
        _draw_downloads(state.entries, "history")


def _draw_way_on(entry: HistoryEntry, state: Conversation) -> None:
    """Below an embedded model's refusal: what it can do, and a model that can do more."""
    row = catalogue().get(entry.spec.model)
    if row is None or not row.embedded or not is_refusal(entry.answer.text):
        return
    real = packaged_model()
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if real is not None:
            st.button(
                f"Ask {catalogue()[real].title} the same",
                icon=":material/forum:",
                key=f"ask_real_{entry.id}",
                disabled=state.running,
                on_click=_ask,
                args=(state, real, entry),
            )
        st.button(
            "Try an example",
            icon=":material/lightbulb:",
            key=f"example_{entry.id}",
            on_click=fill_in,
            args=(random.choice(presets()),),
            help="Fills the boxes above with an instruction of a kind that it was trained on.",
        )
        if real is None:
            st.caption(GET_A_REAL_ONE)


def _ask(state: Conversation, model: str, entry: HistoryEntry) -> None:
    """A callback: the model answers what another one declined, with its own settings."""
    store = shared_engine().store
    precision = usual_precision(store, model)
    usual = default_sampling(store, model)
    sampling = replace(usual, max_new_tokens=entry.request.sampling.max_new_tokens)
    request = replace(entry.request, sampling=sampling, prompt_format=None)
    if not state.running:
        state.ask(replace(entry.spec, model=model, precision=precision), request)


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
