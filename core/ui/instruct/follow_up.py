"""Controls of a conversation: earlier exchanges, thinking, system prompt."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import streamlit as st

from core.catalogue import catalogue
from core.catalogue.prompts import prompt_format
from core.errors import PaddockError
from core.inference.conversations import Exchange
from core.inference.engine import find_stored
from core.runtimes.spec import ModelSpec
from core.store import StoredModel
from core.store.checkpoint import chat_template
from core.ui.widgets.resources import shared_engine

THINKING_VARIABLES = ("enable_thinking", "thinking")
"""Variables by which chat templates turn thinking on or off: Qwen3's and SmolLM3's, Granite's."""


@dataclass(frozen=True)
class FollowUp:
    """Settings of a conversation."""

    on: bool
    """Whether the earlier exchanges are sent along."""
    chat_template_kwargs: Mapping[str, Any]


def pick_follow_up(spec: ModelSpec, exchanges: Sequence[Exchange]) -> FollowUp:
    """Draw the controls that the model has."""
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
    kwargs = {}
    if (variable := _thinking_variable(stored)) is not None:
        thinking = st.toggle(
            "Thinking",
            True,
            key="thinking",
            persist_state="session",
            help="The model thinks before it answers. Its thoughts are shown folded above the "
            "answer and are not sent along with follow-ups.",
        )
        kwargs = {variable: thinking}
    return FollowUp(on, kwargs)


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


def _thinking_variable(stored: StoredModel | None) -> str | None:
    """Return the variable of the model's chat template that turns thinking off; None without."""
    variables = _variables(chat_template(stored.folder)) if stored is not None else ()
    return next((name for name in THINKING_VARIABLES if name in variables), None)


@lru_cache
def _variables(template: str) -> Collection[str]:
    """Return the variables of a chat template; fields of messages may have the same names."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
        return meta.find_undeclared_variables(parsed)
    except TemplateSyntaxError:  # tags that only transformers knows
        return re.findall(r"\w+", template)


def _used_tokens(exchanges: Sequence[Exchange]) -> int:
    """Return about how many tokens the exchanges take; a follow-up's prompt has those before."""
    used = 0
    for each in reversed(exchanges):
        if each.answer is not None and (timings := each.answer.timings) is not None:
            used += (timings.prompt_tokens or 0) + each.answer.answer_tokens
            if each.details.follow_up:
                break
    return used
