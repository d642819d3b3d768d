"""Which models stand side by side, and how they share the machine: the controls of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core.catalogue import DEFAULT_PRECISION, Precision, catalogue
from core.compare.setup import LETTERS, MAX_SIDES, MIN_SIDES, Mode, default_mode
from core.errors import PersonMistake
from core.hardware.devices import AUTO
from core.remotes import is_remote
from core.runtimes.spec import ANSWERING_RUNTIMES, ModelSpec
from core.store import ModelStore
from core.ui.widgets.link import link_choice, number_in
from core.ui.widgets.model_choices import PREFERRED, first_model, usual_precision
from core.ui.widgets.pickers import pick_model, pick_prompt_format
from core.ui.widgets.state import ANEW, settle

KEYS = ("left_", "right_", "c_", "d_")
"""Prefixes of each side's keys, in the session and in the link."""
_TRAITS = ("model", "precision", "device", "runtime", "format")
_MODE_CHOSEN = "mode_chosen"
"""Set once the person, or a link, chose between fair and race; else it follows the devices."""


@dataclass(frozen=True)
class Side:
    """What was chosen for one column."""

    spec: ModelSpec
    prompt_format: str | None
    """None takes the model's own."""


def pick_sides(store: ModelStore) -> tuple[Side, ...]:
    """Draw two to four columns of pickers and return what was chosen."""
    link_choice("sides", MIN_SIDES, number_in(MIN_SIDES, MAX_SIDES))
    count: int = st.session_state["sides"]
    _forget_links(KEYS[count:])
    sides: list[Side] = []
    for index, column in enumerate(st.columns(count, gap="small")):
        with column.container(border=True, height="stretch", key=_side_key(index)):
            _draw_heading(index, count)
            others = tuple(side.spec for side in sides)
            spec = pick_model(
                store,
                key=KEYS[index],
                default=next_side(store, others).model,
                precision_for=lambda model, wanted, others=others: unused(
                    store, model, others, wanted
                ),
                on_model_change=lambda index=index: _make_different(store, index),
            )
            sides.append(Side(spec, pick_prompt_format(spec, key=KEYS[index])))
    return tuple(sides)


def draw_side_buttons(store: ModelStore, sides: Sequence[ModelSpec]) -> None:
    """Buttons that change how many sides there are, and their order."""
    st.button(
        "Add a model",
        icon=":material/add:",
        type="tertiary",
        disabled=len(sides) == MAX_SIDES,
        on_click=_add,
        args=(store, sides),
        help=f"Up to {MAX_SIDES} side by side.",
    )
    st.button(
        "Swap",
        icon=":material/swap_horiz:",
        type="tertiary",
        on_click=_rotate,
        help="Change sides. With more than two, each moves one to the left.",
    )


def pick_mode(sides: Sequence[ModelSpec]) -> Mode:
    """Draw the choice between fair and race."""
    usual = default_mode(sides)
    if "mode" in st.query_params:
        st.session_state[_MODE_CHOSEN] = True
    if not st.session_state.get(_MODE_CHOSEN) and st.session_state.get("mode") is not usual:
        st.session_state["mode"] = usual  # never in vain: it would undo a click on its way here
    link_choice("mode", usual, Mode)
    mode = st.segmented_control(
        "How they run",
        list(Mode),
        format_func=lambda value: value.label,
        required=True,
        key="mode",
        persist_state="session",
        on_change=lambda: st.session_state.update({_MODE_CHOSEN: True}),
        label_visibility="collapsed",
    )
    return mode or usual


def pick_blind() -> bool:
    """Draw the switch for judging blind."""
    link_choice("blind", False, lambda text: text.lower() == "true")
    return st.toggle(
        "Blind",
        key="blind",
        persist_state="session",
        help="Shuffles the sides and hides names and figures until you have voted.",
    )


def next_side(store: ModelStore, others: Sequence[ModelSpec]) -> ModelSpec:
    """A model to stand beside these, which can answer at once: the one that pages open with, or an
    embedded one, that is not among them."""
    first = first_model()
    if first not in {spec.model for spec in others}:
        return ModelSpec(first, usual_precision(store, first))
    embedded = [key for key, row in catalogue().items() if row.embedded]
    taken = {(spec.model, spec.precision) for spec in others}
    return next(
        ModelSpec(model, precision)
        for precision in PREFERRED
        for model in embedded
        if (model, precision) not in taken
    )


def unused(
    store: ModelStore,
    model: str,
    others: Sequence[ModelSpec],
    wanted: Precision | None = None,
) -> Precision:
    """The first precision in which a model is not among these, one that is on disk if any is."""
    taken = {spec.precision for spec in others if spec.model == model}
    usual = usual_precision(store, model, wanted)
    possible = [each for each in PREFERRED if usual_precision(store, model, each) is each]
    return next(each for each in (usual, *possible, *PREFERRED) if each not in taken)


def _side_key(index: int) -> str:
    return f"side_{LETTERS[index].lower()}"


def _draw_heading(index: int, count: int) -> None:
    with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
        st.markdown(f"**{LETTERS[index]}**", width="stretch")
        if count > MIN_SIDES:
            st.button(
                f"Remove {LETTERS[index]}",
                icon=":material/close:",
                type="tertiary",
                key=f"remove_{index}",
                on_click=_remove,
                args=(index,),
            )


# Callbacks


def _add(store: ModelStore, sides: Sequence[ModelSpec]) -> None:
    new = next_side(store, sides)
    _put(len(sides), {trait: getattr(new, trait, None) for trait in _TRAITS})
    st.session_state["sides"] = len(sides) + 1


def _remove(index: int) -> None:
    count = st.session_state["sides"]
    for place in range(index, count - 1):
        _put(place, _values(place + 1))
    st.session_state["sides"] = count - 1


def _rotate() -> None:
    chosen = [_values(place) for place in range(st.session_state["sides"])]
    for place, values in enumerate([*chosen[1:], chosen[0]]):
        _put(place, values)


def _make_different(store: ModelStore, index: int) -> None:
    """What another side is already is taken in another precision."""
    count = st.session_state["sides"]
    mine = _chosen(index)
    others = [_chosen(place) for place in range(count) if place != index]
    if mine in others:
        settle({f"{KEYS[index]}precision": unused(store, mine.model, others)})


def _values(place: int) -> dict[str, Any]:
    return {trait: st.session_state.get(f"{KEYS[place]}{trait}") for trait in _TRAITS}


def _chosen(place: int) -> ModelSpec:
    values = _values(place)
    model = values["model"] or first_model()
    if is_remote(model):
        with suppress(PersonMistake):  # typed by hand, and said to be none where it is drawn
            return ModelSpec.of_remote(model)
    return ModelSpec(
        model,
        values["precision"] or DEFAULT_PRECISION,
        values["device"] or AUTO,
        values["runtime"] or ANSWERING_RUNTIMES[0],
    )


def _put(place: int, values: Mapping[str, Any]) -> None:
    settle(
        {
            f"{KEYS[place]}{trait}": ANEW if values[trait] is None else values[trait]
            for trait in _TRAITS
        }
    )


def _forget_links(keys: Sequence[str]) -> None:
    """Sides that are gone leave the link."""
    for key in keys:
        for trait in _TRAITS:
            st.query_params.pop(f"{key}{trait}", None)
