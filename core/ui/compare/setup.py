"""Controls of the Compare page: the models, the mode, and blind comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
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
from core.ui.widgets.actions import action
from core.ui.widgets.link import is_true, link_choice, number_in, unlink
from core.ui.widgets.model_choices import PREFERRED, first_model, preferred_precision
from core.ui.widgets.pickers import TRAITS, PickedModel, pick_model
from core.ui.widgets.state import RESET, set_widgets

STYLE = Path(__file__).with_name("compare.css")
SIDE_BADGES = ("blue", "orange", "green", "violet", "red", "yellow", "gray", "primary")
"""Colour of each side's letter, the first four as in the charts (``SIDE_COLOURS``)."""
KEYS = ("left_", "right_", "c_", "d_")
"""Key prefix of each side, in the session state and in the URL."""
_MODE_CHOSEN = "mode_chosen"
"""Set once the user or a link has selected the mode; until then it depends on the devices."""


def pick_sides(store: ModelStore, hidden: Setup | None = None) -> list[PickedModel]:
    """Draw the controls of two to four sides, and return the configurations.

    Args:
        hidden: a blind comparison; its sides are returned, and nothing is drawn that names them.
    """
    if hidden is not None:
        return _keep_sides(hidden)
    link_choice("sides", MIN_SIDES, number_in(MIN_SIDES, MAX_SIDES))
    count: int = st.session_state["sides"]
    unlink(*(f"{key}{trait}" for key in KEYS[count:] for trait in TRAITS))

    def draw_remove(index: int, _: PickedModel) -> None:
        if count > MIN_SIDES:
            label = f"Remove {LETTERS[index]}"
            action(label, "close", f"icon_remove_{index}", _remove, index, help=label)

    return pick_models(
        store,
        KEYS[:count],
        "side",
        lambda others: next_side(store, others).model,
        draw_remove,
        lambda index: _make_different(store, index),
    )


def pick_models(
    store: ModelStore,
    keys: Sequence[str],
    box: str,
    default: Callable[[Sequence[ModelSpec]], str],
    draw_more: Callable[[int, PickedModel], None],
    on_model_change: Callable[[int], None] | None = None,
) -> list[PickedModel]:
    """Draw the controls of several models, two in a line, and return the configurations.

    Args:
        keys: prefixes of the widget keys.
        box: beginning of the keys of the boxes.
        default: returns the model that is selected at first, given the earlier ones.
        draw_more: draws what is beside the controls.
        on_model_change: called with the index when the user selected another model.
    """
    found: list[PickedModel] = []
    for index, key in enumerate(keys):
        if index % 2 == 0:
            columns = st.columns(2, gap="small")
        letter, others = LETTERS[index], tuple(each.spec for each in found)
        with columns[index % 2].container(
            horizontal=True,
            vertical_alignment="center",
            gap="xsmall",
            key=f"{box}_{letter.lower()}",
        ):
            st.badge(letter, color=SIDE_BADGES[index])
            picked = pick_model(
                store,
                key=key,
                default=default(others),
                precision_for=lambda model, wanted, others=others: unused(
                    store, model, others, wanted
                ),
                on_model_change=on_model_change and partial(on_model_change, index),
                row=letter,
            )
            found.append(picked)
            draw_more(index, picked)
    return found


def _keep_sides(setup: Setup) -> list[PickedModel]:
    """Return the sides of a blind comparison, whose controls and link would tell the names.

    Sorted, because the defaults of the sampling settings are those of the first one.
    """
    sides = sorted(
        map(PickedModel, setup.sides, setup.formats, setup.speculation),
        key=lambda side: side.spec.label,
    )
    for key, side in zip(KEYS, sides, strict=False):
        spec, guesses = side.spec, side.speculation
        chosen = [spec.model, spec.precision, spec.device, spec.runtime, side.prompt_format]
        chosen += [guesses.mode, guesses.tokens, guesses.ngram]
        for trait, value in zip(TRAITS, chosen, strict=True):
            st.session_state.setdefault(f"{key}{trait}", value)  # missing after a reload
            unlink(f"{key}{trait}")
    st.caption(":material/visibility_off: The names are shown after the last vote.")
    return sides


def draw_side_buttons(store: ModelStore, sides: Sequence[ModelSpec]) -> None:
    """Draw the buttons that add a side and change the order of the sides."""
    action(
        "Add a model",
        "add",
        "add_side",
        *(_add, store, sides),
        disabled=len(sides) == MAX_SIDES,
        help=f"Up to {MAX_SIDES} side by side.",
    )
    help_text = "Swap the sides. With more than two, each moves one place to the left."
    action("Swap", "swap_horiz", "icon_swap", _rotate, help=help_text)


def pick_mode(sides: Sequence[ModelSpec]) -> Mode:
    """Draw the choice between fair and race."""
    default = default_mode(sides)
    if "mode" in st.query_params:
        st.session_state[_MODE_CHOSEN] = True
    if not st.session_state.get(_MODE_CHOSEN) and st.session_state.get("mode") is not default:
        # Only set when it changes: setting it would undo a click that is still on its way.
        st.session_state["mode"] = default
    mode = st.segmented_control(
        "How they run",
        list(Mode),
        format_func=lambda value: value.label,
        required=True,
        on_change=lambda: st.session_state.update({_MODE_CHOSEN: True}),
        label_visibility="collapsed",
        **link_choice("mode", default, Mode),
    )
    return mode or default


def pick_blind() -> bool:
    """Draw the switch for blind comparison."""
    return st.toggle(
        "Blind",
        help="Shuffle the sides and hide names and figures until you have voted.",
        **link_choice("blind", False, is_true),
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
    store: ModelStore, model: str, others: Sequence[ModelSpec], wanted: Precision | None = None
) -> Precision:
    """Return a precision in which a model is not among ``others``, preferably one on disk."""
    taken = {spec.precision for spec in others if spec.model == model}
    preferred = preferred_precision(store, model, wanted)
    if preferred not in taken:
        return preferred
    possible = [each for each in PREFERRED if preferred_precision(store, model, each) is each]
    return next(each for each in (*possible, *PREFERRED) if each not in taken)


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
