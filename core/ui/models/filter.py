"""Search and filters of the Models page; they are stored in the page's URL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import streamlit as st

from core.catalogue import CatalogueModel, catalogue
from core.ui.widgets.link import link_choices, link_texts
from core.ui.widgets.state import set_widgets

_FAMILIES = {"gpt_neox": "GPT-NeoX", "llama": "Llama", "mistral": "Mistral", "phi": "Phi"}
"""Display names of architectures."""

_KEYS = ("family", "size", "licence", "state", "access")


class SizeClass(StrEnum):
    """Size classes by number of parameters; the values are used in links."""

    TINY = "tiny"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"

    @property
    def label(self) -> str:
        """Label of the option."""
        return {
            SizeClass.TINY: "under 1 B",
            SizeClass.SMALL: "1 to 4 B",
            SizeClass.MEDIUM: "4 to 10 B",
            SizeClass.LARGE: "over 10 B",
        }[self]

    @classmethod
    def of(cls, parameters: int) -> SizeClass:
        """Return the class for a number of parameters."""
        for size, limit in ((cls.TINY, 1e9), (cls.SMALL, 4e9), (cls.MEDIUM, 10e9)):
            if parameters < limit:
                return size
        return cls.LARGE


class State(StrEnum):
    """Availability of a model on this machine."""

    ON_DISK = "on-disk"
    FITS = "fits"

    @property
    def label(self) -> str:
        """Label of the option."""
        return "On disk" if self is State.ON_DISK else "Fits this machine"


class Access(StrEnum):
    """Whether a licence must be accepted on the Hugging Face Hub before the download."""

    OPEN = "open"
    GATED = "gated"

    @property
    def label(self) -> str:
        """Label of the option."""
        return self.value.capitalize()


@dataclass(frozen=True)
class Candidate:
    """Properties of a model used by the filter; None if unknown."""

    words: str
    """Text to search in."""
    architecture: str | None
    parameters: int | None
    licence: str | None
    gated: bool | None
    on_disk: bool
    fits: bool


@dataclass(frozen=True)
class ModelFilter:
    """Filter settings; an empty selection matches everything."""

    search: str = ""
    families: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    access: tuple[str, ...] = ()

    def matches(self, model: Candidate) -> bool:
        """Return whether a model contains every search word and matches every filter."""
        words = model.words.lower()
        if not all(word in words for word in self.search.lower().split()):
            return False
        size = SizeClass.of(model.parameters) if model.parameters else None
        gate = None if model.gated is None else Access.GATED if model.gated else Access.OPEN
        filters = (
            (self.families, family(model.architecture or "")),
            (self.sizes, size),
            (self.licences, model.licence),
            (self.access, gate),
        )
        if any(selected and value not in selected for selected, value in filters):
            return False
        states = {State.ON_DISK: model.on_disk, State.FITS: model.fits}
        return all(states[State(state)] for state in self.states)


def family(architecture: str) -> str:
    """Return the display name of an architecture."""
    return _FAMILIES.get(architecture, architecture)


def of_row(row: CatalogueModel, *, on_disk: bool, fits: bool) -> Candidate:
    """Return the filter properties of a catalogue model."""
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
    """Draw the search box and the filters, and return their settings."""
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
        key.capitalize(),
        options,
        selection_mode="multi",
        format_func=lambda value: getattr(value, "label", value),
        key=key,
        persist_state="session",
    )
    return tuple(str(value) for value in chosen)


def _show_all() -> None:
    set_widgets({key: [] for key in _KEYS} | {"search": ""})
