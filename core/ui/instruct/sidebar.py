"""Sidebar of the Instruct page: the model's speed, controls of the conversation, stored ones."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import streamlit as st

from core.benchmark.decode_rate import DecodeRates
from core.catalogue import catalogue
from core.catalogue.chat_template import template_variables
from core.catalogue.prompts import prompt_format
from core.db import RunState
from core.errors import PaddockError, RecordsError
from core.hardware.devices import host_facts
from core.inference.conversations import Exchange
from core.inference.engine import find_stored
from core.runtimes.spec import ModelSpec
from core.store import StoredModel
from core.store.checkpoint import chat_template
from core.ui.instruct.answers import draw_downloads
from core.ui.instruct.conversation import OPEN, Conversation
from core.ui.widgets.actions import action
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.units import rate_text

LATEST = 10
"""Number of the latest answers whose median is shown."""
THINKING_VARIABLES = ("enable_thinking", "thinking")
"""Variables by which chat templates turn thinking on or off: Qwen3's and SmolLM3's, Granite's."""


def draw_model_speed(spec: ModelSpec) -> None:
    """Draw the measured decode rate of this configuration, or else an expected one."""
    try:
        rates = _measured(spec)
        if rates:
            st.caption(
                f":material/speed: **{rate_text(median(rates))}** measured here.",
                help=f"Median of the latest answers: {len(rates)}.",
            )
        elif (stored := _stored(spec)) is not None:
            # For a typical machine: measuring this one would delay the first screen.
            expected = DecodeRates().expected_of(stored)
            st.caption(f":material/speed: About **{rate_text(expected)}** expected here.")
    except PaddockError:
        return  # the selector shows why the model cannot be used


def _measured(spec: ModelSpec) -> list[float]:
    """Return the decode rates of the latest answers that ran alone."""
    engine = shared_engine()
    rows = engine.runs.chart_rows(
        limit=LATEST,
        model=engine.named(spec).model,
        precision=spec.precision_name,
        device=spec.device,
        runtime=spec.runtime.value,
        state=RunState.DONE,
    )
    here = [row for row in rows if row.host_name == host_facts().name and not row.contended]
    return [row.decode_tokens_per_s for row in here if row.decode_tokens_per_s]


# The conversation


def pick_follow_up(spec: ModelSpec, exchanges: Sequence[Exchange]) -> tuple[bool, dict[str, bool]]:
    """Draw the controls of a conversation that the model has.

    Returns:
        Whether the earlier exchanges are sent along, and variables of the chat template.
    """
    stored = _stored(spec)
    chat = _is_chat(spec, stored)
    on = st.toggle(
        "Follow up",
        chat,
        key=f"follow_up_{chat}",
        persist_state="session",
        help="On: the earlier instructions and answers are sent along, so that you can ask about "
        "them. Off: each instruction stands alone, as Dolly was trained. On by default for models "
        "with a chat template.",
    )
    if on and (used := _used_tokens(exchanges)):
        positions = stored.manifest.positions if stored is not None else None
        of = f" of {positions:,}" if positions else ""
        st.caption(f":material/history: Earlier turns: about {used:,}{of} tokens.")
    variables = template_variables(chat_template(stored.folder)) if stored is not None else ()
    variable = next((name for name in THINKING_VARIABLES if name in variables), None)
    if variable is None:
        return on, {}
    thinking = st.toggle(
        "Thinking",
        True,
        key="thinking",
        persist_state="session",
        help="The model thinks before it answers. Its thoughts are shown folded above the answer "
        "and are not sent along with follow-ups.",
    )
    return on, {variable: thinking}


def pick_system_prompt(spec: ModelSpec) -> str:
    """Draw the box for the system prompt of a model with a chat template; empty without one."""
    if not _is_chat(spec, _stored(spec)):
        return ""
    system = st.text_area(
        "System prompt",
        key="system",
        persist_state="session",
        height=100,
        placeholder="How the model should answer. Empty: as its chat template says.",
    )
    return system or ""


def _stored(spec: ModelSpec) -> StoredModel | None:
    try:
        return None if spec.remote else find_stored(shared_engine().store, spec)
    except PaddockError:
        return None  # the selector shows why the model cannot be used


def _is_chat(spec: ModelSpec, stored: StoredModel | None) -> bool:
    """Return whether conversations go through a chat template."""
    row = catalogue().get(spec.model)
    if spec.remote or row is None:
        return spec.remote or (stored is not None and stored.manifest.has_chat_template)
    return prompt_format(row.prompt_format).chat


def _used_tokens(exchanges: Sequence[Exchange]) -> int:
    """Return about how many tokens the exchanges take; a follow-up's prompt has those before."""
    used = 0
    for each in reversed(exchanges):
        if each.answer is not None and (timings := each.answer.timings) is not None:
            used += (timings.prompt_tokens or 0) + each.answer.answer_tokens
            if each.details.follow_up:
                break
    return used


# Stored conversations


def draw_conversations(state: Conversation) -> None:
    """Draw the latest conversations, or those that match the search; a click opens one."""
    opened = st.session_state[OPEN]
    action(
        "New conversation",
        "add",
        "new_conversation",
        state.new,
        kind="secondary",
        disabled=state.empty,
        width="stretch",
    )
    menu = st.container()
    with st.expander("Conversations", icon=":material/forum:", expanded=True, key="conversations"):
        search = st.text_input(
            "Search",
            key="conversation_search",
            placeholder="Search",
            icon=":material/search:",
            label_visibility="collapsed",
        )
        holder = person().holder
        try:
            store = shared_engine().conversations.store
            found = store.list(holder, search or "", limit=state.listed + 1)
            title = store.title(opened, holder)
        except RecordsError:
            return  # the notice of the conversation says why
        for each in found[: state.listed]:
            st.button(
                safe_inline(each.title),
                key=f"open_{each.id}",
                type="secondary" if each.id == opened else "tertiary",
                width="stretch",
                on_click=state.open,
                args=(each.id,),
            )
        if not found:
            st.caption("Nothing was found." if search else "Your conversations are listed here.")
        elif len(found) > state.listed:
            action("Show more", "expand_more", "list_more", state.list_more)
    if title is not None:
        with menu:
            _draw_menu(state, opened, title)


def _draw_menu(state: Conversation, conversation: str, title: str) -> None:
    """Draw what can be done with the open conversation."""
    with st.popover("This conversation", icon=":material/more_horiz:", width="stretch"):
        box = f"title_{conversation}"
        st.text_input(
            "Title", title, key=box, on_change=lambda: state.rename(st.session_state[box] or "")
        )
        draw_downloads(state.exchanges, "conversation")
        key = "delete_conversation"
        action("Delete conversation", "delete", key, state.delete_conversation, kind="secondary")
