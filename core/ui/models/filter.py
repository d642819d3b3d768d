"""Search and filters of the Models page; they are stored in the page's URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from core.catalogue import catalogue
from core.inference.engine import Engine
from core.ui.models.list import ListedModel, family, fitting
from core.ui.widgets.actions import action
from core.ui.widgets.link import link_choices, link_texts
from core.ui.widgets.state import set_widgets

_SIZES = {"tiny": 1e9, "small": 4e9, "medium": 10e9, "large": float("inf")}
"""Number of parameters that a model of each class has less than; the names are used in links."""
_LABELS = {
    "tiny": "under 1 B",
    "small": "1 to 4 B",
    "medium": "4 to 10 B",
    "large": "over 10 B",
    "on-disk": "On disk",
    "fits": "Fits this machine",
    "open": "Open",
    "gated": "Gated",
}
"""Labels of options that are not their own."""


@dataclass(frozen=True)
class ModelFilter:
    """Filter settings; an empty selection matches everything."""

    search: str
    selected: Mapping[str, Sequence[str]]

    def matches(self, model: ListedModel, engine: Engine) -> bool:
        """Return whether a model contains every search word and matches every filter."""
        words, states = model.words.lower(), self.selected["state"]
        if not all(word in words for word in self.search.lower().split()):
            return False
        count = model.parameters
        values = {
            "family": family(model.architecture or ""),
            "size": next(size for size, limit in _SIZES.items() if count < limit) if count else "",
            "licence": model.row.licence if model.row is not None else "",
            "access": {None: "", True: "gated", False: "open"}[model.gated],
        }
        if any(self.selected[key] and values[key] not in self.selected[key] for key in values):
            return False
        if "on-disk" in states and not model.stored:
            return False
        return "fits" not in states or bool(model.stored or fitting(model.plans(engine)))


def pick_filter() -> ModelFilter:
    """Draw the search box and the filters, and return their settings."""
    rows = catalogue().values()
    options = {
        "family": list(dict.fromkeys(family(row.architecture) for row in rows)),
        "size": list(_SIZES),
        "licence": list(dict.fromkeys(row.licence for row in rows)),
        "access": ["open", "gated"],
        "state": ["on-disk", "fits"],
    }
    link_texts("search")
    for key in options:
        link_choices(key, options[key])
    search = st.text_input(
        "Search",
        type="search",
        key="search",
        persist_state="session",
        placeholder="Name, licence or architecture",
        label_visibility="collapsed",
        width="stretch",
    )
    selected = {"state": _pick("state", options.pop("state"), label="collapsed")}
    active = sum(len(st.session_state[key] or ()) for key in options)
    label = f"Filter ({active})" if active else "Filter"
    with st.popover(label, icon=":material/filter_list:", key="filter"):
        selected |= {key: _pick(key, options[key]) for key in options}
        action(
            "Show all",
            "filter_list_off",
            "show_all_models",
            *(set_widgets, {key: [] for key in selected} | {"search": ""}),
            disabled=not active and not search and not selected["state"],
        )
    return ModelFilter(search or "", selected)


def _pick(
    key: str, options: list[str], *, label: Literal["visible", "collapsed"] = "visible"
) -> list[str]:
    return st.pills(
        key.capitalize(),
        options,
        selection_mode="multi",
        format_func=lambda value: _LABELS.get(value, value),
        key=key,
        persist_state="session",
        label_visibility=label,
    )
