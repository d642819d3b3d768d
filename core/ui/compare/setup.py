"""Controls of the Compare page: the models, the mode, and blind comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import streamlit as st

from core.catalogue import DEFAULT_PRECISION, Precision, catalogue
from core.compare.setup import LETTERS, MAX_SIDES, MIN_SIDES, Mode, Setup, default_mode
from core.errors import UserError
from core.hardware.devices import AUTO
from core.remotes import is_remote
from core.runtimes.spec import ANSWERING_RUNTIMES, ModelSpec
from core.store import ModelStore
from core.ui.widgets.link import link_choice, number_in, unlink
from core.ui.widgets.model_choices import PREFERRED, first_model, preferred_precision
from core.ui.widgets.pickers import TRAITS, PickedModel, pick_model
from core.ui.widgets.state import RESET, set_widgets

STYLE = Path(__file__).with_name("compare.css")
SIDE_BADGES = ("blue", "orange", "green", "violet")
"""Colour of each side's letter, as in the charts (``SIDE_COLOURS``)."""
KEYS = ("left_", "right_", "c_", "d_")
"""Key prefix of each side, in the session state and in the URL."""
_MODE_CHOSEN = "mode_chosen"
"""Set once the user or a link has selected the mode; until then it depends on the devices."""


def pick_sides(store: ModelStore, hidden: Setup | None = None) -> tuple[PickedModel, ...]:
    """Draw the controls of two to four sides, two in a line, and return the configurations.

    Args:
        hidden: a blind comparison; its sides are returned, and nothing is drawn that names them.
    """
    if hidden is not None:
        return _keep_sides(hidden)
    link_choice("sides", MIN_SIDES, number_in(MIN_SIDES, MAX_SIDES))
    count: int = st.session_state["sides"]
    _remove_from_url(KEYS[count:])
    sides: list[PickedModel] = []
    for index in range(count):
        if index % 2 == 0:
            columns = st.columns(2, gap="small")
        with columns[index % 2].container(
            horizontal=True, vertical_alignment="center", gap="xsmall", key=_side_key(index)
        ):
            letter, others = LETTERS[index], tuple(side.spec for side in sides)
            st.badge(letter, color=SIDE_BADGES[index])
            sides.append(
                pick_model(
                    store,
                    key=KEYS[index],
                    default=next_side(store, others).model,
                    precision_for=lambda model, wanted, others=others: unused(
                        store, model, others, wanted
                    ),
                    on_model_change=lambda index=index: _make_different(store, index),
                    row=letter,
                )
            )
            if count > MIN_SIDES:
                st.button(
                    f"Remove {letter}",
                    icon=":material/close:",
                    type="tertiary",
                    key=f"icon_remove_{index}",
                    on_click=_remove,
                    args=(index,),
                    help=f"Remove {letter}",
                )
    return tuple(sides)


def _keep_sides(setup: Setup) -> tuple[PickedModel, ...]:
    """Return the sides of a blind comparison, whose controls and link would tell the names.

    Sorted, because the defaults of the sampling settings are those of the first one.
    """
    sides = sorted(
        map(PickedModel, setup.sides, setup.formats, setup.speculation),
        key=lambda side: side.spec.label,
    )
    for key, side in zip(KEYS, sides, strict=False):
        spec, guesses = side.spec, side.speculation
        chosen = (
            spec.model,
            spec.precision,
            spec.device,
            spec.runtime,
            side.prompt_format,
            guesses.mode,
            guesses.tokens,
            guesses.ngram,
        )
        for trait, value in zip(TRAITS, chosen, strict=True):
            st.session_state.setdefault(f"{key}{trait}", value)  # missing after a reload
            unlink(f"{key}{trait}")
    st.caption(":material/visibility_off: The names are shown after the last vote.")
    return tuple(sides)


def draw_side_buttons(store: ModelStore, sides: Sequence[ModelSpec]) -> None:
    """Draw the buttons that add a side and change the order of the sides."""
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
        key="icon_swap",
        on_click=_rotate,
        help="Swap the sides. With more than two, each moves one place to the left.",
    )


def pick_mode(sides: Sequence[ModelSpec]) -> Mode:
    """Draw the choice between fair and race."""
    default = default_mode(sides)
    if "mode" in st.query_params:
        st.session_state[_MODE_CHOSEN] = True
    if not st.session_state.get(_MODE_CHOSEN) and st.session_state.get("mode") is not default:
        # Only set when it changes: setting it would undo a click that is still on its way.
        st.session_state["mode"] = default
    link_choice("mode", default, Mode)
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
    return mode or default


def pick_blind() -> bool:
    """Draw the switch for blind comparison."""
    link_choice("blind", False, lambda text: text.lower() == "true")
    return st.toggle(
        "Blind",
        key="blind",
        persist_state="session",
        help="Shuffle the sides and hide names and figures until you have voted.",
    )


def next_side(store: ModelStore, others: Sequence[ModelSpec]) -> ModelSpec:
    """Return a model for a new side that is not among ``others``.

    The model of the Instruct page comes first, then the tiny demo models, which can run at once.
    """
    first = st.session_state.get("model") or first_model()
    if not is_remote(first) and first not in {spec.model for spec in others}:
        return ModelSpec(first, preferred_precision(store, first))
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
    """Return a precision in which a model is not among ``others``, preferably one on disk."""
    taken = {spec.precision for spec in others if spec.model == model}
    preferred = preferred_precision(store, model, wanted)
    if preferred not in taken:
        return preferred
    possible = [each for each in PREFERRED if preferred_precision(store, model, each) is each]
    return next(each for each in (*possible, *PREFERRED) if each not in taken)


def _side_key(index: int) -> str:
    return f"side_{LETTERS[index].lower()}"


# Callbacks


def _add(store: ModelStore, sides: Sequence[ModelSpec]) -> None:
    new = next_side(store, sides)
    _put(len(sides), {trait: getattr(new, trait, None) for trait in TRAITS})
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
    """If another side has the same configuration, select another precision for this one."""
    count = st.session_state["sides"]
    mine = _chosen(index)
    others = [_chosen(place) for place in range(count) if place != index]
    if mine in others:
        set_widgets({f"{KEYS[index]}precision": unused(store, mine.model, others)})


def _values(place: int) -> dict[str, Any]:
    return {trait: st.session_state.get(f"{KEYS[place]}{trait}") for trait in TRAITS}


def _chosen(place: int) -> ModelSpec:
    values = _values(place)
    model = values["model"] or first_model()
    if is_remote(model):
        with suppress(UserError):  # typed by the user; reported when the side is drawn
            return ModelSpec.of_remote(model)
    return ModelSpec(
        model,
        values["precision"] or DEFAULT_PRECISION,
        values["device"] or AUTO,
        values["runtime"] or ANSWERING_RUNTIMES[0],
    )


def _put(place: int, values: Mapping[str, Any]) -> None:
    set_widgets(
        {
            f"{KEYS[place]}{trait}": RESET if values[trait] is None else values[trait]
            for trait in TRAITS
        }
    )


def _remove_from_url(keys: Sequence[str]) -> None:
    """Remove the settings of removed sides from the URL."""
    for key in keys:
        for trait in TRAITS:
            st.query_params.pop(f"{key}{trait}", None)
