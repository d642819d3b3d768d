"""Tuning of execution hints on the Metrics page."""

from __future__ import annotations

from dataclasses import astuple

import streamlit as st

from core.benchmark.tuning import TuningRun, wording
from core.inference.engine import Engine
from core.metrics.labels import runtime_label
from core.runtimes.spec import ANSWERING_RUNTIMES, DEFAULT_RUNTIME, ModelSpec
from core.runtimes.tuned_hints import Tuned
from core.ui.widgets.actions import action
from core.ui.widgets.resources import shared_tuning
from core.ui.widgets.safe_text import safe_inline
from core.units import rate_text

_REFRESH_S = 0.5


def draw_tuning(engine: Engine) -> None:
    """Draw the setup, the progress and the results in a collapsed expander."""
    box = st.expander("Tune a model", icon=":material/tune:", key="tuning", on_change="rerun")
    run = shared_tuning().current
    running = run is not None and not run.done
    if not box.open and not running:
        return
    with box:
        st.caption(
            "Tries execution hints (execution precision, KV cache precision, threads, group size "
            "of quantised activations) and keeps the fastest ones whose perplexity stays within "
            "1 %. Then compares speculation with none. This takes some minutes. Don't use the "
            "machine while it runs."
        )
        if run is not None and running:
            st.fragment(_draw_run, run_every=_REFRESH_S)(run)
        else:
            _draw_setup(engine, run)
        _draw_results(engine)


def _draw_setup(engine: Engine, run: TuningRun | None) -> None:
    if run is not None and run.result is None:
        st.warning(safe_inline(run.message), icon=":material/info:")
    if run is not None and run.speculation:
        st.info(safe_inline(run.speculation), icon=":material/bolt:")
    stored = [(model.name, model.precision) for model in engine.store.list()]
    if not stored:
        st.caption("No model is on disk yet. Run one, or download it on the Models page.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name, precision = st.selectbox(
            "Model",
            stored,
            format_func=lambda model: f"{engine.store.title(model[0])} · {model[1].label}",
            key="tune_model",
        )
        runtime = st.selectbox(
            "Runtime",
            ANSWERING_RUNTIMES,
            index=ANSWERING_RUNTIMES.index(DEFAULT_RUNTIME),
            format_func=lambda runtime: runtime_label(runtime.value),
            key="tune_runtime",
        )
        spec, start = ModelSpec(name, precision, "CPU", runtime), shared_tuning().start
        action("Tune", "tune", "tune_start", start, spec, manage=True, kind="primary")


def _draw_run(run: TuningRun) -> None:
    if run.done:
        st.rerun()
    st.progress(run.share, text=f"{safe_inline(run.spec.label)}: {safe_inline(run.message)}")
    action("Stop", "stop", "tune_stop", run.cancel, manage=True, kind="secondary")


def _draw_results(engine: Engine) -> None:
    for tuned in engine.tuned.all():
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(_sentence(tuned), width="stretch")
            action(
                "Forget",
                "undo",
                f"tune_forget_{'~'.join(astuple(tuned.key))}",
                *(engine.forget_tuned, tuned.key),
                manage=True,
                help="Remove this result and use the default hints again.",
            )


def _sentence(tuned: Tuned) -> str:
    key = tuned.key
    name = (
        f"{key.model} · {key.precision.label} · {key.device} · {runtime_label(key.runtime.value)}"
    )
    if tuned.gain == 1.0:
        result = f"the default hints are the fastest, {rate_text(tuned.usual_tokens_per_s)}"
    else:
        result = (
            f"**× {tuned.gain:.2f}** ({rate_text(tuned.usual_tokens_per_s)} → "
            f"{rate_text(tuned.tokens_per_s)}), perplexity × {tuned.perplexity_ratio:.4f}"
        )
    return f"{safe_inline(name)}: {result}; {safe_inline(wording(tuned.hints))}"
