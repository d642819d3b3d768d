"""Filters of the Metrics page; they are stored in the page's URL."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.metrics.labels import runtime_label
from core.metrics.rows import (
    SOURCE_LABELS,
    PointFilter,
    PointSource,
    Subject,
    last_days,
    precision_label,
)
from core.ui.widgets.actions import action
from core.ui.widgets.link import is_true, link_choice, link_choices, one_of
from core.ui.widgets.model_choices import models_here
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.state import set_widgets

_DAYS = {"all": "All time", "30": "30 days", "7": "7 days", "1": "Today"}
_LABELS = {
    "models": "Model",
    "precisions": "Precision",
    "devices": "Device",
    "runtimes": "Runtime",
    "sources": "Source",
    "hosts": "Host",
}
"""Key of a control, which is also its URL parameter, to its label."""


def pick_filter(subjects: Collection[Subject]) -> PointFilter:
    """Draw the filter of what was measured, and return its settings."""
    options = _options(subjects)
    for key, values in options.items():
        link_choices(key, values)
        st.session_state[key] = [each for each in st.session_state[key] or () if each in values]
    linked_here = link_choice("here", False, is_true)
    days = st.segmented_control(
        "Time",
        list(_DAYS),
        format_func=_DAYS.__getitem__,
        required=True,
        label_visibility="collapsed",
        **link_choice("days", "all", one_of(list(_DAYS))),
    )
    active = sum(len(st.session_state[key]) for key in options) + bool(st.session_state["here"])
    with st.popover(
        f"Filter ({active})" if active else "Filter",
        icon=":material/filter_list:",
        key="metrics_filter",
    ):
        chosen = {key: _pick(key, values) for key, values in options.items()}
        here = st.toggle(
            "Only models on this machine",
            help="Leave out deleted models, and models of servers.",
            **linked_here,
        )
        action("Show all", "filter_list_off", "show_all", show_all, disabled=not active)
    contended = st.toggle(
        "Include measured while busy",
        help="Includes values that were measured while other work ran on this machine, such as "
        "another answer, a download or a conversion, or while core-to-core latency was high. They "
        "are too low, so they are left out by default and hatched if included.",
        **link_choice("contended", False, is_true),
    )
    return PointFilter(
        **chosen,
        since=None if days in (None, "all") else last_days(int(days)),
        here=frozenset(models_here(shared_engine())) if here else None,
        contended=bool(contended),
    )


def show_all() -> None:
    """Clear all filters; a callback."""
    set_widgets({key: [] for key in _LABELS} | {"days": "all", "here": False})


def draw_all_excluded() -> DeltaGenerator:
    """Draw why nothing is shown if all values were measured while busy, and a button to show them.

    Returns:
        The row of the button, for another one.
    """
    with st.container(border=True, key="all_busy"):
        st.markdown(
            ":material/visibility_off: All values were measured while other work ran on this "
            "machine, so they are left out. Measure again while the machine is idle, or show them "
            "anyway."
        )
        row = st.container(horizontal=True)
    with row:
        shown = {"contended": True}
        key = "show_contended"
        action("Show them anyway", "visibility", key, set_widgets, shown, kind="secondary")
    return row


def _options(subjects: Collection[Subject]) -> dict[str, list[str]]:
    """Return the options of each filter, sorted."""
    order = sorted(subjects, key=lambda subject: subject.order)
    found = {
        "models": [subject.name for subject in order],
        "precisions": [each.precision for each in sorted(order, key=lambda s: s.order[4:])],
        "devices": sorted(subject.device for subject in order),
        "runtimes": sorted(subject.runtime for subject in order),
        "sources": sorted((subject.source.value for subject in order), key=list(PointSource).index),
        "hosts": sorted(subject.machine for subject in order),
    }
    return {key: list(dict.fromkeys(values)) for key, values in found.items()}


def _pick(key: str, options: list[str]) -> tuple[str, ...]:
    labels = {
        "precisions": precision_label,
        "runtimes": runtime_label,
        "sources": SOURCE_LABELS.__getitem__,
    }
    chosen = st.pills(
        _LABELS[key],
        options,
        selection_mode="multi",
        # Labels are Markdown, and names of imported measurements are untrusted.
        format_func=lambda value: safe_inline(labels.get(key, str)(value)),
        key=key,
        persist_state="session",
    )
    return tuple(str(value) for value in chosen)
