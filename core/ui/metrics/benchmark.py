"""Benchmark setup on the Metrics page."""

from __future__ import annotations

import streamlit as st

from core.benchmark.estimate import BenchmarkEstimate
from core.benchmark.plan import Plan
from core.benchmark.random_models import random_models
from core.catalogue import Precision, catalogue
from core.errors import PaddockError
from core.hardware.devices import AUTO, list_devices
from core.inference.engine import Engine
from core.runtimes.spec import DEFAULT_RUNTIME, LOCAL_RUNTIMES
from core.ui.metrics.bars import runtime_label
from core.ui.widgets.person import manage_button
from core.ui.widgets.resources import shared_benchmark
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, counted, duration_text, parameters_text

MODELS, RANDOM = "models", "random"
_KINDS = {MODELS: "Models", RANDOM: "Random weights"}

_PROMPTS = (32, 128, 512, 1024)
_ERROR = "benchmark_refused"

RANDOM_SENTENCE = (
    "Measures the speed and memory of an architecture on this machine without downloading the "
    "model: it is created with random weights, converted and measured. The figures are marked; "
    "quality cannot be measured."
)


def two_minute_plan() -> Plan:
    """Return the plan offered on the empty page: the tiny demo models in three precisions.

    One round with few answers: enough to fill the page, too little to publish.
    """
    embedded = tuple(key for key, row in catalogue().items() if row.embedded)
    return Plan(
        models=embedded,
        precisions=(Precision.FP16, Precision.INT8, Precision.INT4),
        prompt_tokens=(32,),
        new_tokens=64,
        repeats=3,
        rounds=1,
    )


def draw_first_benchmark() -> None:
    """Draw the offer of a short benchmark on a page without data."""
    plan = two_minute_plan()
    with st.container(border=True, key="first_benchmark"):
        st.subheader("Nothing has been measured yet", anchor=False)
        st.markdown(
            "A short benchmark runs the two tiny demo models in three precisions, each in a "
            "separate process, and fills this page with speed, memory and time to first token. "
            f"{_estimate_sentence(_estimate(plan))}"
        )
        manage_button(
            "Run a two-minute benchmark",
            icon=":material/timer:",
            type="primary",
            key="two_minutes",
            on_click=_start,
            args=(plan,),
        )


def draw_benchmark(engine: Engine) -> None:
    """Draw the benchmark setup in a collapsed expander."""
    if error := st.session_state.pop(_ERROR, None):
        st.error(safe_inline(error), icon=":material/error:")
    sweep = shared_benchmark().current
    if sweep is not None and sweep.running:
        return
    box = st.expander("Run a benchmark", icon=":material/speed:", key="set_up", on_change="rerun")
    if not box.open:
        return
    with box:
        plan = _pick_plan(engine)
        _draw_start(plan)


def _pick_plan(engine: Engine) -> Plan:
    kind = st.segmented_control(
        "What to measure",
        list(_KINDS),
        format_func=_KINDS.__getitem__,
        default=MODELS,
        required=True,
        key="bench_kind",
        label_visibility="collapsed",
    )
    random = kind == RANDOM
    if random:
        st.caption(RANDOM_SENTENCE)
    models = _pick_random() if random else _pick_models(engine)
    left, right = st.columns(2, gap="medium")
    with left:
        precisions = st.pills(
            "Precisions",
            list(Precision),
            selection_mode="multi",
            default=[Precision.FP16, Precision.INT8, Precision.INT4],
            format_func=lambda precision: precision.label,
            key="bench_precisions",
        )
        devices = st.pills(
            "Devices",
            [device.id for device in list_devices() if device.id != AUTO],
            selection_mode="multi",
            default=["CPU"],
            key="bench_devices",
        )
        runtimes = st.pills(
            "Runtimes",
            list(LOCAL_RUNTIMES),
            selection_mode="multi",
            default=[DEFAULT_RUNTIME],
            format_func=lambda runtime: runtime_label(runtime.value),
            key="bench_runtimes",
            help="PyTorch runs the original checkpoint uncompressed, as a baseline.",
        )
        quality = not random and st.toggle(
            "Measure quality",
            key="bench_quality",
            help="Compares each precision with the model's reference precision: perplexity, same "
            "top token and divergence. For the tiny demo models also task accuracy.",
        )
    with right:
        prompts = st.multiselect(
            "Prompt lengths in tokens",
            _PROMPTS,
            default=[32, 128],
            accept_new_options=True,
            key="bench_prompts",
        )
        with st.container(horizontal=True, gap="small"):
            new_tokens = st.number_input(
                "New tokens", 2, 1000, 128, key="bench_new_tokens", help="Tokens per answer."
            )
            repeats = st.number_input(
                "Repeats", 1, 100, 5, key="bench_repeats", help="Timed answers in all rounds."
            )
            rounds = st.number_input(
                "Rounds",
                1,
                20,
                2,
                key="bench_rounds",
                help="Each round uses new processes and another order of the configurations.",
            )
    return Plan(
        models=() if random else models,
        random_models=models if random else (),
        precisions=tuple(precisions),
        devices=tuple(devices),
        runtimes=tuple(runtimes),
        prompt_tokens=tuple(_whole(length) for length in prompts),
        new_tokens=int(new_tokens),
        repeats=int(repeats),
        rounds=int(rounds),
        quality=bool(quality),
    )


