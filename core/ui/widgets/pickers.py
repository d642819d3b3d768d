"""Controls for model, precision, device, runtime and prompt format."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import streamlit as st

from core.catalogue import Precision, catalogue
from core.catalogue.prompts import CHOOSABLE_FORMATS, prompt_format
from core.errors import PaddockError, UserError
from core.hardware.devices import AUTO, list_devices
from core.inference.engine import find_stored
from core.remotes import Directory, is_remote
from core.runtimes.spec import ANSWERING_RUNTIMES, ModelSpec, RuntimeName
from core.store import ModelStore
from core.ui.models.access import check_name, key_of
from core.ui.models.remote_models import draw_remote_state, follow_listings
from core.ui.widgets.link import link_choice, one_of, unlink
from core.ui.widgets.model_choices import (
    INSTALL_MODELS_HINT,
    Group,
    choices,
    first_model,
    is_heading,
    packaged_model,
    preferred_precision,
)
from core.ui.widgets.person import Person, person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.start_button import to_download
from core.ui.widgets.state import set_widgets
from core.units import bytes_text, parameters_text

PRECISION_HELP = (
    "Number format of the weights. **INT8** needs half the memory of FP16 at nearly the same "
    "quality, **INT4** half of that at some loss of quality, **FP32** is the reference. **GGUF** "
    "keeps the weights of a GGUF file as stored."
)
MODEL_HELP = (
    "Models *on this machine* run without a network. Models *to download* are downloaded and "
    "converted first, after you confirm. *Servers* run their models remotely. You can also enter "
    "a Hugging Face model id (`org/name`) or the path of a model folder."
)


_FIRST_SELECTOR = ("", "left_")
"""Key prefixes of the first model selector of each page."""


def pick_model(
    store: ModelStore,
    *,
    key: str = "",
    default: str | None = None,
    precision_for: Callable[[str, Precision | None], Precision] | None = None,
    on_model_change: Callable[[], None] | None = None,
) -> ModelSpec:
    """Draw the controls and return the selected configuration.

    Args:
        store: the converted models on disk.
        key: prefix of the widget keys, which are also the names of the URL parameters.
        default: model that is selected at first; by default :func:`first_model`.
        precision_for: returns the precision to select for a model, given the previous precision; by
            default :func:`preferred_precision`.
        on_model_change: called when the user selected another model.
    """
    someone, engine = person(), shared_engine()
    model_key = f"{key}model"
    precision_of = precision_for or (lambda name, wanted: preferred_precision(store, name, wanted))

    def read(text: str) -> str:
        if is_heading(text):
            raise ValueError(text)
        try:
            return key_of(store, text, someone)
        except UserError as error:
            raise ValueError(text) from error

    before = _LastDrawn.of(model_key)
    if (sent := st.session_state.get(model_key)) in before.names:
        st.session_state[model_key] = before.names[sent]
    default = default or first_model()
    link_choice(model_key, default, read)
    found = choices(engine, someone, st.session_state[model_key])
    labels = {choice.name: choice.label for choice in found}
    options: list[str] = []
    for group in Group:
        if names := [choice.name for choice in found if choice.group is group]:
            labels[group.heading_value] = group.heading
            options += [group.heading_value, *names]
    now = st.session_state[model_key]
    if before.labels.get(now) != labels.get(now):
        st.session_state[model_key] = now  # makes the browser show the new label
    before.note(labels)

    def changed() -> None:
        sent: str | None = st.session_state[model_key]
        chosen = before.names.get(sent, sent) if sent else sent
        if chosen is None or is_heading(chosen):
            set_widgets({model_key: before.model})
            return
        with suppress(UserError):  # reported when the model is drawn
            name = key_of(store, chosen, person())
            if name != sent:
                set_widgets({model_key: name})
            if not is_remote(name):
                wanted = st.session_state.get(f"{key}precision")
                set_widgets({f"{key}precision": precision_of(name, wanted)})
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
    if key in _FIRST_SELECTOR:
        follow_listings(engine.remotes.directory)
    model = default if model is None or is_heading(model) else model
    before.model = model
    if is_remote(model):
        unlink(*(f"{key}{trait}" for trait in ("precision", "device", "runtime")))
        return _remote_spec(engine.remotes.directory, model)
    initial = precision_of(model, None)
    link_choice(
        f"{key}precision",
        initial,
        lambda text: Precision(text.lower()),
        unwritten=store.default_precision(model),
    )
    # FP32 makes no sense for quantised GGUF weights, and only those can be kept as stored.
    hidden = Precision.STORED
    if store.default_precision(model) is Precision.STORED:
        hidden = Precision.FP32
    offered = [each for each in Precision if each is initial or each is not hidden]
    if st.session_state[f"{key}precision"] not in offered:
        st.session_state[f"{key}precision"] = initial  # the URL had one for another model
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
        help="Device on which the model runs. AUTO lets OpenVINO choose one.",
    )
    spec = ModelSpec(model, precision or initial, device or AUTO, _pick_runtime(f"{key}runtime"))
    _draw_state(store, spec, someone)
    row = catalogue().get(spec.model)
    if key in _FIRST_SELECTOR and row is not None and row.embedded and packaged_model() is None:
        st.caption(INSTALL_MODELS_HINT)
    return spec


@dataclass
class _LastDrawn:
    """What a model selector showed last; a plain object, so that a callback can change it.

    The browser identifies an option by its label, which changes once the model is on disk. It may
    then send a label that is no option any more.
    """

    model: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    """Current labels by model name."""
    names: dict[str, str] = field(default_factory=dict)
    """Model names by every label that they have had."""

    def note(self, labels: dict[str, str]) -> None:
        """Record the labels that are drawn now."""
        self.labels = labels
        self.names |= {label: name for name, label in labels.items()}

    @classmethod
    def of(cls, key: str) -> _LastDrawn:
        """Return that of the selector with this key in this session."""
        return st.session_state.setdefault(f"{key}_before", cls())


def _remote_spec(directory: Directory, model: str) -> ModelSpec:
    """Return the spec of a remote model and draw its state; stop the script at an invalid name."""
    try:
        spec = ModelSpec.of_remote(model)
    except UserError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        st.stop()
    draw_remote_state(directory, spec)
    return spec


def pick_prompt_format(spec: ModelSpec, *, key: str = "") -> str | None:
    """Draw the prompt format of a local model that is not in the catalogue.

    Args:
        key: prefix of the widget key, which is also the name of the URL parameter.

    Returns:
        The selected format; None for the model's own chat template.
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
        help="Template that turns the instruction into a prompt. Choose one if the model has no "
        "chat template.",
    )


