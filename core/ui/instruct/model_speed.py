"""Line in the sidebar that says how fast the selected model is on this machine."""

from __future__ import annotations

from statistics import median

import streamlit as st

from core.benchmark.decode_rate import DecodeRates
from core.db import RunState
from core.errors import PaddockError
from core.hardware.devices import host_facts
from core.inference.engine import find_stored
from core.runtimes.spec import ModelSpec
from core.ui.widgets.resources import shared_engine
from core.units import rate_text

LATEST = 10
"""Number of the latest answers whose median is shown."""


def draw_model_speed(spec: ModelSpec) -> None:
    """Draw the measured decode rate of this configuration, or else an expected one."""
    try:
        rates = _measured(spec)
        if rates:
            st.caption(
                f":material/speed: **{rate_text(median(rates))}** measured here.",
                help=f"Median of the latest answers: {len(rates)}.",
            )
        elif (expected := _expected(spec)) is not None:
            st.caption(f":material/speed: About **{rate_text(expected)}** expected here.")
    except PaddockError:
        return  # the selector shows why the model cannot be used


def _measured(spec: ModelSpec) -> list[float]:
    """Return the decode rates of the latest answers that ran alone."""
    engine = shared_engine()
    rows = engine.runs.chart_rows(
        limit=LATEST,
        model=engine.named(spec).model,
        precision=spec.precision_name,
        device=spec.device,
        runtime=spec.runtime.value,
        state=RunState.DONE,
    )
    here = [row for row in rows if row.host_name == host_facts().name and not row.contended]
    return [row.decode_tokens_per_s for row in here if row.decode_tokens_per_s]


def _expected(spec: ModelSpec) -> float | None:
    """Return an estimate for a typical machine: measuring this one would delay the first screen."""
    stored = None if spec.remote else find_stored(shared_engine().store, spec)
    return None if stored is None else DecodeRates().expected_of(stored)
