"""Which model to take: one row per model, precision and device, and a sentence per model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from core.db import PairVotes
from core.metrics.frames import best_known, point_frame
from core.metrics.labels import runtime_label
from core.metrics.rows import Point, precision_label
from core.metrics.verdict import verdicts
from core.store.resolver import recorded_name
from core.ui.compare.state import votes_hidden
from core.ui.metrics.tables import number
from core.ui.widgets.resources import shared_votes
from core.ui.widgets.safe_text import safe_inline

MAX_VERDICTS = 3
"""Maximum number of models with a sentence; the most recently measured ones."""

Votes = dict[tuple[str, str], tuple[float, int]]
"""Model key and display name of its weights to votes won (a tie is half a win) and all votes."""

_COLUMNS = {
    "Tokens/s": number(1, "Decode rate: median of 1 / TPOT, without prefill."),
    "First token ms": number(0, "Median time from the start of work to the first token."),
    "Memory MB": number(
        0,
        "Private plus file-backed memory after the first answer: of a separate process in a "
        "benchmark, the growth of the app's process for answers.",
    ),
    "Disk MB": number(0),
    "Perplexity ×": number(
        3, "Perplexity ÷ that of the highest precision, on a fixed set of texts."
    ),
    "Accuracy %": number(0, "Held-out tasks solved; only measured for the tiny demo models."),
    "Votes won %": number(0, "Share of the votes on Compare; a tie is half a win."),
}


def draw_comparison(points: Sequence[Point]) -> None:
    """Draw the table and the sentences."""
    votes: Votes = {}
    if not votes_hidden():  # they would tell the names of a blind comparison
        by = ("model", "precision", "weights")
        votes = votes_of(shared_votes().pairs(by, name=recorded_name))
    table = comparison_table(points, votes)
    st.dataframe(
        table.dropna(axis="columns", how="all"),
        column_config=_COLUMNS,
        hide_index=True,
        height=min(440, 38 + 35 * len(table)),
        placeholder="",
        key="comparison",
        alt="Figures of each model, precision and device",
    )
    for verdict in verdicts(points)[:MAX_VERDICTS]:
        st.markdown(
            f"**{safe_inline(verdict.model)}: {safe_inline(verdict.recommendation)}.** "
            f"{safe_inline(verdict.details)}"
        )


def comparison_table(points: Sequence[Point], votes: Votes) -> pd.DataFrame:
    """Return the best-known figures of each configuration, the fastest first."""
    known = best_known(point_frame(points)).sort_values("rate", ascending=False)
    subjects = [point.subject for point in known["point"]]
    found = [votes.get((each.model, each.weights)) for each in subjects]
    table = pd.DataFrame(
        {
            "Model": list(known["model"]),
            "Precision": [each.weights for each in subjects],
            "Device": [each.device_label for each in subjects],
            "Runtime": [runtime_label(each.runtime) for each in subjects],
            "Tokens/s": list(known["rate"]),
            "First token ms": list(known["ttft"]),
            "Memory MB": list(known["memory"]),
            "Disk MB": list(known["disk"]),
            "Perplexity ×": list(known["perplexity"]),
            "Accuracy %": list(known["accuracy"]),
            "Votes won %": [100 * each[0] / each[1] if each else None for each in found],
            "Votes": [each[1] if each else None for each in found],
            "Measured by": list(known["series"]),
        }
    )
    same = [name for name in ("Device", "Runtime") if table[name].nunique() == 1]
    return table.drop(columns=same)


def votes_of(pairs: Sequence[PairVotes]) -> Votes:
    """Return the votes of each model and precision; votes on a model against itself count none."""
    won: Counter[tuple[str, str]] = Counter()
    cast: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        for side, wins in ((pair.left, pair.left_wins), (pair.right, pair.right_wins)):
            if pair.left != pair.right and side.precision is not None:
                key = (side.model, side.weights or precision_label(side.precision))
                won[key] += wins + 0.5 * (pair.ties + pair.both_bad)
                cast[key] += pair.left_wins + pair.right_wins + pair.ties + pair.both_bad
    return {key: (won[key], count) for key, count in cast.items()}