def _pick_runtime(key: str) -> RuntimeName:
    """Draw the runtime control if there is more than one runtime."""
    default = ANSWERING_RUNTIMES[0]
    if len(ANSWERING_RUNTIMES) == 1:
        return default
    link_choice(key, default, ANSWERING_RUNTIMES)
    chosen = st.segmented_control(
        "Runtime",
        ANSWERING_RUNTIMES,
        format_func=lambda value: value.short_name,
        required=True,
        width="stretch",
        key=key,
        persist_state="session",
        help="Library that runs the model on OpenVINO. **GenAI** is faster and serves several "
        "users at once; **Optimum** generates one answer at a time.",
    )
    return chosen or default


def _draw_state(store: ModelStore, spec: ModelSpec, someone: Person) -> None:
    """Draw one line that says whether the model is on disk, and its size."""
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
        st.caption(":material/lock: Not on this machine. Requires the Manage permission.")
    elif row is not None and row.embedded:
        st.caption(":material/bolt: Included in Paddock; converted in seconds at first use.")
    elif (missing := to_download(shared_engine(), spec)) == 0:
        how = "Prepared" if spec.precision is Precision.STORED else "Converted"
        st.caption(f":material/bolt: {how} in seconds at first use.")
    else:
        parts = [f"{parameters_text(row.parameters)} parameters"] if row is not None else []
        parts += [f"{bytes_text(missing)} to download"] if missing else ["to download"]
        st.caption(f":material/download: {', '.join(parts)}.")
