"""Result of a comparison: figures, timelines, and where the answers diverge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from core.catalogue import Precision
from core.compare.divergence import DiffKind, precision_rank
from core.compare.figures import DeltaRow
from core.compare.report import MatchReport, Pair
from core.compare.setup import LETTERS, MAX_SIDES
from core.compare.wording import caution, medians
from core.errors import PaddockError
from core.inference.engine import Engine, find_stored
from core.runtimes.spec import ModelSpec
from core.store.weights_source import find_origin
from core.ui.compare.state import CompareState, MatchView
from core.ui.widgets.actions import action
from core.ui.widgets.charts import SIDE_COLOURS, timeline_chart
from core.ui.widgets.safe_text import safe_html, safe_inline
from core.ui.widgets.start_button import to_download
from core.units import listed

CONTENDED = ":material/warning:"


def draw_result(view: MatchView, state: CompareState, engine: Engine) -> None:
    """Draw the figures side by side, the timelines, and where precisions of a model diverge."""
    if view.hidden or not any(view.match.answers):
        return
    report = view.report
    reference = higher_precision(report, engine)
    with st.container(key="result"):
        if sentence := verdict(report.rows):
            st.markdown(f":material/trophy: **{sentence}**")
        st.table(delta_table(report.rows), border="horizontal", hide_index=True)
        st.caption(_conditions(report))
        lines = [
            (side.letter, side.timeline)
            for side in report.sides
            if side.timeline is not None and side.token_times_ms
        ]
        diverging = report.pairs or reference is not None
        places = st.columns(2, gap="medium") if diverging else [st]
        if lines:
            places[0].plotly_chart(timeline_chart(lines), key="timelines")
        if diverging:
            with places[1].container(border=True, key="divergence"):
                _draw_divergence(report)
                if reference is not None:
                    action(
                        f"Compare with {reference.precision.label}",
                        "add",
                        "add_reference",
                        *(state.add_side, view, reference),
                        kind="secondary",
                        disabled=state.running,
                        help="Runs the same instruction in the highest precision that this machine "
                        "has or can make, as the reference.",
                    )


def verdict(rows: Sequence[DeltaRow]) -> str | None:
    """Return which side decoded faster as a sentence; None if that is unknown."""
    rates = rows[0]
    if sum(value is not None for value in rates.values) < 2:
        return None
    if rates.equal:
        sentence = "They decoded about equally fast"
    elif rates.winner is None:
        sentence = f"{listed(rates.better_letters)} decoded about equally fast, ahead of the others"
    else:
        sentence = f"{LETTERS[rates.winner]} decoded {rates.factor_text}"
    busy = "; measured while busy, so not comparable with other measurements"
    return f"{sentence}{busy if rates.contended else ''}."


def delta_table(rows: Sequence[DeltaRow]) -> list[dict[str, Any]]:
    """Return the rows of the table of figures, as Markdown; they contain no untrusted text."""
    table = []
    for row in rows:
        cells: dict[str, Any] = {"Figure": row.measure.name}
        for side, text in enumerate(row.texts):
            contended = row.contended and row.values[side] is not None
            cell = f"**{text}**" if LETTERS[side] in row.better_letters else text
            cells[LETTERS[side]] = f"{cell} {CONTENDED}" if contended else cell
        cells["Better"] = _better(row)
        table.append(cells)
    return table


def _better(row: DeltaRow) -> str:
    if row.equal:
        return "about equal"
    if not row.leaders:
        return ""
    letters = listed([f"**{letter}**" for letter in row.better_letters])
    if len(row.leaders) > 1:
        return f"{letters}, about equal"
    return f"{letters}, {row.factor_text}" if row.factor_text else letters


def _conditions(report: MatchReport) -> str:
    """Return the conditions of the measurement in a few sentences."""
    known = [side.figures for side in report.sides if side.figures is not None]
    parts = [f"{report.mode.label}: {report.mode.sentence[0].lower()}{report.mode.sentence[1:]}"]
    if sentence := caution(report):
        parts.append(f"{CONTENDED} {sentence}")
    if sentence := medians(report):
        parts.append(sentence)
    if scope := next((each.memory_scope for each in known if each.memory_scope), None):
        parts.append(f"Memory is the {scope}; disk is the whole converted model.")
    seeds = sorted({each.seed for each in known if each.seed is not None})
    if seeds:
        noun = "Seed" if len(seeds) == 1 else "Seeds"
        parts.append(f"{noun} {', '.join(map(str, seeds))}.")
    else:
        parts.append("Greedy decoding.")
    return " ".join(parts)


# Where the answers diverge


def _draw_divergence(report: MatchReport) -> None:
    st.markdown("**Where the answers diverge**")
    if not report.pairs:
        return
    pair = _pick_pair(report.pairs)
    reference = report.sides[pair.a]
    st.markdown(
        f"{pair.divergence.sentence} The reference is {reference.letter} "
        f"({safe_inline(reference.weights)})."
    )
    if not pair.divergence.identical:
        st.caption(
            f"They share {pair.divergence.similarity:.0%} of their words, in the same order."
        )
    if any(kind is not DiffKind.SAME for kind, _ in pair.diff):
        with st.expander("Differences word by word", icon=":material/difference:"):
            st.html(diff_html(pair))


def diff_html(pair: Pair) -> str:
    """Return both texts as one HTML text with their differences marked; everything is escaped."""

    def marked(kind: DiffKind, text: str) -> str:
        if kind is DiffKind.SAME:
            return f"<span>{safe_html(text)}</span>"
        side, tag = (pair.a, "del") if kind is DiffKind.ONLY_A else (pair.b, "ins")
        style = f"background:{SIDE_COLOURS[side]}40;border-radius:3px;text-decoration:none"
        return f'<{tag} style="{style}">{safe_html(text)}</{tag}>'

    key = (
        f"{marked(DiffKind.ONLY_A, f'only {LETTERS[pair.a]}')} "
        f"{marked(DiffKind.ONLY_B, f'only {LETTERS[pair.b]}')}"
    )
    spans = "".join(marked(kind, text) for kind, text in pair.diff)
    style = "line-height:1.65;overflow-wrap:anywhere;white-space:pre-wrap"
    return f'<p style="font-size:.875rem">{key}</p><div class="diff" style="{style}">{spans}</div>'


def _pick_pair(pairs: Sequence[Pair]) -> Pair:
    if len(pairs) == 1:
        return pairs[0]
    chosen = st.segmented_control(
        "Pair",
        range(len(pairs)),
        default=0,
        format_func=lambda at: f"{LETTERS[pairs[at].a]} and {LETTERS[pairs[at].b]}",
        required=True,
        key="pair",
        label_visibility="collapsed",
    )
    return pairs[chosen if chosen is not None and chosen < len(pairs) else 0]


def higher_precision(report: MatchReport, engine: Engine) -> ModelSpec | None:
    """Return the model in the highest precision that this machine has or can make at once.

    None if a side has it already, if the sides are not one local model under greedy decoding, if an
    answer goes on from a chosen token, or if there is no room for another side.
    """
    specs, store = [side.spec for side in report.sides], engine.store
    spec = min(specs, key=precision_rank)
    one_model = len({each.model for each in specs}) == 1 and not spec.remote
    if not one_model or not report.request.sampling.greedy or len(specs) == MAX_SIDES:
        return None
    if any(side.request.continues for side in report.sides):
        return None
    stored = store.default_precision(spec.model) is Precision.STORED
    wanted = replace(spec, precision=Precision.STORED if stored else Precision.FP16)
    if precision_rank(wanted) >= precision_rank(spec):
        return None
    try:
        if find_stored(store, wanted) is None:
            find_origin(store.resolve(wanted.model), wanted.precision, engine.settings)
    except PaddockError:  # it cannot be made
        return None
    return wanted if to_download(engine, wanted) == 0 else None
