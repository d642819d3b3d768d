"""Controls for model, precision, device, runtime and prompt format."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field

import streamlit as st

from core.catalogue import DEFAULT_PRECISION, MAIN_PRECISIONS, Precision, catalogue
from core.catalogue.prompts import CHOOSABLE_FORMATS, prompt_format
from core.errors import PaddockError, UserError
from core.hardware.devices import AUTO, list_devices
from core.inference.engine import find_stored
from core.remotes import Directory, is_remote
from core.runtimes.spec import (
    ANSWERING_RUNTIMES,
    GUESSED_TOKENS_RANGE,
    NGRAM_RANGE,
    NO_SPECULATION,
    ModelSpec,
    RuntimeName,
    Speculation,
    SpeculationMode,
)
from core.store import ModelStore
from core.ui.models.access import check_name, key_of
from core.ui.models.remote_servers import draw_remote_state, follow_listings
from core.ui.widgets.link import link_choice, number_in, one_of, unlink
from core.ui.widgets.model_choices import (
    INSTALL_MODELS_HINT,
    Group,
    choices,
    first_model,
    is_heading,
    packaged_model,
    preferred_precision,
    recipes_on_disk,
)
from core.ui.widgets.person import Person, person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.start_button import to_download
from core.ui.widgets.state import set_widgets, show_new_label
from core.units import bytes_text, parameters_text

_MODEL_HELP = (
    "Models *on this machine* run without a network. Models *to download* are downloaded and "
    "converted first, after you confirm. *Servers* run their models remotely. You can also enter "
    "a Hugging Face model id (`org/name`) or the path of a model folder."
)
TRAITS = (
    *("model", "precision", "device", "runtime", "format"),
    *("speculation", "speculation_tokens", "speculation_ngram"),
)
"""Keys of the controls, after the prefix."""
_FIRST_SELECTOR = ("", "left_")
"""Key prefixes of the first model selector of each page."""


@dataclass(frozen=True)
class PickedModel:
    """A configuration that was selected."""

    spec: ModelSpec
    prompt_format: str | None
    """None for the model's own chat template."""
    speculation: Speculation = NO_SPECULATION


