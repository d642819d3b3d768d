"""What came out of a match: who was faster, what it cost, and where the answers diverge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from core.compare import LETTERS, DeltaRow, DiffKind
from core.compare.report import MatchReport, Pair, SideReport, describe
from core.compare.wording import caution, medians
from core.store import ModelStore
from core.ui.compare.state import Shown
from core.ui.widgets.charts import timeline_chart
from core.ui.widgets.safe_text import safe_html
from core.units import listed

CONTENDED = ":material/warning:"
_MARKS = {
    DiffKind.SAME: ("span", ""),
    DiffKind.ONLY_A: ("del", "background:rgba(31,127,201,.24)"),
    DiffKind.ONLY_B: ("ins", "background:rgba(217,115,13,.28);text-decoration:none"),
}


def report_of(shown: Shown, store: ModelStore) -> MatchReport:
    """All that is known of the match, the person's judgement included."""
    judgement = shown.judgement
    sentence = judgement.sentence(len(shown.match.setup.sides)) if judgement else None
    return describe(shown.match, store, verdict=sentence)


def draw_result(shown: Shown, store: ModelStore) -> None:
    """Figures side by side with their winners, the timelines, and where the texts part."""
    if shown.hidden or not any(shown.match.answers):
        return
    report = report_of(shown, store)
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
        places = st.columns(2, gap="medium") if report.pairs else [st]
        if lines:
            places[0].plotly_chart(timeline_chart(lines), key="timelines")
        if report.pairs:
            with places[1].container(border=True, key="divergence"):
                _draw_divergence(report)


def verdict(rows: Sequence[DeltaRow]) -> str | None:
    """Who decoded faster, in one sentence; None where that is unknown."""
    rates = rows[0]
    if sum(value is not None for value in rates.values) < 2:
        return None
    if rates.equal:
        sentence = "They decoded about equally fast"
    elif rates.winner is None:
        sentence = f"{listed(rates.better_letters)} decoded about equally fast, ahead of the others"
    else:
        sentence = f"{LETTERS[rates.winner]} decoded {rates.factor_text}"
    return f"{sentence}; contended, so not for the record." if rates.contended else f"{sentence}."


def delta_table(rows: Sequence[DeltaRow]) -> list[dict[str, Any]]:
    """Rows of the table of figures, as Markdown; every text in it is our own."""
    table = []
    for row in rows:
        cells: dict[str, Any] = {"Figure": row.name}
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
    """Under what the figures were taken: a few sentences."""
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
    pair = _pick_pair(report.pairs)
    divergence = pair.divergence
    shared = f" They share {divergence.similarity:.0%} of their words, in the same order."
    st.markdown(divergence.sentence + ("" if divergence.identical else shared))
    if pair.followed is not None and pair.reference is not None:
        reference = report.sides[pair.reference]
        st.markdown(
            f":material/compress: {pair.followed.sentence} The reference is {reference.letter} "
            f"({reference.spec.precision.label})."
        )
    if any(kind is not DiffKind.SAME for kind, _ in pair.diff):
        a, b = report.sides[pair.a], report.sides[pair.b]
        with st.expander("The two texts in one, word by word", icon=":material/difference:"):
            st.html(diff_html(a, b, pair))


def diff_html(a: SideReport, b: SideReport, pair: Pair) -> str:
    """Both texts as one, what only one of them has marked; nothing in them is active."""

    def marked(kind: DiffKind, text: str) -> str:
        tag, style = _MARKS[kind]
        return f'<{tag} style="{style};border-radius:3px">{safe_html(text)}</{tag}>'

    key = (
        f"{marked(DiffKind.ONLY_A, f'only {a.letter}')} "
        f"{marked(DiffKind.ONLY_B, f'only {b.letter}')}"
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
