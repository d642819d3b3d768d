"""Which models the Models page lists: a search box and filters, all kept in the page's link."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import streamlit as st

from core.catalogue import CatalogueModel, catalogue
from core.ui.widgets.link import link_choices, link_texts
from core.ui.widgets.state import set_widgets

_FAMILIES = {"gpt_neox": "GPT-NeoX", "llama": "Llama", "mistral": "Mistral", "phi": "Phi"}
"""Architectures as people know them."""

_KEYS = ("family", "size", "licence", "state", "access")


class SizeClass(StrEnum):
    """Models by their number of parameters; the value is what stands in the link."""

    TINY = "tiny"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"

    @property
    def label(self) -> str:
        """Words for the control."""
        return {
            SizeClass.TINY: "under 1 B",
            SizeClass.SMALL: "1 to 4 B",
            SizeClass.MEDIUM: "4 to 10 B",
            SizeClass.LARGE: "over 10 B",
        }[self]

    @classmethod
    def of(cls, parameters: int) -> SizeClass:
        """The class of a model with so many parameters."""
        for size, limit in ((cls.TINY, 1e9), (cls.SMALL, 4e9), (cls.MEDIUM, 10e9)):
            if parameters < limit:
                return size
        return cls.LARGE


class State(StrEnum):
    """How a model stands to this machine."""

    ON_DISK = "on-disk"
    FITS = "fits"

    @property
    def label(self) -> str:
        """Words for the control."""
        return "On disk" if self is State.ON_DISK else "Fits this machine"


class Access(StrEnum):
    """Whether a licence must be accepted before the hub hands a model out."""

    OPEN = "open"
    GATED = "gated"

    @property
    def label(self) -> str:
        """Word for the control."""
        return self.value.capitalize()


@dataclass(frozen=True)
class Candidate:
    """What the filter looks at of one model; None where it is not known."""

    words: str
    """All that the search looks through."""
    architecture: str | None
    parameters: int | None
    licence: str | None
    gated: bool | None
    on_disk: bool
    fits: bool


@dataclass(frozen=True)
class ModelFilter:
    """What a person asked for; an empty choice takes everything."""

    search: str = ""
    families: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    access: tuple[str, ...] = ()

    def takes(self, model: Candidate) -> bool:
        """Whether the model is listed: every word is found and every filter met."""
        words = model.words.lower()
        if not all(word in words for word in self.search.lower().split()):
            return False
        size = SizeClass.of(model.parameters) if model.parameters else None
        gate = None if model.gated is None else Access.GATED if model.gated else Access.OPEN
        wanted = (
            (self.families, family(model.architecture or "")),
            (self.sizes, size),
            (self.licences, model.licence),
            (self.access, gate),
        )
        if any(asked and value not in asked for asked, value in wanted):
            return False
        has = {State.ON_DISK: model.on_disk, State.FITS: model.fits}
        return all(has[State(state)] for state in self.states)


def family(architecture: str) -> str:
    """The architecture as people know it."""
    return _FAMILIES.get(architecture, architecture)


def of_row(row: CatalogueModel, *, on_disk: bool, fits: bool) -> Candidate:
    """What the filter looks at of a catalogue row."""
    return Candidate(
        words=f"{row.key} {row.title} {row.licence} {row.architecture} "
        f"{family(row.architecture)} {row.hub_id or 'embedded'}",
        architecture=row.architecture,
        parameters=row.parameters,
        licence=row.licence,
        gated=row.gated,
        on_disk=on_disk,
        fits=fits,
    )


def pick_filter() -> ModelFilter:
    """Draw the search box and the filters, and return what was asked for."""
    rows = catalogue().values()
    options = {
        "family": list(dict.fromkeys(family(row.architecture) for row in rows)),
        "size": list(SizeClass),
        "licence": list(dict.fromkeys(row.licence for row in rows)),
        "state": list(State),
        "access": list(Access),
    }
    link_texts("search")
    for key in _KEYS:
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
    active = sum(len(st.session_state[key] or ()) for key in _KEYS)
    with st.popover(
        f"Filter ({active})" if active else "Filter", icon=":material/filter_list:", key="filter"
    ):
        chosen = {key: _pick(key, options[key]) for key in _KEYS}
        st.button(
            "Show all",
            icon=":material/filter_list_off:",
            type="tertiary",
            disabled=not active,
            on_click=_show_all,
        )
    return ModelFilter(
        search or "",
        chosen["family"],
        chosen["size"],
        chosen["licence"],
        chosen["state"],
        chosen["access"],
    )


def _pick(key: str, options: list[str]) -> tuple[str, ...]:
    chosen = st.pills(
        {"state": "Only what is", "access": "Access"}.get(key, key.capitalize()),
        options,
        selection_mode="multi",
        format_func=lambda value: getattr(value, "label", value),
        key=key,
        persist_state="session",
    )
    return tuple(str(value) for value in chosen)


def _show_all() -> None:
    set_widgets({key: [] for key in _KEYS} | {"search": ""})