def _pick_models(engine: Engine) -> tuple[str, ...]:
    rows = catalogue()
    names = dict.fromkeys([*rows, *(stored.name for stored in engine.store.list())])
    titles = {name: engine.store.title(name) for name in names}
    chosen = st.multiselect(
        "Models",
        list(titles),
        default=[key for key, row in rows.items() if row.embedded],
        format_func=lambda key: titles.get(key, key),
        accept_new_options=True,
        key="bench_models",
        help="Models that are not on disk are downloaded and converted first. You can also enter "
        "a Hugging Face id or the path of a model folder.",
    )
    return tuple(chosen)


def _pick_random() -> tuple[str, ...]:
    shapes = random_models()
    chosen = st.multiselect(
        "Architectures",
        list(shapes),
        format_func=lambda key: f"{key} ({parameters_text(shapes[key].parameters)} parameters)",
        placeholder="Choose one or more",
        key="bench_random",
    )
    return tuple(chosen)


def _draw_start(plan: Plan) -> None:
    found = _estimate(plan)
    with st.container(horizontal=True, vertical_alignment="center"):
        manage_button(
            "Measure with random weights" if plan.random_models else "Start the benchmark",
            icon=":material/casino:" if plan.random_models else ":material/play_arrow:",
            type="primary",
            key="start_benchmark",
            disabled=not isinstance(found, BenchmarkEstimate) or found.problem is not None,
            on_click=_start,
            args=(plan,),
        )
        st.caption(_estimate_sentence(found), width="stretch")
    if isinstance(found, BenchmarkEstimate) and found.problem is not None:
        st.warning(safe_inline(found.problem), icon=":material/hard_drive:")


def _estimate(plan: Plan) -> BenchmarkEstimate | PaddockError:
    try:
        return shared_benchmark().estimate(plan)
    except PaddockError as error:
        return error


def _estimate_sentence(found: BenchmarkEstimate | PaddockError) -> str:
    if isinstance(found, PaddockError):
        return safe_inline(str(found))
    parts = [f"{counted(found.rows, 'measurement')}, about {duration_text(found.seconds)} here"]
    if found.download_bytes:
        parts.append(f"{bytes_text(found.download_bytes)} to download")
    if found.disk_bytes:
        parts.append(f"up to {bytes_text(found.disk_bytes)} more disk space")
    return ", ".join(parts) + ". Don't use the machine while it runs."


def _start(plan: Plan) -> None:
    try:
        shared_benchmark().start(plan)
    except PaddockError as error:
        show_error(str(error))
    else:
        st.session_state["set_up"] = False


def show_error(message: str) -> None:
    """Show an error above the benchmark setup in the next script run."""
    st.session_state[_ERROR] = message


def _whole(value: object) -> int:
    """Parse a prompt length; invalid input becomes 0, which the plan rejects with an error."""
    try:
        return int(str(value))
    except ValueError:
        return 0
