"""Which figures the Metrics page shows; all of it is kept in the page's link."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from core.metrics.rows import PointFilter, PointSource, Subject, last_days, precision_label
from core.ui.metrics.bars import runtime_label
from core.ui.widgets.link import link_choice, link_choices, one_of
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.state import settle

_DAYS = {"all": "All time", "30": "30 days", "7": "7 days", "1": "Today"}
_LABELS = {
    "models": "Model",
    "precisions": "Precision",
    "devices": "Device",
    "runtimes": "Runtime",
    "sources": "Source",
    "hosts": "Host",
}
"""Key of a control, which is also its name in the link, to its label."""

_CONTENDED_HELP = (
    "Figures taken while something else was generating, converting or computing, or while the "
    "host kept a virtual machine's cores far apart, are lower than the machine allows. They are "
    "left out, or hatched."
)


def pick_filter(subjects: Collection[Subject]) -> PointFilter:
    """Draw the filter, and return what was asked for.

    Args:
        subjects: all that can be shown; decides what can be chosen.
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
        "Contended too", key="contended", persist_state="session", help=_CONTENDED_HELP
    )
    return PointFilter(
        **chosen,
        since=None if days in (None, "all") else last_days(int(days)),
        contended=bool(contended),
    )


def show_all() -> None:
    """Choose nothing in any filter; a callback."""
    settle({key: [] for key in _LABELS} | {"days": "all"})


def draw_left_out(contended: int, *, all_of_them: bool) -> None:
    """Say what is not shown for having been taken while something else ran.

    Args:
        contended: measurements and answers.
        all_of_them: whether nothing else is there to show.
    """
    if not all_of_them:
        st.caption(f":material/visibility_off: {contended:,} contended figures are left out.")
        return
    st.info(
        "Something else was computing on this machine while these figures were taken, so they are "
        "left out. Measure again when it is quiet, or look at them all the same.",
        icon=":material/visibility_off:",
    )
    st.button(
        "Show contended figures",
        icon=":material/visibility:",
        on_click=_show_contended,
        key="show_contended",
    )


def _show_contended() -> None:
    """A callback."""
    settle({"contended": True})


def _options(subjects: Collection[Subject]) -> dict[str, list[str]]:
    """What can be chosen, as it is sorted on the page."""
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
    words = {
        "precisions": precision_label,
        "runtimes": runtime_label,
        "sources": lambda value: PointSource(value).label,
    }
    chosen = st.pills(
        _LABELS[key],
        options,
        selection_mode="multi",
        # Labels are Markdown; names of imported measurements come from elsewhere.
        format_func=lambda value: safe_inline(words.get(key, str)(value)),
        key=key,
        persist_state="session",
    )
    return tuple(str(value) for value in chosen)


def _yes(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    raise ValueError(text)