def pick_model(
    store: ModelStore,
    *,
    key: str = "",
    default: str | None = None,
    precision_for: Callable[[str, Precision | None], Precision] | None = None,
    on_model_change: Callable[[], None] | None = None,
    row: str = "",
    speculation: SpeculationMode = SpeculationMode.OFF,
    weights_only: bool = False,
) -> PickedModel:
    """Draw the controls and return the selected configuration.

    Args:
        store: the converted models on disk.
        key: prefix of the widget keys, which are also the names of the URL parameters.
        default: model that is selected at first; by default :func:`first_model`.
        precision_for: returns the precision to select for a model, given the previous precision; by
            default :func:`preferred_precision`.
        on_model_change: called when the user selected another model.
        row: name of a side, to draw the controls in one line, with device, runtime and prompt
            format in a popover; the caller's container is horizontal.
        speculation: what is selected at first.
        weights_only: whether to draw only model and precision.
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

    before: _LastDrawn = st.session_state.setdefault(f"{model_key}_before", _LastDrawn())
    if (sent := st.session_state.get(model_key)) in before.names:
        st.session_state[model_key] = before.names[sent]
    default = default or first_model()
    linked = link_choice(model_key, default, read)
    found = choices(engine, someone, st.session_state[model_key])
    labels = {choice.name: choice.label for choice in found}
    options: list[str] = []
    for group in Group:
        if names := [choice.name for choice in found if choice.group is group]:
            options += [group.value, *names]
    show_new_label(model_key, labels.get(st.session_state[model_key], ""))
    before.names |= {label: name for name, label in labels.items()}

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
        f"Model of {row}" if row else "Model",
        options,
        format_func=lambda name: labels.get(name, name),
        accept_new_options=someone.access.manage,
        help=None if row else _MODEL_HELP,
        label_visibility="collapsed" if row else "visible",
        on_change=changed,
        **linked,
    )
    if key in _FIRST_SELECTOR:
        follow_listings(engine.remotes.directory)
    model = default if model is None or is_heading(model) else model
    before.model = model
    if is_remote(model):
        unlink(*(f"{key}{trait}" for trait in TRAITS if trait != "model"))
        return PickedModel(_remote_spec(engine.remotes.directory, model), None)
    usual = precision_of(model, None)
    precision = _pick_precision(store, model, f"{key}precision", usual, row)
    if weights_only:
        spec = ModelSpec(model, precision)
        _draw_state(store, spec, someone, only_missing=bool(row))
        return PickedModel(spec, None)
    more: AbstractContextManager[object] = nullcontext()
    if row:
        more = st.popover(
            f"More settings of {row}",
            icon=":material/more_horiz:",
            type="tertiary",
            key=f"icon_more_{row}",
            help="Device, runtime, speculation and prompt format",
        )
    with more:
        device = _pick_device(f"{key}device")
        runtime = _pick_runtime(f"{key}runtime")
        guessed = _pick_speculation(f"{key}speculation", runtime, speculation)
        template = _pick_prompt_format(model, f"{key}format")
    spec = ModelSpec(model, precision, device or AUTO, runtime)
    _draw_state(store, spec, someone, only_missing=bool(row))
    known = catalogue().get(spec.model)
    only_demos = known is not None and known.embedded and packaged_model() is None
    if only_demos and key in _FIRST_SELECTOR and not row:
        st.caption(INSTALL_MODELS_HINT)
    return PickedModel(spec, template, guessed)


def _pick_precision(
    store: ModelStore, model: str, key: str, initial: Precision, row: str
) -> Precision:
    """Draw the precisions in which a local model is on disk or can be made."""
    try:
        source = store.resolve(model)
        # For links: as far as it does not depend on this machine.
        usual, as_stored = source.default_precision, "GGUF" if source.is_gguf else "Stored"
    except PaddockError:
        usual, as_stored = DEFAULT_PRECISION, "Stored"
    linked = link_choice(key, initial, lambda text: Precision(text.lower()), unwritten=usual)
    # FP32 makes no sense for quantised weights that are kept as stored, and only some can be.
    hidden = Precision.STORED
    if store.default_precision(model) is Precision.STORED:
        hidden = Precision.FP32
    offered = [
        each
        for each in Precision
        if each is initial or (each in MAIN_PRECISIONS and each is not hidden)
    ]
    offered += [each for each in recipes_on_disk(store, model) if each not in offered]
    if st.session_state[key] not in offered:
        st.session_state[key] = initial  # the URL had one for another model
    linked["format_func"] = lambda each: as_stored if each is Precision.STORED else each.label
    if row:
        label = f"Precision of {row}"
        chosen = st.selectbox(label, offered, label_visibility="collapsed", width=104, **linked)
        return chosen or initial
    chosen = st.segmented_control(
        "Precision",
        offered,
        required=True,
        width="stretch",
        help="Number format of the weights. **INT8** needs half the memory of FP16 at nearly the "
        "same quality, **INT4** half of that at some loss of quality, **FP32** is the reference. "
        "**GGUF** keeps the weights of a GGUF file as stored, **Stored** those of an OpenVINO "
        "model in other formats.",
        **linked,
    )
    return chosen or initial


def _pick_device(key: str) -> str | None:
    names = {device.id: device.full_name for device in list_devices()}
    devices = [AUTO, *(name for name in names if name != AUTO)]
    return st.selectbox(
        "Device",
        devices,
        format_func=lambda name: f"{name} — {names[name]}",
        help="Device on which the model runs. AUTO lets OpenVINO choose one.",
        **link_choice(key, AUTO, one_of(devices)),
    )


@dataclass
class _LastDrawn:
    """What a model selector showed last; a plain object, so that a callback can change it.

    The browser identifies an option by its label, which changes once the model is on disk. It may
    then send a label that is no option any more.
    """

    model: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    """Model names by every label that they have had."""


def _remote_spec(directory: Directory, model: str) -> ModelSpec:
    """Return the spec of a remote model and draw its state; stop the script at an invalid name."""
    try:
        spec = ModelSpec.of_remote(model)
    except UserError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        st.stop()
    draw_remote_state(directory, spec)
    return spec


def _pick_prompt_format(model: str, key: str) -> str | None:
    """Draw the prompt format of a local model that is not in the catalogue.

    Returns:
        The selected format; None for the model's own chat template.
    """
    if model in catalogue():
        unlink(key)
        return None
    return st.selectbox(
        "Prompt format",
        CHOOSABLE_FORMATS,
        index=None,
        placeholder="The model's own chat template",
        format_func=lambda name: prompt_format(name).title,
        help="Template that turns the instruction into a prompt. Choose one if the model has no "
        "chat template.",
        **link_choice(key, None, one_of(list(CHOOSABLE_FORMATS))),
    )


def _pick_speculation(key: str, runtime: RuntimeName, default: SpeculationMode) -> Speculation:
    """Draw the choice of prompt lookup, which only GenAI has."""
    tokens_key, ngram_key = f"{key}_tokens", f"{key}_ngram"
    if runtime is not RuntimeName.GENAI:
        unlink(key, tokens_key, ngram_key)
        return NO_SPECULATION
    mode = st.segmented_control(
        "Speculation",
        [SpeculationMode.OFF, SpeculationMode.AUTO, SpeculationMode.ON],
        format_func=lambda value: value.value.capitalize(),
        required=True,
        width="stretch",
        help="Prompt lookup guesses the next tokens from earlier text, and the model checks "
        "several of them in one step. Answers that repeat parts of the prompt, such as summaries, "
        "become faster. **Auto** guesses where it is expected to help; **On** always, which can be "
        "slower. Comparisons and benchmarks start without it.",
        **link_choice(key, default, SpeculationMode),
    )
    if mode is not SpeculationMode.ON:
        unlink(tokens_key, ngram_key)
        return Speculation(mode or default)
    left, right = st.columns(2)
    tokens = left.number_input(
        "Guessed tokens",
        *GUESSED_TOKENS_RANGE,
        help="Tokens that are guessed in each step.",
        **link_choice(tokens_key, Speculation.tokens, number_in(*GUESSED_TOKENS_RANGE)),
    )
    ngram = right.number_input(
        "N-gram length",
        *NGRAM_RANGE,
        help="Maximum number of preceding tokens that are looked up in the prompt.",
        **link_choice(ngram_key, Speculation.ngram, number_in(*NGRAM_RANGE)),
    )
    return Speculation(mode, int(tokens), int(ngram))


def _pick_runtime(key: str) -> RuntimeName:
    default = ANSWERING_RUNTIMES[0]
    chosen = st.segmented_control(
        "Runtime",
        ANSWERING_RUNTIMES,
        format_func=lambda value: value.short_name,
        required=True,
        width="stretch",
        help="Library that runs the model on OpenVINO. **GenAI** is faster and serves several "
        "users at once; **Optimum** generates one answer at a time.",
        **link_choice(key, default, one_of(list(ANSWERING_RUNTIMES))),
    )
    return chosen or default


def _draw_state(
    store: ModelStore, spec: ModelSpec, someone: Person, *, only_missing: bool = False
) -> None:
    """Draw one line that says whether the model is on disk, and its size.

    Args:
        only_missing: whether to draw nothing if the model can run within seconds.
    """
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
        if only_missing:
            return
        size = bytes_text(stored.manifest.weight_bytes)
        what = f"{stored.special_label}, {size}" if stored.special_label else size
        st.caption(f":material/check_circle: On disk, {what} of weights.")
    elif not someone.access.manage and (row is None or not row.embedded):
        st.caption(":material/lock: Not on this machine. Requires the Manage permission.")
    elif row is not None and row.embedded:
        if not only_missing:
            st.caption(":material/bolt: Included in Paddock; converted in seconds at first use.")
    elif (missing := to_download(shared_engine(), spec)) == 0:
        how = "Prepared" if spec.precision is Precision.STORED else "Converted"
        st.caption(f":material/bolt: {how} in seconds at first use.")
    else:
        parts = [f"{parameters_text(row.parameters)} parameters"] if row is not None else []
        parts += [f"{bytes_text(missing)} to download"] if missing else ["to download"]
        st.caption(f":material/download: {', '.join(parts)}.")
