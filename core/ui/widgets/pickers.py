"""Which model, in which precision, on which device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import streamlit as st

from core.catalogue import Precision, catalogue
from core.catalogue.prompts import CHOOSABLE_FORMATS, prompt_format
from core.engine import find_stored
from core.errors import PaddockError, PersonMistake
from core.hardware.devices import AUTO, list_devices
from core.remotes import Directory, is_remote
from core.runtimes.spec import ANSWERING_RUNTIMES, ModelSpec, RuntimeName
from core.store import ModelStore
from core.ui.models.access import check_name, key_of
from core.ui.models.remote_models import draw_remote_state, follow_listings
from core.ui.widgets.link import link_choice, one_of, unlink
from core.ui.widgets.model_choices import (
    GET_A_REAL_ONE,
    Group,
    choices,
    first_model,
    is_heading,
    packaged_model,
    usual_precision,
)
from core.ui.widgets.person import Person, person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.start_button import to_download
from core.ui.widgets.state import settle
from core.units import bytes_text, parameters_text

PRECISION_HELP = (
    "How many bits each weight takes. **INT8** halves FP16's memory at nearly the same quality, "
    "**INT4** halves it again at some loss, **FP32** is the exact reference. **GGUF** keeps the "
    "weights of a GGUF file as they are stored."
)
MODEL_HELP = (
    "What is *on this machine* answers without a network. What is *to download* is fetched and "
    "converted first, and you are asked before. *Servers* run their models themselves. You can "
    "also type any Hugging Face id (`org/name`) or the path of a model folder."
)


_FIRST = ("", "left_")
"""Keys of the first picker of each page."""


def pick_model(
    store: ModelStore,
    *,
    key: str = "",
    default: str | None = None,
    precision_for: Callable[[str, Precision | None], Precision] | None = None,
    on_model_change: Callable[[], None] | None = None,
) -> ModelSpec:
    """Draw the pickers and return what was chosen.

    Args:
        store: knows what is on disk already.
        key: prefix of the widgets' keys, which are also the names in the page's link.
        default: the model that is chosen at first; by default :func:`first_model`.
        precision_for: of a model and a precision, the one that it is chosen in; by default
            :func:`usual_precision`.
        on_model_change: called when the person chose another model.
    """
    someone, engine = person(), shared_engine()
    model_key = f"{key}model"
    precision_of = precision_for or (lambda name, wanted: usual_precision(store, name, wanted))

    def read(text: str) -> str:
        if is_heading(text):
            raise ValueError(text)
        try:
            return key_of(store, text, someone)
        except PersonMistake as error:
            raise ValueError(text) from error

    before = _Before.of(model_key)
    if (sent := st.session_state.get(model_key)) in before.names:
        st.session_state[model_key] = before.names[sent]
    default = default or first_model()
    link_choice(model_key, default, read)
    found = choices(engine, someone, st.session_state[model_key])
    labels = {choice.name: choice.label for choice in found}
    options: list[str] = []
    for group in Group:
        if names := [choice.name for choice in found if choice.group is group]:
            labels[group.value_in_picker] = group.heading
            options += [group.value_in_picker, *names]
    now = st.session_state[model_key]
    if before.labels.get(now) != labels.get(now):
        st.session_state[model_key] = now  # let the browser show it by its label of now
    before.note(labels)

    def changed() -> None:
        sent: str | None = st.session_state[model_key]
        chosen = before.names.get(sent, sent) if sent else sent
        if chosen is None or is_heading(chosen):
            settle({model_key: before.model})
            return
        with suppress(PersonMistake):  # refused where it is drawn
            name = key_of(store, chosen, person())
            if name != sent:
                settle({model_key: name})
            if not is_remote(name):
                wanted = st.session_state.get(f"{key}precision")
                settle({f"{key}precision": precision_of(name, wanted)})
        if on_model_change is not None:
            on_model_change()

    model = st.selectbox(
        "Model",
        options,
        format_func=lambda name: labels.get(name, name),
        accept_new_options=someone.access.manage,
        key=model_key,
        persist_state="session",
        help=MODEL_HELP,
        on_change=changed,
    )
    if key in _FIRST:
        follow_listings(engine.remotes.directory)
    model = default if model is None or is_heading(model) else model
    before.model = model
    if is_remote(model):
        unlink(*(f"{key}{trait}" for trait in ("precision", "device", "runtime")))
        return _remote_spec(engine.remotes.directory, model)
    usual = precision_of(model, None)
    link_choice(
        f"{key}precision",
        usual,
        lambda text: Precision(text.lower()),
        unwritten=store.default_precision(model),
    )
    # Nobody needs FP32 of a few bits; the others have nothing to keep as stored.
    without = Precision.STORED
    if store.default_precision(model) is Precision.STORED:
        without = Precision.FP32
    offered = [each for each in Precision if each is usual or each is not without]
    if st.session_state[f"{key}precision"] not in offered:
        st.session_state[f"{key}precision"] = usual  # a link's, of another model
    precision = st.segmented_control(
        "Precision",
        offered,
        format_func=lambda value: "GGUF" if value is Precision.STORED else value.label,
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
    spec = ModelSpec(model, precision or usual, device or AUTO, _pick_runtime(f"{key}runtime"))
    _draw_state(store, spec, someone)
    row = catalogue().get(spec.model)
    if key in _FIRST and row is not None and row.embedded and packaged_model() is None:
        st.caption(GET_A_REAL_ONE)
    return spec


@dataclass
class _Before:
    """What a picker showed last; a plain object, so that a callback can change it.

    The browser names a choice by its label, which changes once the model is on disk. Then it sends
    one that is a choice no more.
    """

    model: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    """By the models' names."""
    names: dict[str, str] = field(default_factory=dict)
    """Of models, by all labels that they have had."""

    def note(self, labels: dict[str, str]) -> None:
        """Keep what is shown now."""
        self.labels = labels
        self.names |= {label: name for name, label in labels.items()}

    @classmethod
    def of(cls, key: str) -> _Before:
        """That of the picker of this key, in this session."""
        return st.session_state.setdefault(f"{key}_before", cls())


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
        stored = find_stored(store, spec)
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        return
    if stored is None and someone.access.kiosk:
        st.caption(":material/lock: Not on this machine in this precision.")
    elif stored is not None:
        size = bytes_text(stored.manifest.weight_bytes)
        what = f"{stored.label}, {size}" if stored.manifest.gguf else size
        st.caption(f":material/check_circle: On disk, {what} of weights.")
    elif not someone.access.manage and (row is None or not row.embedded):
        st.caption(":material/lock: Not on this machine yet; getting it takes the right to manage.")
    elif row is not None and row.embedded:
        st.caption(":material/bolt: Comes with Paddock; converted in a few seconds at first use.")
    elif (missing := to_download(shared_engine(), spec)) == 0:
        how = "Prepared" if spec.precision is Precision.STORED else "Converted"
        st.caption(f":material/bolt: {how} in a few seconds at first use.")
    else:
        parts = [f"{parameters_text(row.parameters)} parameters"] if row is not None else []
        parts += [f"{bytes_text(missing)} to download"] if missing else ["to download"]
        st.caption(f":material/download: {', '.join(parts)}.")
