"""Rows of the Models page: one line and one button for each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from core.benchmark.decode_rate import DecodeRates
from core.catalogue import Precision
from core.inference.engine import Engine
from core.store.estimate import Estimate
from core.ui.models.list import ListedModel, fitting, open_model
from core.ui.widgets.actions import action
from core.ui.widgets.model_choices import PREFERRED
from core.ui.widgets.navigation import draw_try_it
from core.ui.widgets.person import may_manage
from core.ui.widgets.resources import decode_rates
from core.ui.widgets.safe_text import safe_html, safe_inline
from core.units import bytes_text, parameters_text

STYLE = Path(__file__).with_name("models.css")

_COLUMNS = ("Parameters", "Size", "Here", "Speed", "Released")


def draw_rows(engine: Engine, heading: str, models: Sequence[ListedModel]) -> None:
    """Draw a list of models; the speeds follow when this machine has been measured."""
    st.subheader(heading, anchor=False)
    rates = decode_rates()
    with st.container(key=f"rows_{heading.partition(' ')[0].lower()}", gap=None):
        head = "".join(f"<span>{column}</span>" for column in _COLUMNS)
        st.html(f'<div class="facts head" aria-hidden="true">{head}</div>')
        for model in models:
            with st.container(
                horizontal=True, vertical_alignment="center", gap="small", key=f"model_{model.key}"
            ):
                _draw_row(model, _facts(engine, model, rates))


def _draw_row(model: ListedModel, facts: Sequence[str]) -> None:
    st.button(
        f"{safe_inline(model.title)}{' :material/lock:' if model.gated else ''}",
        type="tertiary",
        key=f"details_{model.key}",
        on_click=open_model,
        args=(model.key,),
    )
    cells = zip(_COLUMNS, facts, strict=True)
    row = "".join(f'<span title="{column}">{text}</span>' for column, text in cells)
    st.html(f'<div class="facts">{row}</div>')
    with st.container(width="content", horizontal_alignment="right", key=f"do_{model.key}"):
        if model.usual is not None:
            draw_try_it(model.title, model=model.name, precision=model.usual.precision.value)
        elif may_manage():
            action("Get", "download", f"offer_{model.key}", open_model, model.key, of=model.title)


def _facts(engine: Engine, model: ListedModel, rates: DecodeRates | None) -> Sequence[str]:
    """Return the HTML of each column, for the precision that the row's button takes."""
    parameters = parameters_text(model.parameters) if model.parameters else "—"
    released = (model.row and model.row.released) or "—"
    if (stored := model.usual) is not None:
        speed = rates.expected_of(stored) if rates is not None else None
        labels = safe_html(", ".join(each.label for each in model.stored))
        here = f'<span class="stored">✓ {labels}</span>'
        size = _size_html(stored.manifest.folder_bytes, stored.precision)
        return parameters, size, here, _speed_text(speed), released
    plans = model.plans(engine)
    fits = fitting(plans)
    preferred = (Precision.STORED, *PREFERRED)
    offered = next((each for each in preferred if each in fits), Precision.INT4)
    plan = plans[offered]
    if not isinstance(plan, Estimate):
        return parameters, "—", "—", "—", released
    here = "<small>does not fit</small>"
    if fits:
        here = f"fits {'up to' if len(fits) > 1 else 'in'} {fits[0].label}"
    speed = model.decode_rate(engine, rates, offered) if rates is not None else None
    size = _size_html(plan.disk_bytes, offered)
    return parameters, size, here, _speed_text(speed) if fits else "—", released


def _size_html(size: int, precision: Precision) -> str:
    return f"{bytes_text(size)} <small>{precision.label}</small>"


def _speed_text(rate: float | None) -> str:
    """Return an estimate with two digits; empty until it is known."""
    return "" if rate is None else f"≈ {float(f'{rate:.2g}'):,g} tokens/s"
