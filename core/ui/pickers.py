"""Which model, in which precision, on which device."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from core.catalogue import DEFAULT_PRECISION, Precision, catalogue
from core.catalogue.prompts import CHOOSABLE_FORMATS, prompt_format
from core.devices import AUTO, list_devices
from core.errors import PaddockError, PersonMistake
from core.remotes import Directory, is_remote
from core.runtimes.spec import ANSWERING_RUNTIMES, ModelSpec, RuntimeName
from core.store import ModelStore
from core.ui.cached import shared_engine
from core.ui.link import link_choice, one_of, unlink
from core.ui.model_access import check_name, may_name, names_on_disk
from core.ui.person import Person, person
from core.ui.remote_models import (
    draw_remote_state,
    follow_listings,
    remote_label,
    remote_models,
)
from core.ui.safe_text import safe_inline
from core.units import bytes_text, parameters_text

PRECISION_HELP = (
    "How many bits each weight takes. **INT8** halves FP16's memory at nearly the same quality, "
    "**INT4** halves it again at some loss, **FP32** is the exact reference."
)
MODEL_HELP = (
    "The two embedded models answer at once, without a network. The others are fetched and "
    "converted when you first use them. Those *on* a server run there. You can also "
    "type any Hugging Face id (`org/name`) or the path of a model folder."
)


_FIRST = ("", "left_")
"""Keys of the first picker of each page."""


def pick_model(
    store: ModelStore,
    *,
    key: str = "",
    default: str | None = None,
    precision_for: Callable[[str], Precision] = lambda model: DEFAULT_PRECISION,
    on_model_change: Callable[[], None] | None = None,
) -> ModelSpec:
    """Draw the pickers and return what was chosen.

    Args:
        store: knows what is on disk already.
        key: prefix of the widgets' keys, which are also the names in the page's link.
        default: the model that is chosen at first; by default the catalogue's first.
        precision_for: the precision that a model is chosen in at first.
        on_model_change: called when the person chose another model.
    """
    rows, someone = catalogue(), person()

    def named(text: str) -> str:
        if not may_name(store, text, someone):
            raise ValueError(text)
        return text

    link_choice(f"{key}model", default or next(iter(rows)), named)
    directory = shared_engine().remotes.directory
    names = [*rows, *remote_models(directory, st.session_state[f"{key}model"])]
    if not someone.access.manage:
        names += names_on_disk(store)
    model = st.selectbox(
        "Model",
        names,
        format_func=lambda name: rows[name].title if name in rows else remote_label(name),
        accept_new_options=someone.access.manage,
        key=f"{key}model",
        persist_state="session",
        help=MODEL_HELP,
        on_change=on_model_change,
    )
    if key in _FIRST:
        follow_listings(directory)
    model = model or next(iter(rows))
    if is_remote(model):
        unlink(*(f"{key}{trait}" for trait in ("precision", "device", "runtime")))
        return _remote_spec(directory, model)
    link_choice(f"{key}precision", precision_for(model), lambda text: Precision(text.lower()))
    precision = st.segmented_control(
        "Precision",
        [Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4],
        format_func=lambda value: value.label,
        required=True,
        width="stretch",
        key=f"{key}precision",
        persist_state="session",
        help=PRECISION_HELP,
    )
    names = {device.id: device.full_name for device in list_devices()}
    devices = [AUTO, *(name for name in names if name != AUTO)]
    link_choice(f"{key}device", AUTO, one_of(devices))
    device = st.selectbox(
        "Device",
        devices,
        format_func=lambda name: f"{name} — {names[name]}",
        key=f"{key}device",
        persist_state="session",
        help="Where the model runs: the devices OpenVINO finds here. AUTO lets OpenVINO choose.",
    )
    spec = ModelSpec(
        model, precision or DEFAULT_PRECISION, device or AUTO, _pick_runtime(f"{key}runtime")
    )
    _draw_state(store, spec, someone)
    return spec


def _remote_spec(directory: Directory, model: str) -> ModelSpec:
    """A remote's model, its state drawn; a name that means none ends the script with a sentence."""
    try:
        spec = ModelSpec.of_remote(model)
    except PersonMistake as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        st.stop()
    draw_remote_state(directory, spec)
    return spec


def pick_prompt_format(spec: ModelSpec, *, key: str = "") -> str | None:
    """For a model without a row, let the person choose a prompt format; None takes its own.

    Args:
        key: prefix of the widget's key, which is also its name in the page's link.
    """
    if spec.remote or spec.model in catalogue():
        unlink(f"{key}format")
        return None
    link_choice(f"{key}format", None, one_of(list(CHOOSABLE_FORMATS)))
    return st.selectbox(
        "Prompt format",
        CHOOSABLE_FORMATS,
        index=None,
        placeholder="The model's own chat template",
        format_func=lambda name: prompt_format(name).title,
        key=f"{key}format",
        persist_state="session",
        help="How the instruction is put to the model. Choose one if the model has no template.",
    )


def _pick_runtime(key: str) -> RuntimeName:
    """Let the person choose where there is a choice."""
    usual = ANSWERING_RUNTIMES[0]
    if len(ANSWERING_RUNTIMES) == 1:
        return usual
    link_choice(key, usual, ANSWERING_RUNTIMES)
    chosen = st.segmented_control(
        "Runtime",
        ANSWERING_RUNTIMES,
        format_func=lambda value: value.short_name,
        required=True,
        width="stretch",
        key=key,
        persist_state="session",
        help="The library that runs the model on OpenVINO. **GenAI** is the faster one and answers "
        "several people at once; **Optimum** gives one answer at a time.",
    )
    return chosen or usual


def _draw_state(store: ModelStore, spec: ModelSpec, someone: Person) -> None:
    """One line: is it here already, and how big is it."""
    row = catalogue().get(spec.model)
    try:
        check_name(store, spec.model, someone)
        stored = store.get(store.resolve(spec.model), spec.precision)
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        return
    if stored is not None:
        size = bytes_text(stored.manifest.weight_bytes)
        st.caption(f":material/check_circle: On disk, {size} of weights.")
    elif not someone.access.manage and (row is None or not row.embedded):
        st.caption(":material/lock: Not on this machine yet; getting it takes the right to manage.")
    elif row is not None and row.embedded:
        st.caption(":material/bolt: Comes with Paddock; converted in a few seconds at first use.")
    elif row is not None:
        st.caption(
            f":material/download: {parameters_text(row.parameters)} parameters; fetched from the "
            "hub and converted at first use."
        )
    else:
        st.caption(":material/download: Fetched where needed and converted at first use.")
