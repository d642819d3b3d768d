"""Benchmark setup on the Metrics page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from core.benchmark.estimate import BenchmarkEstimate
from core.benchmark.plan import Plan
from core.benchmark.random_models import random_models
from core.catalogue import Precision, catalogue
from core.errors import PaddockError
from core.hardware.devices import AUTO, list_devices
from core.inference.engine import Engine
from core.metrics.labels import runtime_label
from core.remotes import is_remote
from core.runtimes.spec import DEFAULT_RUNTIME, LOCAL_RUNTIMES
from core.ui.models.list import added
from core.ui.widgets.actions import action
from core.ui.widgets.resources import shared_benchmark
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, counted, duration_text, parameters_text

MODELS, RANDOM = "models", "random"
_KINDS = {MODELS: "Models", RANDOM: "Random weights"}


def draw_first_benchmark() -> None:
    """Draw the offer of a short benchmark on a page without data."""
    # One round with few answers: enough to fill the page, too little to publish.
    plan = Plan(
        models=tuple(key for key, row in catalogue().items() if row.embedded),
        precisions=(Precision.FP16, Precision.INT8, Precision.INT4),
        prompt_tokens=(32,),
        new_tokens=64,
        repeats=3,
        rounds=1,
    )
    with st.container(border=True, key="first_benchmark"):
        st.subheader("Nothing has been measured yet", anchor=False)
        st.markdown(
            "A short benchmark runs the two tiny demo models in three precisions, each in a "
            "separate process, and fills this page with speed, memory and time to first token. "
            f"{_estimate_sentence(_estimate(plan))}"
        )
        action(
            "Run a two-minute benchmark",
            "timer",
            "two_minutes",
            *(start_benchmark, plan),
            manage=True,
            kind="primary",
        )


def draw_benchmark(engine: Engine) -> None:
    """Draw the benchmark setup in a collapsed expander."""
    sweep = shared_benchmark().current
    if sweep is not None and sweep.running:
        return
    box = st.expander("Run a benchmark", icon=":material/speed:", key="set_up", on_change="rerun")
    if box.open:
        with box:
            _draw_start(_pick_plan(engine))


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
        st.caption(
            "Measures the speed and memory of an architecture on this machine without downloading "
            "the model: it is created with random weights, converted and measured. The figures are "
            "marked; quality cannot be measured."
        )
    models = _pick_random() if random else _pick_models(engine)
    left, right = st.columns(2, gap="medium")
    with left:
        precisions = _pick(
            "Precisions",
            list(Precision),
            [Precision.FP16, Precision.INT8, Precision.INT4],
            format_func=lambda precision: precision.label,
        )
        devices = [device.id for device in list_devices() if device.id != AUTO]
        devices = _pick("Devices", devices, ["CPU"])
        runtimes = _pick(
            "Runtimes",
            list(LOCAL_RUNTIMES),
            [DEFAULT_RUNTIME],
            format_func=lambda runtime: runtime_label(runtime.value),
            help="PyTorch runs the original checkpoint uncompressed, as a baseline.",
        )
        quality = not random and st.toggle(
            "Measure quality",
            value=True,
            key="bench_quality",
            help="Compares each precision with the model's reference precision: perplexity, same "
            "top token and divergence. For the tiny demo models also task accuracy.",
        )
    with right:
        prompts = st.multiselect(
            "Prompt lengths in tokens",
            (32, 128, 512, 1024),
            default=[32, 128],
            accept_new_options=True,
            key="bench_prompts",
        )
        with st.container(horizontal=True, gap="small"):
            new_tokens = st.number_input(
                "New tokens", 2, 1000, 128, key="bench_new_tokens", help="Tokens per answer."
            )
            repeats = st.number_input(
                "Repeats",
                1,
                100,
                5,
                key="bench_repeats",
                help="Timed answers in all rounds, each without the prefix cache.",
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
        precisions=precisions,
        devices=devices,
        runtimes=runtimes,
        # What is no number becomes 0, which the plan rejects with an error.
        prompt_tokens=tuple(int(each) if str(each).isdecimal() else 0 for each in prompts),
        new_tokens=int(new_tokens),
        repeats=int(repeats),
        rounds=int(rounds),
        quality=bool(quality),
    )


def _pick(label: str, options: list[Any], default: list[Any], **how: Any) -> tuple[Any, ...]:
    key = f"bench_{label.lower()}"
    return tuple(st.pills(label, options, selection_mode="multi", default=default, key=key, **how))


def _pick_models(engine: Engine) -> tuple[str, ...]:
    rows = catalogue()
    # The model that was just added, or else that of the Instruct page.
    in_use = [*(model.name for model in added().values()), st.session_state.get("model")]
    default = next((name for name in in_use if name and not is_remote(name)), None)
    names = dict.fromkeys([*rows, *(stored.name for stored in engine.store.list())])
    if default is not None:
        names[default] = None
    titles = {name: engine.store.title(name) for name in names}
    chosen = st.multiselect(
        "Models",
        list(titles),
        default=[default] if default else [key for key, row in rows.items() if row.embedded],
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
    sentence, problem = _estimate_sentence(found), None
    if isinstance(found, BenchmarkEstimate):
        problem = found.problem
        if plan.quality:
            without = shared_benchmark().estimate(replace(plan, quality=False)).seconds
            sentence += f" Quality takes about {duration_text(found.seconds - without)} of that."
    with st.container(horizontal=True, vertical_alignment="center"):
        action(
            "Measure with random weights" if plan.random_models else "Start the benchmark",
            "casino" if plan.random_models else "play_arrow",
            "start_benchmark",
            *(start_benchmark, plan),
            manage=True,
            kind="primary",
            disabled=not isinstance(found, BenchmarkEstimate) or problem is not None,
        )
        st.caption(sentence, width="stretch")
    if problem is not None:
        st.warning(safe_inline(problem), icon=":material/hard_drive:")


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


def start_benchmark(plan: Plan) -> None:
    """Callback: start a benchmark and close its setup."""
    shared_benchmark().start(plan)
    st.session_state["set_up"] = False
