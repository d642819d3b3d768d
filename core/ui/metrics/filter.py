"""Filters of the Metrics page; they are stored in the page's URL."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from core.metrics.rows import PointFilter, PointSource, Subject, last_days, precision_label
from core.ui.metrics.bars import runtime_label
from core.ui.widgets.link import link_choice, link_choices, one_of
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

_CONTENDED_HELP = (
    "Includes values that were measured while other work ran on this machine, such as another "
    "answer, a download or a conversion, or while core-to-core latency was high. They are too low, "
    "so they are left out by default and hatched if included."
)


def pick_filter(subjects: Collection[Subject]) -> PointFilter:
    """Draw the filter and return its settings.

    Args:
        subjects: All subjects that can be shown; determines the options.
    """
    options = _options(subjects)
    for key, values in options.items():
        link_choices(key, values)
        st.session_state[key] = [each for each in st.session_state[key] or () if each in values]
    link_choice("days", "all", one_of(list(_DAYS)))
    link_choice("contended", False, _yes)
    days = st.segmented_control(
        "Time",
        list(_DAYS),
        format_func=_DAYS.__getitem__,
        required=True,
        key="days",
        persist_state="session",
        label_visibility="collapsed",
    )
    active = sum(len(st.session_state[key]) for key in options)
    with st.popover(
        f"Filter ({active})" if active else "Filter",
        icon=":material/filter_list:",
        key="metrics_filter",
    ):
        chosen = {key: _pick(key, values) for key, values in options.items()}
        st.button(
            "Show all",
            icon=":material/filter_list_off:",
            type="tertiary",
            disabled=not active,
            on_click=show_all,
            key="show_all",
        )
    contended = st.toggle(
        "Include measured while busy",
        key="contended",
        persist_state="session",
        help=_CONTENDED_HELP,
    )
    return PointFilter(
        **chosen,
        since=None if days in (None, "all") else last_days(int(days)),
        contended=bool(contended),
    )


def show_all() -> None:
    """Clear all filters; a callback."""
    set_widgets({key: [] for key in _LABELS} | {"days": "all"})


def draw_excluded(contended: int, *, all_of_them: bool) -> None:
    """Draw a note about values that are not shown because they were measured while busy.

    Args:
        contended: Number of measurements and answers.
        all_of_them: Whether there is nothing else to show.
    """
    if not all_of_them:
        st.caption(
            f":material/visibility_off: Values measured while busy are left out ({contended:,})."
        )
        return
    st.info(
        "All values were measured while other work ran on this machine, so they are left out. "
        "Measure again while the machine is idle, or show them anyway.",
        icon=":material/visibility_off:",
    )
    st.button(
        "Show values measured while busy",
        icon=":material/visibility:",
        on_click=_show_contended,
        key="show_contended",
    )


def _show_contended() -> None:
    set_widgets({"contended": True})


def _options(subjects: Collection[Subject]) -> dict[str, list[str]]:
    """Return the options of each filter, sorted."""
    order = sorted(subjects, key=lambda subject: subject.order)
    found = {
        "models": dict.fromkeys(subject.name for subject in order),
        "precisions": dict.fromkeys(
            subject.precision for subject in sorted(order, key=lambda s: s.order[4:])
        ),
        "devices": dict.fromkeys(sorted(subject.device for subject in order)),
        "runtimes": dict.fromkeys(sorted(subject.runtime for subject in order)),
        "sources": dict.fromkeys(
            source.value
            for source in PointSource
            if any(subject.source is source for subject in order)
        ),
        "hosts": dict.fromkeys(sorted(subject.host for subject in order)),
    }
    return {key: list(values) for key, values in found.items()}


def _pick(key: str, options: list[str]) -> tuple[str, ...]:
    labels = {
        "precisions": precision_label,
        "runtimes": runtime_label,
        "sources": lambda value: PointSource(value).label,
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


def _yes(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    raise ValueError(text)
